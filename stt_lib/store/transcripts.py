"""The results: transcripts, and the marks on the chunks that they own."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bson import ObjectId
from pymongo import errors as mongo_errors
from pymongo.write_concern import WriteConcern

from stt_lib.domain import models
from stt_lib.domain.models import identity
from stt_lib.errors import ClaimLost
from stt_lib.store import mapping
from stt_lib.store.chunks import held_by, owners
from stt_lib.store.database import Connection, Document

_ONLY_SEAM: Final[Document] = {
    "$cond": [{"$eq": [{"$type": "$stt.seam"}, "object"]}, {"seam": "$stt.seam"}, "$$REMOVE"]
}
"""Whoever transcribes the next chunk has to know it."""


class Results(Connection):
    """Saving first, marking second."""

    is_divisible: Final = True

    def name(self, _claim: models.Claim) -> models.Revision:
        """A new id, made before the first attempt to save under it."""
        return models.Revision(ObjectId())

    def owned(self, original_id: Any, ids: Sequence[Any]) -> set[Any]:
        """Which of these chunks (by `identity`) a saved transcript owns already."""
        query = owners(original_id, ids)
        found = self._call(lambda: list(self._transcriptions.find(query, {"chunk_ids": 1})))
        theirs = {identity(i) for document in found for i in document["chunk_ids"]}
        return theirs & {identity(i) for i in ids}

    def has_transcribed_twin(self, claim: models.Claim, chunk: models.Chunk) -> bool:
        """Whether another chunk of the same recording and index is in a transcript."""
        query = {"original": claim.original_id, "chunk_ids": {"$exists": True}}
        found = self._call(lambda: list(self._transcriptions.find(query, {"chunk_ids": 1})))
        ids = [chunk_id for document in found for chunk_id in document["chunk_ids"]]
        twin = {"_id": {"$in": ids, "$ne": chunk.id}, "index": chunk.index}
        return self._call(lambda: self._chunks.find_one(twin, {"_id": 1})) is not None

    def save(self, transcript: models.Transcript) -> bool:
        """Insert a transcript, durably; False when another one owns some of its chunks.

        Repeating it with the same transcript is harmless: it is recognised by its id.
        """
        document = mapping.transcript(transcript, datetime.now(UTC))
        collection = self._transcriptions.with_options(
            write_concern=WriteConcern("majority", j=True)
        )
        try:
            self._call(lambda: collection.insert_one(document))
        except mongo_errors.DuplicateKeyError:
            return self._is_saved(transcript.id)
        return True

    def _is_saved(self, transcript_id: Any) -> bool:
        query = {"_id": transcript_id}
        return self._call(lambda: self._transcriptions.find_one(query, {"_id": 1})) is not None

    def mark(
        self, ids: Sequence[Any], token: str, *, unsaved: models.Transcript | None = None
    ) -> None:
        """Mark chunks as transcribed, once their transcript is safe; forget all but the seam.

        With an `unsaved` transcript the mark itself says that they hold no speech. What was
        dropped from it stays with its chunks, so that it can be explained and taken back.

        Raises:
            ClaimLost: some are neither ours any more nor marked by somebody else.
        """
        done: list[Document] = [{"$set": {"transcribed_at": "$$NOW", "stt": _ONLY_SEAM}}]
        if unsaved is not None and unsaved.dropped:
            done.append({"$set": {"stt": {"$mergeObjects": ["$stt", _set_aside(unsaved)]}}})
        held = held_by(ids, token)
        # A lost mark that a transcript backs is made again: the next run finds the owner.
        chunks = self._chunks_unwaited if unsaved is None else self._chunks
        matched = self._call(lambda: chunks.update_many(held, done)).matched_count
        if matched < len(ids):
            unmarked = {"_id": {"$in": list(ids)}, "transcribed_at": None}
            left = self._call(lambda: self._chunks.count_documents(unmarked))
            if left:
                raise ClaimLost(f"{left} of {len(ids)} chunks are claimed by another")

    def transcripts(self) -> list[models.Transcript]:
        """All transcripts, oldest first."""
        cursor = self._transcriptions.find({}, sort=[("start", 1)])
        return [mapping.read_transcript(d) for d in self._call(lambda: list(cursor.clone()))]


def _set_aside(unsaved: models.Transcript) -> Document:
    """The `stt` of chunks whose text was dropped: the first one holds it, the others say where."""
    first = unsaved.chunk_ids[0]
    document = mapping.transcript(unsaved, datetime.now(UTC))
    is_first = {"$eq": ["$_id", {"$literal": first}]}
    others = {"dropped_with": {"$literal": first}}
    return {"$cond": [is_first, {"dropped": {"$literal": document}}, others]}

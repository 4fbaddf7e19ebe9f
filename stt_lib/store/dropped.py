"""What the hallucination filter dropped: kept, found again, and restored."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pymongo import InsertOne

from stt_lib.domain.models import Explained, Transcript, identity
from stt_lib.errors import InputError
from stt_lib.store import mapping
from stt_lib.store.chunks import owners
from stt_lib.store.database import Database, Document, is_duplicate
from stt_lib.store.ids import possible_ids

_DETECTED: Final = {"index": 1, "start": 1, "vad.prob": 1}
_MAX_TRANSCRIPTS: Final = 1000
"""Count. Of one recording: three days of speech."""


class Dropped:
    """Transcripts, saved or dropped as a whole, with what the filter dropped from them.

    Text of a sequence that has no transcript is a document of `stt_dropped`. Older versions kept
    it on the sequence's first chunk, as `stt.dropped`.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def save(self, transcript: Transcript) -> None:
        """Keep a transcript of which the filter left nothing; call it before the mark."""
        document = mapping.dropped_transcript(transcript, datetime.now(UTC))
        query = {"_id": document["_id"]}
        self._db.run(lambda: self._db.dropped.replace_one(query, document, upsert=True))

    # -- finding ------------------------------------------------------------------------------

    def explained(self, text: str) -> list[Explained]:
        """What was heard in a transcript, a chunk or a recording with this id, oldest first."""
        ids = possible_ids(text)
        found = self._saved({"_id": {"$in": ids}}) or self._of_chunks(ids)
        if not found:
            found = self._saved({"original": {"$in": ids}})
            saved = {identity(explained.transcript.id) for explained in found}
            dropped = self._unsaved({"original": {"$in": ids}}) + self._on_chunks(
                {"original_id": {"$in": ids}}
            )
            found += [d for d in dropped if identity(d.transcript.id) not in saved]
        return sorted(found, key=lambda explained: explained.transcript.start)

    def _of_chunks(self, ids: Sequence[Any]) -> list[Explained]:
        query = {"_id": {"$in": ids}}
        fields = {"original_id": 1, "stt.dropped_with": 1}
        for chunk in self._db.find(self._db.chunks, query, fields):
            owner = owners(chunk.get("original_id"), [chunk["_id"]])
            first = mapping.nested(chunk, "stt.dropped_with") or chunk["_id"]
            found = self._saved(owner) or self._unsaved(owner) or self._on_chunks({"_id": first})
            if found:
                return found
        return []

    def _saved(self, query: Document) -> list[Explained]:
        found = self._db.find(self._db.transcriptions, query, limit=_MAX_TRANSCRIPTS)
        return self._with_chunks(found, is_saved=True)

    def _unsaved(self, query: Document) -> list[Explained]:
        found = self._db.find(self._db.dropped, query, limit=_MAX_TRANSCRIPTS)
        return self._with_chunks(map(mapping.undropped, found), is_saved=False)

    def _on_chunks(self, query: Document) -> list[Explained]:
        """As older versions kept it."""
        query = {**query, "stt.dropped": {"$exists": True}}
        found = self._db.find(
            self._db.chunks, query, {"stt.dropped": 1}, seconds=None, limit=_MAX_TRANSCRIPTS
        )
        return self._with_chunks((chunk["stt"]["dropped"] for chunk in found), is_saved=False)

    def _with_chunks(self, documents: Iterable[Document], *, is_saved: bool) -> list[Explained]:
        found = list(documents)
        ids = [chunk_id for document in found for chunk_id in mapping.owned_ids(document)]
        detected = self._db.find(self._db.chunks, {"_id": {"$in": ids}}, _DETECTED)
        chunks = {identity(chunk["_id"]): chunk for chunk in detected}

        def read(document: Document) -> Explained:
            own = [i for i in map(identity, mapping.owned_ids(document)) if i in chunks]
            return mapping.explained(document, [chunks[i] for i in own], is_saved=is_saved)

        return list(self._db.readable(found, read))

    # -- restoring ----------------------------------------------------------------------------

    def restore(self, explained: Explained) -> int:
        """Put all dropped segments back; returns how many.

        What was dropped as a whole becomes a transcript. Repeating it changes nothing.

        Raises:
            InputError: another transcript owns the chunks, or it was changed meanwhile.
        """
        if explained.is_saved:
            return self._put_back(explained.transcript)
        document = self._kept(explained.transcript)
        segments = mapping.restored(document)
        if segments is None:
            return 0
        self._save_as_transcript({**document, **segments})
        self._forget(explained.transcript)
        return len(segments["segments"])

    def _put_back(self, record: Transcript) -> int:
        query = {"_id": record.id}
        document = self._db.find_one(self._db.transcriptions, query) or {}
        segments = mapping.restored(document)
        if segments is None:
            return 0
        before = {name: document[name] for name in ("segments", "dropped_segments")}
        unchanged, update = {**query, **before}, {"$set": segments}
        done = self._db.run(lambda: self._db.transcriptions.update_one(unchanged, update))
        if not done.matched_count and not self._db.has(
            self._db.transcriptions, {**query, **segments}
        ):
            raise InputError(f"transcript {record.id} was changed by another program: try again")
        return len(document["dropped_segments"])

    def _kept(self, record: Transcript) -> Document:
        """The document of a transcript that was dropped as a whole; empty if it is gone."""
        query = {"_id": record.chunk_ids[0]}
        found = self._db.find_one(self._db.dropped, query)
        if found is not None:
            return mapping.undropped(found)
        old = self._db.find_one(self._db.chunks, query, {"stt.dropped": 1})
        return mapping.nested(old or {}, "stt.dropped") or {}

    def _save_as_transcript(self, document: Document) -> None:
        [refusal] = self._db.bulk(self._db.transcriptions, [InsertOne(document)])
        if refusal and not self._db.has(self._db.transcriptions, {"_id": document["_id"]}):
            if not is_duplicate(refusal):
                raise self._db.refused(refusal)
            raise InputError(
                "another transcript owns these chunks now: the dropped text cannot be put back"
            )

    def _forget(self, record: Transcript) -> None:
        """The transcript holds it now."""
        first = {"_id": record.chunk_ids[0]}
        self._db.run(lambda: self._db.dropped.delete_one(first))
        old = {"_id": {"$in": list(record.chunk_ids)}, "stt": {"$exists": True}}
        no_empty = {"$cond": [{"$eq": ["$stt", {}]}, "$$REMOVE", "$stt"]}
        update: list[Document] = [
            {"$unset": ["stt.dropped", "stt.dropped_with"]},
            {"$set": {"stt": no_empty}},
        ]
        self._db.run(lambda: self._db.chunks.update_many(old, update))

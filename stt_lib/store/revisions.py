"""Transcripts that are done again: found, claimed, and replaced by what is better.

A transcript is replaced by one atomic operation on its document, so that whoever reads it sees
the old text or the new one, never two and never none. What it was goes to its history before.
Nothing here touches chunks: they stay marked, and owned by the same transcript.
"""

from collections.abc import Hashable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pymongo.write_concern import WriteConcern

from stt_lib.domain import models
from stt_lib.domain.models import Origin, Revision, Selection, identity
from stt_lib.errors import ClaimLost
from stt_lib.store import mapping
from stt_lib.store.chunks import LOADED
from stt_lib.store.database import Document
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import WITHOUT_EMPTY_STT, Schema

HISTORY: Final = "transcriptions_history"
"""Where the texts are that were replaced, each under `{transcript, revision}`."""

_ORIGIN: Final = ("model", "server", "protocol", "language", "version")
_LISTED: Final = dict.fromkeys(["original", "start", "chunk_ids", "revision", "stt", *_ORIGIN], 1)
_DURABLE: Final = WriteConcern("majority", j=True)


class Revisions(Schema):
    """Each revision of a transcript is written once, whoever tries."""

    def count_transcripts(self, only: Selection) -> list[tuple[Origin, int]]:
        """How many transcripts there are of each origin."""
        origin = {name: f"${name}" for name in _ORIGIN}
        stages: list[Document] = [
            {"$match": _selected(only)},
            {"$group": {"_id": origin, "count": {"$sum": 1}}},
        ]
        rows = self._call(lambda: list(self._transcriptions.aggregate(stages)), seconds=None)
        return [(mapping.origin(row["_id"]), row["count"]) for row in rows]

    def old_transcripts(
        self, only: Selection, *, before: datetime | None = None
    ) -> Iterator[models.OldTranscript]:
        """Stream transcripts without their text, newest first, `before` or at that start.

        May raise errors of the driver half-way: call through `patiently`, and start again.
        """
        query = _selected(only)
        if before is not None:
            query = {"$and": [query, {"start": {"$lte": before}}]}
        now = self._hello()["localTime"]
        cursor = self._transcriptions.find(
            query, _LISTED, sort=[("start", -1)], batch_size=200, allow_disk_use=True
        )
        with cursor:
            for document in cursor:
                yield mapping.old_transcript(document, now)

    def existing_chunks(self, ids: Sequence[Any]) -> set[Hashable]:
        """Which of these chunks (by `identity`) are still there."""
        query = {"_id": {"$in": list(ids)}}
        found = self._call(lambda: list(self._chunks.find(query, {"_id": 1})))
        return {identity(document["_id"]) for document in found}

    # -- claims -------------------------------------------------------------------------------

    def claim_transcript(self, revision: Revision, token: str) -> bool:
        """Hold this revision for a lease; False when it is another's, or is there no more."""
        free: Document = {"$expr": {"$lte": ["$stt.claim.until", "$$NOW"]}}
        claimable = {**_of(revision), "$or": [free, {"stt.claim.by": token}]}
        taken: list[Document] = [{"$set": {"stt.claim": self._claim_of(token)}}]
        result = self._call(lambda: self._transcriptions.update_one(claimable, taken))
        return result.matched_count == 1

    def renew_transcript(self, revision: Revision, token: str) -> None:
        """Hold the claim for another lease.

        Raises:
            ClaimLost: it is not ours any more.
        """
        held = {**_of(revision), "stt.claim.by": token}
        until: list[Document] = [{"$set": {"stt.claim": self._claim_of(token)}}]
        if not self._call(lambda: self._transcriptions.update_one(held, until)).matched_count:
            raise ClaimLost("the transcript is claimed or was replaced by another")

    def release_transcript(
        self, revision: Revision, token: str, *, heard_nothing: str | None = None
    ) -> None:
        """Give it back as it is; one that is not ours any more is left alone.

        `heard_nothing` is the model that found no speech where this transcript has text.
        """
        held = {**_of(revision), "stt.claim.by": token}
        forget: list[Document] = [{"$unset": "stt.claim"}]
        if heard_nothing is not None:
            note = {"model": {"$literal": heard_nothing}, "at": "$$NOW"}
            forget.append({"$set": {"stt.heard_nothing": note}})
        forget.append(WITHOUT_EMPTY_STT)
        self._call(lambda: self._transcriptions.update_one(held, forget))

    def transcript_claims(self, ids: Sequence[Any]) -> dict[str, datetime]:
        """Tokens that hold some of these transcripts now, and until when unless renewed."""
        now = self._call(self._hello)["localTime"]
        query = {"_id": {"$in": list(ids)}, "stt.claim.until": {"$gt": now}}
        found = self._call(lambda: list(self._transcriptions.find(query, {"stt.claim": 1})))
        return {str(d["stt"]["claim"]["by"]): d["stt"]["claim"]["until"] for d in found}

    def audio_of(self, ids: Sequence[Any]) -> tuple[models.Chunk, ...]:
        """Those of these chunks that are still there, with their audio, in this order."""
        query = {"_id": {"$in": list(ids)}}
        found = self._call(lambda: list(self._chunks.find(query, LOADED)))
        by_id = {identity(document["_id"]): mapping.chunk(document) for document in found}
        return tuple(by_id[i] for i in map(identity, ids) if i in by_id)

    # -- replacing ----------------------------------------------------------------------------

    def replace(self, transcript: models.Transcript, *, keep_history: bool) -> bool:
        """Put a transcript in the place of its last revision; False when that is there no more.

        It may be repeated at any point: the copy in the history has a name of its own for each
        revision, and a replacement that happened already is recognised.
        """
        last = Revision(transcript.id, transcript.revision - 1)
        new = mapping.transcript(transcript, datetime.now(UTC))
        old = {**_of(last), "chunk_ids": new["chunk_ids"]}  # the same audio: one in, one out
        if keep_history:
            self._copy_to_history(old, last)
        collection = self._transcriptions.with_options(write_concern=_DURABLE)
        if self._call(lambda: collection.replace_one(old, new)).matched_count:
            return True
        mine = {name: new[name] for name in ("_id", "revision", "created_at")}
        return self._call(lambda: self._transcriptions.find_one(mine, {"_id": 1})) is not None

    def _copy_to_history(self, old: Document, last: Revision) -> None:
        """Within MongoDB, so that the copy is exact."""
        name = {"transcript": last.transcript_id, "revision": last.number}
        into = {"into": HISTORY, "on": "_id", "whenMatched": "replace", "whenNotMatched": "insert"}
        stages: list[Document] = [
            {"$match": old},
            {"$set": {"_id": {"$literal": name}, "replaced_at": "$$NOW"}},
            {"$unset": "stt"},
            {"$merge": into},
        ]
        collection = self._transcriptions.with_options(write_concern=_DURABLE)
        self._call(lambda: list(collection.aggregate(stages)))


def _selected(only: Selection) -> Document:
    query: Document = {}
    if only.since is not None:
        query["start"] = {"$gte": only.since}
    if only.until is not None:
        query["start"] = {**query.get("start", {}), "$lt": only.until}
    if only.recording is not None:
        query["original"] = {"$in": possible_ids(only.recording)}
    return query


def _of(revision: Revision) -> Document:
    number = revision.number if revision.number > 1 else {"$in": [1, None]}
    return {"_id": revision.transcript_id, "revision": number}

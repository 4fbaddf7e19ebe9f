"""The backlog: what is pending, and the claims on it."""

from collections.abc import Container, Hashable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from pymongo.command_cursor import CommandCursor

from stt_lib.domain import models
from stt_lib.domain.models import ALL, Selection, identity
from stt_lib.errors import ClaimLost
from stt_lib.store import mapping
from stt_lib.store.database import Document
from stt_lib.store.indexes import (
    FAILED,
    NEWEST_FIRST,
    PENDING,
    PLAN,
    WITHOUT_EMPTY_STT,
    WORKABLE,
    Schema,
)
from stt_lib.store.mapping import nested
from stt_lib.store.selection import only_selected

LOADED: Final[Document] = {
    **dict.fromkeys(["index", "start", "original_id", "data", "format"], 1),
    **dict.fromkeys(["vad.prob", "vad.has_speech"], 1),
    **dict.fromkeys(["stt.failures", "stt.excuses", "stt.error.kind", "stt.seam"], 1),
    **dict.fromkeys(["transcribed_at", "ingested_at"], 1),
}


class Backlog(Schema):
    """Pending chunks and who holds them."""

    def count_pending(self, only: Selection = ALL, *, only_failed: bool = False) -> int:
        """How many chunks are pending and not parked, or with `only_failed` have failed before."""
        index = "stt_failed" if only_failed else "stt_pending"
        if only == ALL and self._is_indexed(index):
            return self._call(lambda: self._count_keys({}, index), seconds=None)
        counted = [*only_selected(only, {"_id": 1}), {"$count": "chunks"}]
        rows = self._call(lambda: list(self._backlog(counted, only_failed)), seconds=None)
        return int(rows[0]["chunks"]) if rows else 0

    def _backlog(self, stages: list[Document], only_failed: bool) -> CommandCursor[Document]:
        """What is pending, or has failed before, through the stages of a pipeline.

        The partial index holds the wanted chunks and no others. Asked for with a filter,
        MongoDB would read every document to check it once more, audio and all.
        """
        index, wanted = ("stt_failed", FAILED) if only_failed else ("stt_pending", WORKABLE)
        if self._is_indexed(index):
            return self._chunks.aggregate(stages, hint=index, batchSize=1000)
        return self._chunks.aggregate([{"$match": wanted}, *stages], allowDiskUse=True)

    # -- planning -----------------------------------------------------------------------------

    def pending(
        self,
        *,
        since: datetime,
        only: Selection = ALL,
        only_failed: bool = False,
        but: Container[Hashable] = frozenset(),
    ) -> Iterator[models.ChunkRef]:
        """Stream what may be worked on now, newest first: metadata, never audio.

        Chunks under somebody's live claim are left out, and so are those that became due again
        only after `since`, the start of the run: what fails in a run is not picked again in it.
        `only_failed` streams what has failed before `since` instead, parked or not due as it may
        be. May raise errors of the driver half-way: call through `patiently`, and start again.
        """
        newest_first = {"$sort": dict(NEWEST_FIRST)}
        now = self._hello()["localTime"]
        cursor = self._backlog([newest_first, *only_selected(only, PLAN)], only_failed)
        with cursor:
            for document in cursor:
                if identity(document["_id"]) in but:
                    continue
                if _is_claimable(document, now) and (
                    _failed_before(document, since) if only_failed else _is_due(document, since)
                ):
                    yield mapping.chunk_ref(document)

    # -- claims -------------------------------------------------------------------------------

    def claim(
        self, sequence: models.ChunkSequence, token: str, *, since: datetime | None = None
    ) -> models.Claim | None:
        """Claim a sequence and load its audio; None when somebody else has its newest chunk.

        The newest chunk is won first, by one atomic update: of two workers only one goes on.
        Then the rest; what was won beyond a chunk that was not is given back. Chunks that failed
        elsewhere after `since`, the start of the run, and have to wait now, are not claimed: the
        plan could not know that.
        """
        ids = [chunk.id for chunk in sequence.chunks]
        taken = {"$set": {"stt.claim": self._claim_of(token)}}
        newest = {
            "_id": sequence.newest.id,
            "original_id": sequence.original_id,  # the likely shard key of a sharded collection
            **self._claimable(token, since),
        }
        # Logs keep the order of writes: what the second waits for makes the first safe, too.
        chunks = self._chunks if len(ids) == 1 else self._chunks_unwaited
        won = self._call(lambda: chunks.find_one_and_update(newest, [taken], projection={"_id": 1}))
        if won is None:
            return None
        if len(ids) > 1:
            rest = {"_id": {"$in": ids[:-1]}, **self._claimable(token, since)}
            self._call(lambda: self._chunks.update_many(rest, [taken]))
        return self._load(sequence, token)

    def _claimable(self, token: str, since: datetime | None) -> Document:
        """Free or expired, or ours already (the answer to our first try was lost)."""
        free: list[Document] = [{"$lte": ["$stt.claim.until", "$$NOW"]}]
        if since is not None:
            is_parked = {"$eq": [{"$type": "$stt.parked_at"}, "date"]}
            waits = {"$or": [is_parked, {"$gt": ["$stt.retry_at", "$$NOW"]}]}
            free.append({"$or": [{"$lte": ["$stt.error.at", since]}, {"$not": [waits]}]})
        return {**PENDING, "$or": [{"$expr": {"$and": free}}, {"stt.claim.by": token}]}

    def _load(self, sequence: models.ChunkSequence, token: str) -> models.Claim | None:
        """What is held now, and which of it a transcript owns already: in one query."""
        ids = [chunk.id for chunk in sequence.chunks]
        owner: list[Document] = [
            {"$match": owners(sequence.original_id, ids)},
            {"$project": {"chunk_ids": 1}},
        ]
        pipeline: list[Document] = [
            {"$match": held_by(ids, token)},
            {"$project": LOADED},
            {"$unionWith": {"coll": "transcriptions", "pipeline": owner}},
        ]
        if self._is_indexed("stt_place") and sequence.problem is None:
            around = _around(sequence.original_id, sequence.chunks)
            beside = [{"$match": around}, {"$project": LOADED}]
            pipeline.append({"$unionWith": {"coll": "audio_chunks", "pipeline": beside}})
        found: dict[Hashable, models.Chunk] = {}
        owned: set[Hashable] = set()
        for document in self._call(lambda: list(self._chunks.aggregate(pipeline))):
            if "chunk_ids" in document:
                owned.update(map(identity, document["chunk_ids"]))
            else:
                found[identity(document["_id"])] = mapping.chunk(document)
        won = [found.get(identity(chunk_id)) for chunk_id in ids]
        first = max((at + 1 for at, chunk in enumerate(won) if chunk is None), default=0)
        beyond = [chunk.id for chunk in won[:first] if chunk is not None]
        if beyond:
            self.release(beyond, token)
        chunks = tuple(chunk for chunk in won[first:] if chunk is not None)
        owned.intersection_update(identity(chunk.id) for chunk in chunks)
        if not chunks:
            return None
        neighbours = [found[key] for key in found.keys() - set(map(identity, ids))]
        if first:  # somebody else has the chunk before those that we won
            neighbours += self._speech_before(sequence, chunks[0])
        return models.Claim(
            token, sequence.original_id, chunks, frozenset(owned), tuple(neighbours)
        )

    def _speech_before(
        self, sequence: models.ChunkSequence, chunk: models.Chunk
    ) -> list[models.Chunk]:
        if not self._is_indexed("stt_place"):
            return []
        place = {"original_id": sequence.original_id, "index": chunk.index - 1}
        query = {**place, "vad.has_speech": True}
        return list(map(mapping.chunk, self._call(lambda: list(self._chunks.find(query, LOADED)))))

    def neighbours_of(
        self, original_id: Any, chunks: Sequence[models.Chunk]
    ) -> tuple[models.Chunk, ...]:
        """The chunks around these of a recording that a claim on them comes with."""
        if not self._is_indexed("stt_place"):
            return ()
        query = _around(original_id, chunks)
        return tuple(map(mapping.chunk, self._call(lambda: list(self._chunks.find(query, LOADED)))))

    def renew(self, ids: Sequence[Any], token: str) -> None:
        """Hold the claim for another lease.

        Raises:
            ClaimLost: not all of the chunks are ours any more.
        """
        until = [{"$set": {"stt.claim": self._claim_of(token)}}]
        held = held_by(ids, token)
        matched = self._call(lambda: self._chunks.update_many(held, until)).matched_count
        if matched != len(ids):
            raise ClaimLost(f"{len(ids) - matched} of {len(ids)} chunks are claimed by another")

    def release(self, ids: Sequence[Any], token: str) -> None:
        """Give chunks back untouched; those that are not ours any more are left alone."""
        forget: list[Document] = [{"$unset": "stt.claim"}, WITHOUT_EMPTY_STT]
        self._call(lambda: self._chunks.update_many(held_by(ids, token), forget))

    def live_claims(self, only: Selection = ALL) -> dict[str, datetime]:
        """Tokens that hold pending chunks now, and until when they do unless renewed."""
        return self._call(lambda: self._live_claims(only))

    def _live_claims(self, only: Selection) -> dict[str, datetime]:
        now = self._hello()["localTime"]
        live: dict[str, datetime] = {}
        query = {**WORKABLE, "stt.claim.until": {"$gt": now}}
        claims = [{"$match": query}, *only_selected(only, {"stt.claim": 1})]
        for document in self._backlog(claims, only_failed=False):
            token = str(nested(document, "stt.claim.by"))
            until = nested(document, "stt.claim.until")
            live[token] = max(until, live.get(token, until))
        return live


def _around(original_id: Any, chunks: Sequence[models.ChunkRef | models.Chunk]) -> Document:
    """The chunks with speech on both sides of a sequence, and those without in its gaps."""
    held = {chunk.index for chunk in chunks if chunk.index is not None}
    first, last = min(held), max(held)
    gaps = [index for index in range(first, last) if index not in held]
    beside = {"index": {"$in": [first - 1, last + 1]}, "vad.has_speech": True}
    between = {"index": {"$in": gaps}, "vad.has_speech": False}
    place = {"original_id": original_id}
    return {**place, "$or": [beside, between]} if gaps else {**place, **beside}


def held_by(ids: Sequence[Any], token: str) -> Document:
    """Those of these chunks that this token holds."""
    return {"_id": {"$in": list(ids)}, "stt.claim.by": token, "transcribed_at": None}


def owners(original_id: Any, ids: Sequence[Any]) -> Document:
    """The transcripts that own some of these chunks."""
    return {"original": original_id, "chunk_ids": {"$in": list(ids), "$exists": True}}


def _is_claimable(document: Document, now: datetime) -> bool:
    until = nested(document, "stt.claim.until")
    return not isinstance(until, datetime) or until <= now


def _is_due(document: Document, since: datetime) -> bool:
    retry_at = nested(document, "stt.retry_at")
    return not isinstance(retry_at, datetime) or retry_at <= since


def _failed_before(document: Document, since: datetime) -> bool:
    failed_at = nested(document, "stt.error.at")
    return not isinstance(failed_at, datetime) or failed_at <= since

"""Failures: kept on the chunks, counted, shown, and taken back."""

from collections.abc import Sequence
from typing import Any, Final

from stt_lib.domain.models import ChunkStory, FailedChunk, FailedKind, Failure
from stt_lib.store import mapping
from stt_lib.store.chunks import Chunks, ChunkUpdate, update_chunks
from stt_lib.store.claims import Claims
from stt_lib.store.database import Database, Document
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import DISCARDED, FAILED, IS_PARKED, NEWEST_FIRST

HISTORY: Final = 10
"""Count. Past failures kept on a chunk."""

_LISTED: Final = dict.fromkeys(
    ["original_id", "start", "stt.error.kind", "stt.error.at", "stt.retry_at", "stt.parked_at"], 1
)

_AN_OBJECT: Final[Document] = {
    "$set": {"stt": {"$cond": [{"$eq": [{"$type": "$stt"}, "object"]}, "$stt", {}]}}
}
"""Inside of an array, `stt.error` could not be set."""


class Failures:
    """What went wrong with which chunk, and when it is tried again."""

    def __init__(self, database: Database, chunks: Chunks, claims: Claims) -> None:
        self._db = database
        self._chunks = chunks
        self._claims = claims

    def record(
        self,
        ids: Sequence[Any],
        failure: Failure,
        *,
        attempt: str,
        audio_at_fault: bool,
        due_in: float,
        max_failures: int,
    ) -> None:
        """Record a failure of these chunks; due again in `due_in` seconds, in a later run.

        With `audio_at_fault` it counts against the chunks: after `max_failures` they are parked.
        Repeating it with the same `attempt` changes nothing.

        Raises:
            WriteRefused: MongoDB does not let some of them be changed; the others are recorded.
        """
        changes = _facts(failure, attempt, due_in)
        if audio_at_fault:
            changes += _counted_against(max_failures)
        else:
            changes.append({"$set": {"stt.excuses": _incremented("$stt.excuses")}})
        is_new = {"transcribed_at": None, "stt.attempt": {"$ne": attempt}}
        update = ChunkUpdate(ids, is_new, [_AN_OBJECT, *changes])
        [refusal] = update_chunks(self._db, self._db.chunks, [update])
        if refusal is not None:
            raise refusal

    # -- for people ---------------------------------------------------------------------------

    def kinds(self) -> list[FailedKind]:
        """Chunks that failed and are not transcribed yet, by kind, the most frequent first."""
        waits = {"$and": [{"$not": [IS_PARKED]}, {"$gt": ["$stt.retry_at", "$$NOW"]}]}
        summary: Document = {
            "_id": "$stt.error.kind",
            "chunks": {"$sum": 1},
            "parked": {"$sum": {"$cond": [IS_PARKED, 1, 0]}},
            "waiting": {"$sum": {"$cond": [waits, 1, 0]}},
            "next_due": {"$min": {"$cond": [waits, "$stt.retry_at", None]}},
            "oldest": {"$min": "$stt.error.at"},
            "newest": {"$max": "$stt.error.at"},
        }
        stages = [{"$group": summary}]
        found = map(mapping.failed_kind, self._chunks.backlog(stages, only_failed=True))
        return sorted(found, key=lambda kind: (-kind.chunks, kind.kind))

    def stories(self, text: str, limit: int = 100) -> list[ChunkStory]:
        """What happened to the chunk with this id, or to the failed chunks of this recording."""
        ids = {"$in": possible_ids(text)}
        found = self._read({"_id": ids}, limit) or self._read({**FAILED, "original_id": ids}, limit)
        return [mapping.story(d, self._claims.on_chunk(d["_id"])) for d in found]

    def _read(self, query: Document, limit: int) -> list[Document]:
        order = [("start", 1), ("index", 1)]
        return self._db.find(
            self._db.chunks, query, {"data": 0}, seconds=None, sort=order, limit=limit
        )

    def newest(self, limit: int, kind: str | None = None) -> list[FailedChunk]:
        """The failed chunks that were recorded last, from the index alone."""
        of_kind: list[Document] = [] if kind is None else [{"$match": {"stt.error.kind": kind}}]
        stages = [{"$sort": dict(NEWEST_FIRST)}, *of_kind, {"$limit": limit}, {"$project": _LISTED}]
        return list(map(mapping.failed_chunk, self._chunks.backlog(stages, only_failed=True)))

    def discarded(self, limit: int, kind: str | None = None) -> list[FailedChunk]:
        """The chunks that were discarded last."""
        query = DISCARDED if kind is None else {**DISCARDED, "stt.discarded.kind": kind}
        order = [("stt.discarded_at", -1)]
        found = self._db.find(
            self._db.chunks, query, {"data": 0}, seconds=None, sort=order, limit=limit
        )
        return [mapping.failed_chunk(document) for document in found]

    def discard(self, kind: str | None = None, text: str | None = None) -> int:
        """Park failed chunks and hide them from every list of failures; returns how many.

        Their error is moved, so that they are no longer found as failed.
        """
        parked = {"stt.parked_at": {"$ifNull": ["$stt.parked_at", "$$NOW"]}}
        moved = {"stt.discarded_at": "$$NOW", "stt.discarded": "$stt.error"}
        update: list[Document] = [{"$set": {**moved, **parked}}, {"$unset": "stt.error"}]
        return self._update(_failed(kind, text), update)

    def count(self, kind: str | None = None, text: str | None = None) -> int:
        """How many chunks `retry_now` would make due."""
        query = _failed(kind, text)
        return self._db.run(lambda: self._db.chunks.count_documents(query), seconds=None)

    def retry_now(
        self, kind: str | None = None, text: str | None = None, *, restores: bool = True
    ) -> int:
        """Make failed chunks due, parked or not: all, or those of one kind, chunk or recording.

        They get their full number of attempts again; their history is kept. A chunk that was
        discarded comes back if its id or that of its recording is given, unless `restores` is
        false. Returns how many.
        """
        failed = self._make_due(_failed(kind, text), [])
        if text is None or not restores:
            return failed
        restored: Document = {"$set": {"stt.error": "$stt.discarded"}}
        forgotten: Document = {"$unset": ["stt.discarded", "stt.discarded_at"]}
        query = {**DISCARDED, **_with_id(text)}
        return failed + self._make_due(query, [restored, forgotten])

    def _make_due(self, query: Document, stages: list[Document]) -> int:
        due: list[Document] = [
            *stages,
            {"$set": {"stt.retry_at": "$$NOW", "stt.failures": 0, "stt.excuses": 0}},
            {"$unset": "stt.parked_at"},
        ]
        return self._update(query, due)

    def _update(self, query: Document, update: list[Document]) -> int:
        chunks = self._db.chunks
        return self._db.run(lambda: chunks.update_many(query, update), seconds=None).matched_count


def _facts(failure: Failure, attempt: str, due_in: float) -> list[Document]:
    entry = {
        "kind": str(failure.kind),
        "message": {"$literal": failure.message.encode(errors="replace").decode()},
        "server": {"$literal": failure.server},
        "at": "$$NOW",
    }
    known = {"$cond": [{"$isArray": "$stt.history"}, "$stt.history", []]}
    facts = {
        "stt.attempt": {"$literal": attempt},
        "stt.error": entry,
        "stt.retry_at": {"$add": ["$$NOW", round(due_in * 1000)]},
        "stt.history": {"$slice": [{"$concatArrays": [known, [entry]]}, -HISTORY]},
    }
    return [{"$set": facts}, {"$unset": "stt.claim"}]  # which an older version may have left


def _counted_against(max_failures: int) -> list[Document]:
    is_last = {"$gte": ["$stt.failures", max_failures]}
    return [
        {"$set": {"stt.failures": _incremented("$stt.failures")}},
        {"$set": {"stt.parked_at": {"$cond": [is_last, "$$NOW", "$$REMOVE"]}}},
    ]


def _incremented(path: str) -> Document:
    """One more than a field in an update; nonsense counts as 0."""
    return {"$add": [{"$cond": [{"$isNumber": path}, path, 0]}, 1]}


def _failed(kind: str | None, text: str | None) -> Document:
    query = dict(FAILED)
    if kind is not None:
        query["stt.error.kind"] = kind
    if text is not None:
        query |= _with_id(text)
    return query


def _with_id(text: str) -> Document:
    """Of the chunk, or of the recording, with this id."""
    ids = {"$in": possible_ids(text)}
    return {"$or": [{"_id": ids}, {"original_id": ids}]}

"""The failures: kept on the chunks, counted, shown, and taken back."""

from collections.abc import Sequence
from typing import Any, Final

from stt_lib.domain import models
from stt_lib.errors import ClaimLost
from stt_lib.store import mapping
from stt_lib.store.chunks import held_by
from stt_lib.store.database import Document
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import FAILED, Schema

HISTORY: Final = 10
"""So many past failures are kept on a chunk."""


class Failures(Schema):
    """What went wrong with which chunk, and when it is tried again."""

    def blame(
        self,
        chunk_id: Any,
        token: str,
        failure: models.Failure,
        *,
        due_in: float,
        max_failures: int,
    ) -> None:
        """Record that a chunk's own audio failed; due again in `due_in` seconds, or parked."""
        counted = {"stt.failures": {"$add": [_number("$stt.failures"), 1]}}
        parked = {"$cond": [{"$gte": ["$stt.failures", max_failures]}, "$$NOW", "$$REMOVE"]}
        self._record(
            [chunk_id],
            token,
            failure,
            due_in,
            [{"$set": counted}, {"$set": {"stt.parked_at": parked}}],
        )

    def excuse(
        self, ids: Sequence[Any], token: str, failure: models.Failure, *, due_in: float = 0.0
    ) -> None:
        """Record a failure that is not the audio's: due in `due_in` seconds, but in a later run."""
        excuses = {"stt.excuses": {"$add": [_number("$stt.excuses"), 1]}}
        self._record(ids, token, failure, due_in, [{"$set": excuses}])

    def _record(
        self,
        ids: Sequence[Any],
        token: str,
        failure: models.Failure,
        due_in: float,
        more: list[Document],
    ) -> None:
        entry = {
            "kind": str(failure.kind),
            "message": {"$literal": failure.message},
            "server": {"$literal": failure.server},
            "at": "$$NOW",
        }
        known = {"$cond": [{"$isArray": "$stt.history"}, "$stt.history", []]}
        facts = {
            "stt.attempt": {"$literal": token},  # tells a repeated write from a lost claim
            "stt.error": entry,
            "stt.retry_at": {"$add": ["$$NOW", round(due_in * 1000)]},
            "stt.history": {"$slice": [{"$concatArrays": [known, [entry]]}, -HISTORY]},
        }
        update: list[Document] = [{"$set": facts}, *more, {"$unset": "stt.claim"}]
        held = held_by(ids, token)
        matched = self._call(lambda: self._chunks.update_many(held, update)).matched_count
        if matched < len(ids):
            recorded = {"_id": {"$in": list(ids)}, "stt.attempt": token}
            done = self._call(lambda: self._chunks.count_documents(recorded))
            if done < len(ids):
                raise ClaimLost(f"{len(ids) - done} of {len(ids)} chunks are claimed by another")

    def failed_kinds(self) -> list[models.FailedKind]:
        """What has failed and not been transcribed since, by kind, the most frequent first."""
        parked = {"$ne": [{"$type": "$stt.parked_at"}, "date"]}
        not_yet = {"$and": [parked, {"$gt": ["$stt.retry_at", "$$NOW"]}]}
        summary = {
            "_id": "$stt.error.kind",
            "chunks": {"$sum": 1},
            "parked": {"$sum": {"$cond": [parked, 0, 1]}},
            "waiting": {"$sum": {"$cond": [not_yet, 1, 0]}},
            "next_due": {"$min": {"$cond": [not_yet, "$stt.retry_at", None]}},
            "oldest": {"$min": "$stt.error.at"},
            "newest": {"$max": "$stt.error.at"},
        }
        rows = self._call(lambda: self._aggregate_failed([{"$group": summary}]), seconds=None)
        kinds = [mapping.failed_kind(row) for row in rows]
        return sorted(kinds, key=lambda found: (-found.chunks, found.kind))

    def _aggregate_failed(self, stages: list[Document]) -> list[Document]:
        if self._is_indexed("stt_failed"):
            # Looking at the index alone: a filter would make MongoDB read the documents.
            return list(self._chunks.aggregate(stages, hint="stt_failed"))
        return list(self._chunks.aggregate([{"$match": FAILED}, *stages]))

    def stories(self, text: str, limit: int = 100) -> list[models.ChunkStory]:
        """What happened to the chunk with this id, or to the failed chunks of this recording."""
        fields = {"data": 0}
        by_id = {"_id": {"$in": possible_ids(text)}}
        by_recording = {**FAILED, "original_id": {"$in": possible_ids(text)}}
        found = self._call(lambda: list(self._chunks.find(by_id, fields)))
        if not found:
            order = [("start", 1), ("index", 1)]
            cursor = self._chunks.find(by_recording, fields, sort=order, limit=limit)
            found = self._call(lambda: list(cursor.clone()), seconds=None)
        return [mapping.story(document) for document in found]

    def count_failed(self, kind: str | None = None, text: str | None = None) -> int:
        """How many chunks `retry_now` would make due."""
        return self._call(
            lambda: self._chunks.count_documents(_failed_query(kind, text)), seconds=None
        )

    def retry_now(self, kind: str | None = None, text: str | None = None) -> int:
        """Make failed chunks due, parked or not, all or of one kind, chunk or recording.

        They get their full number of tries again; what happened is kept. Returns how many.
        """
        due: list[Document] = [
            {"$set": {"stt.retry_at": "$$NOW", "stt.failures": 0, "stt.excuses": 0}},
            {"$unset": "stt.parked_at"},
        ]
        query = _failed_query(kind, text)
        return self._call(lambda: self._chunks.update_many(query, due), seconds=None).matched_count


def _number(path: str) -> Document:
    """The value of a field in an update, 0 where there is none or nonsense."""
    return {"$cond": [{"$isNumber": path}, path, 0]}


def _failed_query(kind: str | None, text: str | None) -> Document:
    query = dict(FAILED)
    if kind is not None:
        query["stt.error.kind"] = kind
    if text is not None:
        ids = {"$in": possible_ids(text)}
        query["$or"] = [{"_id": ids}, {"original_id": ids}]
    return query

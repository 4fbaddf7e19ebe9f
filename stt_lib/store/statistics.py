"""What `status` and the metrics show: how much was recorded, transcribed and failed over time.

Reading only, and no index exists for it alone: the time at which a transcript was saved is in its
id, and what is still to do is counted in the indexes that planning uses.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from bson import ObjectId

from stt_lib.domain.models import Activity, Span
from stt_lib.store.chunks import Chunks
from stt_lib.store.database import Database, Document
from stt_lib.store.indexes import IS_PARKED, Indexes

_QUICK: Final = ("stt_pending", "stt_failed", "stt_by_start")
_NEWEST_ID: Final = ObjectId("f" * 24)
_OWNED: Final[Document] = {"$cond": [{"$isArray": "$chunk_ids"}, {"$size": "$chunk_ids"}, 0]}

Counts = Mapping[datetime, int]
"""Chunks by the boundary at or before their time."""


class Statistics:
    """Counts over time, in chunks."""

    def __init__(self, database: Database, indexes: Indexes, chunks: Chunks) -> None:
        self._db = database
        self._indexes = indexes
        self._chunks = chunks

    @property
    def is_quick(self) -> bool:
        """Whether the indexes exist that keep counting from reading whole collections."""
        return all(map(self._indexes.has, _QUICK))

    def activity(self, spans: Sequence[Span]) -> list[Activity]:
        """What was recorded, transcribed and failed for the last time in each of these spans.

        Chunks in which no speech was found are in none of the figures.
        """
        times = sorted({time for span in spans for time in (span.since, span.until)})
        begun = self._in_transcripts({"start": {"$gte": times[0]}}, "$start", times)
        saved = self._in_transcripts(_saved_since(times[0]), {"$toDate": "$_id"}, times)
        pending = self._in_backlog("$start", times, 1, only_failed=False)
        parked = self._in_backlog("$start", times, {"$cond": [IS_PARKED, 1, 0]}, only_failed=True)
        failed = self._in_backlog("$stt.error.at", times, 1, only_failed=True)
        return [
            Activity(
                _within(span, begun, pending, parked), _within(span, saved), _within(span, failed)
            )
            for span in spans
        ]

    def _in_transcripts(self, query: Document, time: Any, times: list[datetime]) -> Counts:
        stages = [{"$match": query}, _buckets(time, times, _OWNED)]
        saved = self._db.transcriptions
        return _counted(self._db.run(lambda: list(saved.aggregate(stages)), seconds=None))

    def _in_backlog(
        self, time: str, times: list[datetime], weight: Any, *, only_failed: bool
    ) -> Counts:
        stages = [_buckets(time, times, weight)]
        return _counted(self._chunks.backlog(stages, only_failed=only_failed))

    def first_done_since(self, moment: datetime) -> datetime | None:
        """When the first transcript was saved since then."""
        return self._saved_at(_saved_since(moment), 1)

    def last_done(self) -> datetime | None:
        """When the last transcript was saved."""
        return self._saved_at({"_id": {"$lte": _NEWEST_ID}}, -1)

    def _saved_at(self, query: Document, direction: int) -> datetime | None:
        saved = self._db.transcriptions
        found = self._db.find_one(saved, query, {"_id": 1}, sort=[("_id", direction)])
        return found["_id"].generation_time if found else None


def _saved_since(moment: datetime) -> Document:
    return {"_id": {"$gte": ObjectId.from_datetime(moment), "$lte": _NEWEST_ID}}


def _buckets(time: Any, times: list[datetime], weight: Any) -> Document:
    """A stage that counts by the intervals between these times."""
    chunks = {"chunks": {"$sum": weight}}
    return {"$bucket": {"groupBy": time, "boundaries": times, "default": "other", "output": chunks}}


def _counted(rows: list[Document]) -> Counts:
    return {row["_id"]: row["chunks"] for row in rows if isinstance(row["_id"], datetime)}


def _within(span: Span, *counts: Counts) -> int:
    return sum(
        chunks
        for count in counts
        for time, chunks in count.items()
        if span.since <= time < span.until
    )

"""The state of the backlog, read from the database and weighed into one verdict."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from statistics import median
from typing import Final

from stt_lib.domain.models import (
    NOMINAL_CHUNK_SECONDS,
    Activity,
    ChunkSequence,
    FailedKind,
    Holder,
    Span,
)
from stt_lib.domain.sequences import group
from stt_lib.store import Store

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(weeks=1)
DAYS: Final = 8
"""Days. Today and the week before it."""
SAMPLE: Final = 5000
"""Chunks. Read from each end of the backlog; up to twice this many are counted exactly."""
SHORTEST: Final = timedelta(minutes=1)
"""Duration. Shortest period over which a speed is computed."""
FARTHEST: Final = timedelta(days=36525)
"""Duration. Longer estimates are reported as never."""


class Trend(StrEnum):
    """Whether the work is done as fast as it arrives."""

    UP_TO_DATE = "up to date"
    KEEPING_UP = "keeping up"
    CATCHING_UP = "catching up"
    FALLING_BEHIND = "falling behind"
    STANDING_STILL = "standing still"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Backlog:
    """Chunks that are pending and not parked; `is_estimate` if `sequences` was not counted.

    `chunk_seconds` is the duration of a chunk, derived from the start times of its neighbours.
    """

    chunks: int
    sequences: int
    is_estimate: bool
    chunk_seconds: float
    newest: datetime | None
    oldest: datetime | None

    @property
    def seconds(self) -> float:
        """Seconds of audio, estimated from the number of chunks."""
        return self.chunks * self.chunk_seconds


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the work at `now`, by the database's clock.

    `days` ends with today; `working_since` is when the first transcript of the last hour was saved.
    """

    now: datetime
    backlog: Backlog
    holders: Sequence[Holder]
    failed: Sequence[FailedKind]
    hour: Activity
    day: Activity
    week: Activity
    days: Sequence[tuple[date, Activity]]
    working_since: datetime | None
    is_quick: bool

    @property
    def speed(self) -> float:
        """Seconds of audio transcribed per second: recently, or else on average."""
        activity, span, _ = self._measured
        return self._rate(activity.transcribed, span)

    @property
    def speed_of(self) -> str:
        """The period over which `speed` is an average."""
        return self._measured[2]

    @property
    def _measured(self) -> tuple[Activity, timedelta, str]:
        if self.working_since is not None:
            return self.hour, max(self.now - self.working_since, SHORTEST), "last hour"
        return (
            (self.day, DAY, "last day") if self.day.transcribed else (self.week, WEEK, "last week")
        )

    @property
    def inflow(self) -> float:
        """Seconds of speech recorded per second, over the last day."""
        return self._rate(self.day.recorded, DAY)

    @property
    def waiting(self) -> int:
        """Chunks that failed and whose retry is not due yet."""
        return sum(kind.waiting for kind in self.failed)

    @property
    def due(self) -> int:
        """Chunks that may be transcribed now."""
        return max(0, self.backlog.chunks - self.waiting)

    @property
    def next_due(self) -> datetime | None:
        """When the first of the waiting chunks is due."""
        return min((kind.next_due for kind in self.failed if kind.next_due), default=None)

    @property
    def done_in(self) -> timedelta | None:
        """Time until everything due is done at the present speed and inflow.

        None if that is never, or if nothing is due but something waits.
        """
        if not self.backlog.chunks:
            return timedelta(0)
        seconds = self.due * self.backlog.chunk_seconds
        gain = self.speed - self.inflow
        if not self.due or gain <= 0 or seconds / gain > FARTHEST.total_seconds():
            return None
        return timedelta(seconds=seconds / gain)

    @property
    def verdict(self) -> Trend:
        """Weigh what arrives against what is done."""
        if not self.backlog.chunks:
            return Trend.UP_TO_DATE
        if not self.due:
            return Trend.WAITING
        if not self.day.transcribed and not self.holders:
            return Trend.STANDING_STILL
        oldest = self.backlog.oldest
        if oldest is not None and self.now - oldest <= DAY:
            return Trend.KEEPING_UP
        return Trend.FALLING_BEHIND if self.done_in is None else Trend.CATCHING_UP

    def _rate(self, chunks: int, span: timedelta) -> float:
        return chunks * self.backlog.chunk_seconds / span.total_seconds()


def look(store: Store) -> Status:
    """Collect the figures; days begin at local midnight."""
    now = store.now()
    soon = now + HOUR  # the clocks of ingesters may differ a little
    midnights = _midnights(now)
    spans = [Span(now - width, soon) for width in (HOUR, DAY, WEEK)]
    spans += itertools.starmap(Span, itertools.pairwise([*midnights, soon]))
    is_quick = store.statistics.is_quick
    with ThreadPoolExecutor() as threads:  # MongoDB answers them concurrently
        backlog = threads.submit(_backlog, store)
        activity = threads.submit(store.statistics.activity, spans)
        holders = threads.submit(store.claims.holders)
        failed = threads.submit(store.failures.kinds)
        working_since = threads.submit(store.statistics.first_done_since, now - HOUR)
    hour, day, week, *daily = activity.result()
    return Status(
        now=now,
        backlog=backlog.result(),
        holders=holders.result(),
        failed=failed.result(),
        hour=hour,
        day=day,
        week=week,
        days=tuple(zip((midnight.date() for midnight in midnights), daily, strict=True)),
        working_since=working_since.result(),
        is_quick=is_quick,
    )


def _midnights(now: datetime) -> list[datetime]:
    """The midnights at which the last days began; a day may have 23 or 25 hours."""
    today = now.astimezone().date()
    dates = [today - timedelta(days=back) for back in reversed(range(DAYS))]
    return [datetime.combine(day, time()).astimezone() for day in dates]


def _backlog(store: Store) -> Backlog:
    chunks = store.chunks.count_pending()
    first, last = store.chunks.first_and_last_pending(SAMPLE)
    known = {chunk.id for chunk in first}
    seen = first + [chunk for chunk in last if chunk.id not in known]
    sequences = list(group(seen))
    starts = [chunk.start for chunk in seen if chunk.start is not None]
    if not seen:
        chunks = 0  # whatever was counted has been done since
    is_estimate = chunks > len(seen)
    share = chunks / len(seen) if is_estimate else 1.0
    return Backlog(
        chunks=chunks,
        sequences=round(len(sequences) * share),
        is_estimate=is_estimate,
        chunk_seconds=_chunk_seconds(sequences),
        newest=max(starts, default=None),
        oldest=min(starts, default=None),
    )


def _chunk_seconds(sequences: Sequence[ChunkSequence]) -> float:
    """The usual distance between the starts of consecutive chunks, or else the nominal one."""
    gaps = [
        (sequence.newest.start - sequence.start).total_seconds() / (len(sequence) - 1)
        for sequence in sequences
        if len(sequence) > 1 and sequence.newest.start and sequence.start
    ]
    return median([gap for gap in gaps if gap > 0] or [NOMINAL_CHUNK_SECONDS])

"""Planning: pending work becomes the sequences to start next, a bounded way ahead.

Each batch is a fresh query, so that no cursor stays open for hours and so that speech which was
recorded meanwhile, or was given priority, comes first.
"""

import math
from collections import deque
from collections.abc import Container, Hashable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from random import Random
from typing import Any

from stt_lib.domain.models import ChunkSequence, identity
from stt_lib.pipeline.sources import Source
from stt_lib.store import Store

LEAST_AHEAD, AHEAD_PER_WORKER, MOST_AHEAD = 50, 8, 1000
"""Sequences. How far ahead a run plans: by the number of workers, within these bounds."""


def ahead(max_workers: int) -> int:
    """Return how many sequences to plan ahead."""
    return min(max(LEAST_AHEAD, AHEAD_PER_WORKER * max_workers), MOST_AHEAD)


@dataclass(frozen=True, slots=True)
class Batch:
    """Planned sequences in order; those that other workers `held`; whether there are no more."""

    sequences: tuple[ChunkSequence, ...]
    held: tuple[ChunkSequence, ...]
    is_complete: bool


def plan(
    store: Store,
    source: Source,
    *,
    run_started: datetime,
    excluding: Container[Hashable],
    size: int,
) -> Batch:
    """Plan up to `size` sequences that nobody holds.

    Raises:
        SttError: MongoDB is away, or the indexes that claims depend on cannot be built.
    """
    store.claims.delete_expired()
    store.indexes.ensure_unique()
    free: list[ChunkSequence] = []
    held: list[ChunkSequence] = []
    found: list[ChunkSequence] = []
    may_grow = source.is_growing  # before the query, which would miss what arrives later

    def read() -> None:
        if source.has_priorities:  # otherwise it continues where an error interrupted it
            for sequences in (free, held, found):
                sequences.clear()
        rest = source.sequences(run_started=run_started, excluding=excluding)
        while True:
            # One by one, because what the source has passed does not come again after an error.
            for sequence in islice(rest, size + 1 - len(free) - len(found)):
                found.append(sequence)
            if not found:
                return
            claimed = store.claims.held(ends(found))
            for sequence in found:
                (held if _is_in(sequence, claimed) else free).append(sequence)
            found.clear()

    store.with_retries(read)
    return Batch(tuple(free[:size]), tuple(held), is_complete=len(free) <= size and not may_grow)


def ends(sequences: Iterable[ChunkSequence]) -> list[Any]:
    """The ids by which sequences are recognised as held: those of their first and last chunks."""
    return [chunk.id for s in sequences for chunk in (s.chunks[0], s.newest)]


class Plan:
    """The sequences to start next, and those under way; used by one thread only."""

    def __init__(self, size: int, *, is_replaced: bool) -> None:
        """`is_replaced`: each batch takes the place of what is planned, else it is appended."""
        self.size = size
        self._is_replaced = is_replaced
        self._planned: deque[ChunkSequence] = deque()
        self._excluded: set[Hashable] = set()  # chunks under way, or barred
        self._barred: list[tuple[float, ChunkSequence]] = []
        self._started_since_query: set[Hashable] = set()
        self.held: deque[ChunkSequence] = deque(maxlen=MOST_AHEAD)
        """Sequences that other workers hold."""
        self.is_complete = False
        """Whether everything that is pending has been planned."""

    def __len__(self) -> int:
        return len(self._planned)

    def __iter__(self) -> Iterator[ChunkSequence]:
        return iter(self._planned)

    @property
    def runs_low(self) -> bool:
        """Whether the next batch is needed soon."""
        return not self.is_complete and len(self._planned) <= self.size // 4

    def begin_query(self, now: float) -> frozenset[Hashable]:
        """The chunks that the next batch must not contain."""
        for until, sequence in self._barred:
            if until <= now:
                self.done(sequence)
        self._barred = [(until, sequence) for until, sequence in self._barred if until > now]
        self._started_since_query = set()
        return frozenset(self._excluded)

    def take_in(self, batch: Batch) -> None:
        """Use a batch, without sequences that were started while it was read."""
        if self._is_replaced:
            self._planned.clear()
            self.held.clear()
        fresh = [s for s in batch.sequences if self._is_unstarted(s)]
        self._planned.extend(fresh)
        self.held.extend(self.held_by_others(batch))
        if self._is_replaced:  # what was found held after it had been planned is in no batch
            self.held.extend(s for until, s in self._barred if until < math.inf)
        self.is_complete = batch.is_complete and len(fresh) == len(batch.sequences)

    def held_by_others(self, batch: Batch) -> list[ChunkSequence]:
        """The held sequences of a batch that are not ones of this run, started meanwhile."""
        return [s for s in batch.held if self._is_unstarted(s)]

    def _is_unstarted(self, sequence: ChunkSequence) -> bool:
        return self._started_since_query.isdisjoint(_keys(sequence))

    def outranks(self, batch: Batch) -> bool:
        """Whether nothing in a batch has a higher priority than what is planned next."""
        if not batch.sequences or not self._planned:
            return not batch.sequences
        return priority(batch.sequences[0]) <= priority(self._planned[0])

    def next(self, random: Random | None = None) -> ChunkSequence | None:
        """Hand out the next sequence, or a `random` one of those with the same priority.

        Where several runs work on one backlog, all of them would want the same one.
        """
        if not self._planned:
            return None
        place = 0
        if random is not None:
            first = priority(self._planned[0])
            place = random.randrange(sum(priority(s) == first for s in self._planned))
        sequence = self._planned[place]
        del self._planned[place]
        keys = _keys(sequence)
        self._excluded.update(keys)
        self._started_since_query.update(keys)
        return sequence

    def drop(self, held: frozenset[Hashable]) -> None:
        """Leave these chunks (by `identity`) to the workers that hold them."""
        self.held.extend(s for s in self._planned if _is_in(s, held))
        self._planned = deque(s for s in self._planned if not _is_in(s, held))

    def done(self, sequence: ChunkSequence) -> None:
        """The sequence has ended, one way or the other."""
        self._excluded.difference_update(_keys(sequence))

    def bar(self, sequence: ChunkSequence, until: float) -> None:
        """Keep a sequence out of the plan until then, although the database calls it pending."""
        self._barred.append((until, sequence))

    def look_again(self) -> None:
        """Plan once more what has become pending, or free of its claim, since."""
        self.is_complete = False
        self._barred = [(0.0 if until < math.inf else until, s) for until, s in self._barred]
        if not self._is_replaced:
            self._planned.extend(self.held)
            self.held.clear()


def _keys(sequence: ChunkSequence) -> list[Hashable]:
    return [identity(chunk.id) for chunk in sequence.chunks]


def _is_in(sequence: ChunkSequence, held: frozenset[Hashable]) -> bool:
    return not held.isdisjoint(map(identity, ends([sequence])))


def priority(sequence: ChunkSequence) -> float:
    """The priority of a sequence; without one it comes after all that have one."""
    value = sequence.newest.priority
    return -math.inf if value is None else value

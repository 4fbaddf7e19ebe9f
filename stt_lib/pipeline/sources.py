"""What a run works on: where its sequences come from, and how their audio is loaded."""

from collections.abc import Container, Hashable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from stt_lib.domain.models import ALL, ChunkRef, ChunkSequence, Loaded, Selection
from stt_lib.domain.sequences import Place, group, place, settled
from stt_lib.store import Store
from stt_lib.telemetry import logs
from stt_lib.timing import REAL, Timing

ARRIVAL_SECONDS: Final = 0.5
"""Seconds. Longest wait for chunks that are being stored, so that a stop is soon noticed."""


class Source(Protocol):
    """Everything that a run needs to know about its work."""

    @property
    def has_priorities(self) -> bool:
        """Whether new work may come before work that is planned already.

        Then every query starts from the top and replaces the plan; otherwise it continues where
        the last one ended.
        """

    @property
    def is_growing(self) -> bool:
        """Whether the run must go on although `sequences` has nothing more at the moment."""

    def count(self) -> int:
        """The amount of work, which is logged as well."""

    def amount(self, sequence: ChunkSequence) -> int:
        """The part of `count` that a sequence is."""

    def sequences(
        self, *, run_started: datetime, excluding: Container[Hashable]
    ) -> Iterator[ChunkSequence]:
        """What may be worked on, in order, without chunks (by `identity`) that are excluded.

        May raise errors of the driver half-way: call it through `Store.with_retries`.
        """

    def load(self, sequence: ChunkSequence) -> Loaded:
        """Read what is left to do of a claimed sequence, with its audio; maybe nothing."""


class PendingChunks:
    """The backlog: pending chunks, newest first, or only those that failed before.

    The newest sequence of each recording is left alone until it is `settle` seconds old.
    """

    has_priorities: Final = True
    is_growing: Final = False

    def __init__(
        self,
        store: Store,
        selection: Selection = ALL,
        *,
        only_failed: bool = False,
        settle: float = 0.0,
    ) -> None:
        self._store = store
        self._selection = selection
        self._only_failed = only_failed
        self._settle = timedelta(seconds=settle)
        self._first: dict[Place, Hashable] = {}
        """The first of several chunks in one place, while others are planned."""

    def count(self) -> int:
        chunks = self._store.chunks.count_pending(self._selection, only_failed=self._only_failed)
        logs.total_pending(chunks)
        return chunks

    def amount(self, sequence: ChunkSequence) -> int:
        return len(sequence)

    def sequences(
        self, *, run_started: datetime, excluding: Container[Hashable]
    ) -> Iterator[ChunkSequence]:
        chunks = self._store.chunks.pending(
            run_started=run_started,
            selection=self._selection,
            only_failed=self._only_failed,
            excluding=excluding,
        )
        sequences = self._grouped(chunks)
        if self._settle:
            sequences = settled(sequences, self._store.now(), self._settle)
        return (replace(sequence, planned_at=run_started) for sequence in sequences)

    def _grouped(self, chunks: Iterator[ChunkRef]) -> Iterator[ChunkSequence]:
        """Sequences; the twins of a chunk that is under way are known from earlier batches."""
        twins: set[Place] = set()
        for sequence in group(chunks, first=self._first):
            twins.add(place(sequence.newest))
            yield sequence
        self._first = {where: one for where, one in self._first.items() if where in twins}

    def load(self, sequence: ChunkSequence) -> Loaded:
        if sequence.planned_at is None:
            raise ValueError("a sequence of another source")
        return self._store.chunks.load(
            sequence, run_started=sequence.planned_at, only_failed=self._only_failed
        )


class ArrivingChunks:
    """The pending chunks of recordings that another thread is still storing."""

    has_priorities: Final = True

    def __init__(self, chunks: PendingChunks, timing: Timing = REAL) -> None:
        self._chunks = chunks
        self._arrival = timing.event()
        self._is_estimated = timing.event()
        self._estimate = 0
        self._recordings: set[str] = set()
        self.is_growing = True

    # -- for the thread that stores the chunks ------------------------------------------------

    def expect(self, recording: str, total: int) -> None:
        """Include a recording; `total` estimates the pending chunks of all recordings."""
        self._recordings.add(recording)
        self._estimate = total
        self._is_estimated.set()

    def arrived(self) -> None:
        """More chunks are stored."""
        self._arrival.set()

    def complete(self) -> None:
        """All chunks are stored."""
        self.is_growing = False
        self._is_estimated.set()
        self._arrival.set()

    # -- for the run --------------------------------------------------------------------------

    def count(self) -> int:
        self._is_estimated.wait()
        return self._estimate

    def amount(self, sequence: ChunkSequence) -> int:
        return len(sequence)

    def sequences(
        self, *, run_started: datetime, excluding: Container[Hashable]
    ) -> Iterator[ChunkSequence]:
        if self.is_growing:
            self._arrival.wait(ARRIVAL_SECONDS)
            self._arrival.clear()
        sequences = self._chunks.sequences(run_started=run_started, excluding=excluding)
        return (s for s in sequences if str(s.original_id) in self._recordings)

    def load(self, sequence: ChunkSequence) -> Loaded:
        return self._chunks.load(sequence)

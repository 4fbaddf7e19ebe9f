"""What a run works on: where its sequences come from, and how their audio is loaded."""

from collections.abc import Container, Hashable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from stt_lib.domain.models import ALL, ChunkSequence, Loaded, Selection
from stt_lib.domain.sequences import group, settled
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
        sequences = group(chunks)
        if self._settle:
            sequences = settled(sequences, self._store.now(), self._settle)
        return (replace(sequence, planned_at=run_started) for sequence in sequences)

    def load(self, sequence: ChunkSequence) -> Loaded:
        if sequence.planned_at is None:
            raise ValueError("a sequence of another source")
        return self._store.chunks.load(
            sequence, run_started=sequence.planned_at, only_failed=self._only_failed
        )


class ArrivingChunks:
    """The pending chunks of recordings that another thread is still storing.

    The newest sequence of a recording waits until more of it is stored, or all: then its last words
    can be heard together with what comes after them.
    """

    has_priorities: Final = True

    def __init__(self, chunks: PendingChunks, timing: Timing = REAL) -> None:
        self._chunks = chunks
        self._arrival = timing.event()
        self._is_estimated = timing.event()
        self._estimate = 0
        self._recordings: set[str] = set()
        self._incomplete: set[str] = set()
        self.is_growing = True

    # -- for the thread that stores the chunks ------------------------------------------------

    def expect(self, recording: str, total: int) -> None:
        """Include a recording; `total` estimates the pending chunks of all recordings."""
        self._recordings.add(recording)
        self._incomplete.add(recording)
        self._estimate = total
        self._is_estimated.set()

    def arrived(self) -> None:
        """More chunks are stored."""
        self._arrival.set()

    def stored(self, recording: str) -> None:
        """A recording is stored to its end."""
        self._incomplete.discard(recording)
        self._arrival.set()

    def complete(self) -> None:
        """Nothing more is stored."""
        self._incomplete.clear()
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
        growing = set(self._incomplete)
        for sequence in self._chunks.sequences(run_started=run_started, excluding=excluding):
            recording = str(sequence.original_id)
            if recording in growing:
                growing.discard(recording)
            elif recording in self._recordings:
                yield sequence

    def load(self, sequence: ChunkSequence) -> Loaded:
        return self._chunks.load(sequence)

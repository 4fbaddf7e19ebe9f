"""What a run works on: where its sequences come from, and how their audio is loaded."""

from collections.abc import Container, Hashable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from stt_lib.domain.models import ALL, ChunkSequence, Loaded, Selection
from stt_lib.domain.sequences import group, settled
from stt_lib.store import Store
from stt_lib.telemetry import logs


class Source(Protocol):
    """Everything that a run needs to know about its work."""

    @property
    def has_priorities(self) -> bool:
        """Whether new work may come before work that is planned already.

        Then every query starts from the top and replaces the plan; otherwise it continues where
        the last one ended.
        """

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

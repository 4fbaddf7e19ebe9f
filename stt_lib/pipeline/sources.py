"""What a run works on: where its sequences come from, and in whose ledger their results go."""

from collections.abc import Container, Hashable, Iterator
from datetime import datetime, timedelta
from typing import Final, Protocol

from stt_lib.domain.models import ALL, ChunkSequence, Selection
from stt_lib.domain.sequences import group, settled
from stt_lib.pipeline.sinks import Ledger
from stt_lib.store import Store
from stt_lib.telemetry import logs


class Task(Protocol):
    """All that a run has to know of its work."""

    @property
    def ledger(self) -> Ledger:
        """Where the work is claimed and its results are written."""

    @property
    def has_priorities(self) -> bool:
        """Whether something may come to stand before what is planned already."""

    def count(self) -> int:
        """How much there is to do, told in the log as well."""

    def share(self, sequence: ChunkSequence) -> int:
        """How much of that a sequence is."""

    def sequences(self, *, since: datetime, but: Container[Hashable]) -> Iterator[ChunkSequence]:
        """What may be worked on now, in order, but for these chunks, which are under way.

        `since` is the start of the run by the database's clock. May raise errors of the driver
        half-way: call through `patiently`, and start again.
        """

    def live_claims(self) -> dict[str, datetime]:
        """Tokens of those who hold some of it now, and until when they do unless renewed."""


class Pending:
    """The backlog: chunks that wait, newest first; or those of them that have failed before.

    The newest sequence of a recording is left alone until it is `settle` seconds old. Up to
    `bridge` chunks without speech do not end a sequence.
    """

    def __init__(
        self,
        store: Store,
        only: Selection = ALL,
        *,
        only_failed: bool = False,
        settle: float = 0.0,
        bridge: int = 0,
    ) -> None:
        self._store = store
        self._only = only
        self._only_failed = only_failed
        self._settle = timedelta(seconds=settle)
        self._bridge = bridge

    @property
    def ledger(self) -> Store:
        return self._store

    has_priorities: Final = True

    def count(self) -> int:
        chunks = self._store.count_pending(self._only, only_failed=self._only_failed)
        logs.total_pending(chunks)
        return chunks

    def share(self, sequence: ChunkSequence) -> int:
        return len(sequence)

    def sequences(self, *, since: datetime, but: Container[Hashable]) -> Iterator[ChunkSequence]:
        sequences = group(
            self._store.pending(
                since=since, only=self._only, only_failed=self._only_failed, but=but
            ),
            bridge=self._bridge,
        )
        return settled(sequences, self._store.now() - self._settle) if self._settle else sequences

    def live_claims(self) -> dict[str, datetime]:
        return self._store.live_claims(self._only)

"""Where results go: for pending chunks, new transcripts, marks and failures.

A sink writes; it neither claims nor releases. Each of its verbs may be repeated after a crash.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from stt_lib.domain.models import Chunk, Failure, Transcript, identity
from stt_lib.store import Store


class Sink(Protocol):
    """The ends that the work on a claim can come to."""

    def save(self, transcript: Transcript) -> bool:
        """Save a transcript durably and mark its chunks; False if someone else was faster."""

    def no_speech(self, transcript: Transcript) -> None:
        """Record that the filter left nothing of this transcript."""

    def saved_before(self, ids: Sequence[Any]) -> None:
        """Mark chunks that a saved transcript owns: a worker died before it marked them."""

    def failed(
        self,
        chunks: Sequence[Chunk],
        failure: Failure,
        *,
        attempt: str,
        audio_at_fault: bool,
        due_in: float,
    ) -> None:
        """Record a failure, once per `attempt`; the chunks are due again in `due_in` seconds."""


class ChunkSink:
    """Saves transcripts of pending chunks and marks the chunks."""

    def __init__(self, store: Store, max_failures: int) -> None:
        """Chunks whose audio has failed `max_failures` times are parked."""
        self._store = store
        self._max_failures = max_failures

    def save(self, transcript: Transcript) -> bool:
        ids = transcript.chunk_ids
        is_saved = self._store.transcripts.save(transcript)
        if is_saved:
            self.saved_before(ids)
        else:
            owned = self._store.transcripts.owned(transcript.original_id, ids)
            self.saved_before([i for i in ids if identity(i) in owned])
        return is_saved

    def no_speech(self, transcript: Transcript) -> None:
        if transcript.dropped:
            self._store.dropped.save(transcript)
        self._store.chunks.mark(transcript.chunk_ids, is_backed=False)

    def saved_before(self, ids: Sequence[Any]) -> None:
        if ids:
            self._store.chunks.mark(ids, is_backed=True)

    def failed(
        self,
        chunks: Sequence[Chunk],
        failure: Failure,
        *,
        attempt: str,
        audio_at_fault: bool,
        due_in: float,
    ) -> None:
        self._store.failures.record(
            [chunk.id for chunk in chunks],
            failure,
            attempt=attempt,
            audio_at_fault=audio_at_fault,
            due_in=due_in,
            max_failures=self._max_failures,
        )

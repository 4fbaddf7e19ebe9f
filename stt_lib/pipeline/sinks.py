"""Who holds which work, and where its results go: all that a worker writes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from stt_lib.domain.models import Chunk, ChunkSequence, Claim, Failure, Revision, Seam, Transcript


class Ledger(Protocol):
    """The verbs of a claim's life. The store has them for pending chunks.

    All of them raise `ClaimLost` when the claim is not ours any more, but for `release`, which
    leaves alone what is not ours.
    """

    @property
    def is_divisible(self) -> bool:
        """Whether a part of a sequence may be saved without the rest."""

    def claim(
        self, sequence: ChunkSequence, token: str, *, since: datetime | None = None
    ) -> Claim | None:
        """Hold a sequence for a lease and load its audio; None when it is not to be had."""

    def renew(self, ids: Sequence[Any], token: str) -> None:
        """Hold these chunks for another lease."""

    def release(self, ids: Sequence[Any], token: str) -> None:
        """Give them back untouched."""

    def name(self, claim: Claim) -> Revision:
        """What a transcript of this claim is to be saved as."""

    def owned(self, original_id: Any, ids: Sequence[Any]) -> set[Any]:
        """Which of these chunks (by `identity`) a saved transcript owns already."""

    def has_transcribed_twin(self, claim: Claim, chunk: Chunk) -> bool:
        """Whether another chunk of the same recording and index is in a transcript."""

    def agree_on_seam(
        self, original_id: Any, ids: tuple[Any, Any], seam: Seam, at: datetime
    ) -> Seam:
        """The seam between these two chunks: this one, unless somebody has decided before us."""

    def seam_behind(self, original_id: Any, chunk_id: Any) -> Seam | None:
        """The seam between a chunk and the next one, if anybody has decided."""

    def transcript_of(self, original_id: Any, chunk_id: Any) -> Transcript | None:
        """The transcript that owns a chunk, if any does."""

    def save(self, transcript: Transcript) -> bool:
        """Save a transcript durably; False when somebody else was first."""

    def mark(self, ids: Sequence[Any], token: str, *, unsaved: Transcript | None = None) -> None:
        """These chunks are done with; of an `unsaved` transcript the filter left nothing."""

    def blame(
        self,
        chunk_id: Any,
        token: str,
        failure: Failure,
        *,
        due_in: float,
        max_failures: int,
    ) -> None:
        """The chunk's own audio failed."""

    def excuse(
        self, ids: Sequence[Any], token: str, failure: Failure, *, due_in: float = 0.0
    ) -> None:
        """They failed, and are not to blame."""

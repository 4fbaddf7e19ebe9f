"""Doing transcripts again: what a run works on in the place of pending chunks.

The same worker posts the same audio; only where sequences come from and where results go to
differs. A transcript is claimed as a whole and replaced as a whole. Where that cannot be (its
audio is gone, the server rejects it or hears nothing) it stays as it is.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Container, Hashable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from stt_lib import __version__
from stt_lib.domain.model_names import is_same
from stt_lib.domain.models import (
    Chunk,
    ChunkRef,
    ChunkSequence,
    Claim,
    Condition,
    Failure,
    OldTranscript,
    Origin,
    Revision,
    Seam,
    Selection,
    Transcript,
    identity,
)
from stt_lib.servers import languages
from stt_lib.store import Store
from stt_lib.telemetry import logs

LOOKED_AT_ONCE: Final = 50
"""Transcripts whose chunks are looked for in one query."""

MOST_ELSEWHERE: Final = 1000
"""So many transcripts that others hold are tried once more at the end of the run."""


class Left(StrEnum):
    """Why a transcript stays as it is without being tried."""

    GONE = "whose audio is gone"
    UNUSABLE = "whose audio cannot be used any more"
    UNKNOWN = "that do not say which chunks they hold"
    SILENT = "in which this model has found no speech before"


class Again:
    """Transcripts to be done again, newest first, and what is done with them. Thread-safe.

    A `Ledger` for the worker and a `Task` for the run.
    """

    def __init__(
        self,
        store: Store,
        conditions: Sequence[Condition],
        only: Selection,
        *,
        model: str | None,
        keep_history: bool,
    ) -> None:
        """All of the `conditions` have to hold; `model` is the one that is asked for now."""
        self._store = store
        self._conditions = conditions
        self._only = only
        self._model = model
        self._keep_history = keep_history
        self._lock = threading.Lock()
        self._position: datetime | None = None
        self._at_position: set[Hashable] = set()
        self._is_through = False  # all have been looked at
        self._is_last = False  # and those that others held are looked at once more
        self._elsewhere: dict[Hashable, ChunkSequence] = {}
        self._held: dict[str, Revision] = {}
        self._left: Counter[Left] = Counter()
        self._has_warned = False

    # -- the task -----------------------------------------------------------------------------

    @property
    def ledger(self) -> "Again":
        return self

    has_priorities: Final = False

    def count(self) -> int:
        """How many transcripts are to be done again; says it in the log."""
        origins = self._store.count_transcripts(self._only)
        total = sum(count for origin, count in origins if self._are_fulfilled_by(origin))
        logs.total_again(total)
        return total

    def share(self, _sequence: ChunkSequence) -> int:
        return 1

    def sequences(self, *, since: datetime, but: Container[Hashable]) -> Iterator[ChunkSequence]:
        """What to do again, each once; asked again at the end, what others held before.

        Goes on where the last call was left, so that nothing has to be looked at twice.
        """
        if self._is_through:
            with self._lock:
                rest, self._elsewhere = list(self._elsewhere.values()), {}
                self._is_last = True
            yield from rest
            return
        old = self._store.old_transcripts(self._only, before=self._position)
        wanted = (o for o in old if self._are_fulfilled_by(o.origin) and not self._is_behind(o))
        while batch := list(itertools.islice(wanted, LOOKED_AT_ONCE)):
            there = self._store.existing_chunks([i for o in batch for i in o.chunk_ids])
            for transcript in batch:
                if self._is_to_be_tried(transcript, there):
                    yield _sequence(transcript)
                self._move_on_to(transcript)
        self._is_through = True
        for why, count in self._left.items():
            logs.left_alone(count, why)

    def _are_fulfilled_by(self, origin: Origin) -> bool:
        return all(_is_fulfilled(condition, origin) for condition in self._conditions)

    def _is_to_be_tried(self, old: OldTranscript, there: set[Hashable]) -> bool:
        why = self._reason_against(old, there)
        if why is not None:
            self._left[why] += 1
            return False
        if old.is_claimed:
            self._remember(old.revision, _sequence(old))
        return not old.is_claimed

    def _reason_against(self, old: OldTranscript, there: set[Hashable]) -> Left | None:
        if not old.chunk_ids:
            return Left.UNKNOWN
        if not there.issuperset(map(identity, old.chunk_ids)):
            return Left.GONE
        if self._model and old.heard_nothing and is_same(self._model, old.heard_nothing):
            return Left.SILENT
        return None

    def _is_behind(self, old: OldTranscript) -> bool:
        return old.start == self._position and identity(old.revision.transcript_id) in (
            self._at_position
        )

    def _move_on_to(self, old: OldTranscript) -> None:
        if old.start != self._position:
            self._position, self._at_position = old.start, set()
        self._at_position.add(identity(old.revision.transcript_id))

    def _remember(self, revision: Revision, sequence: ChunkSequence) -> None:
        with self._lock:
            if not self._is_last and len(self._elsewhere) < MOST_ELSEWHERE:
                self._elsewhere[identity(revision.transcript_id)] = sequence

    def live_claims(self) -> dict[str, datetime]:
        """Tokens that hold what we left to others, and until when they do unless renewed."""
        with self._lock:
            ids = [s.revision.transcript_id for s in self._elsewhere.values() if s.revision]
        return self._store.transcript_claims(ids)

    # -- the ledger ---------------------------------------------------------------------------

    is_divisible: Final = False

    def claim(
        self, sequence: ChunkSequence, token: str, *, since: datetime | None = None
    ) -> Claim | None:
        """Claim a transcript and load its audio; None when that cannot be had."""
        revision = sequence.revision
        if revision is None:
            raise ValueError("the sequence of no transcript")
        if not self._store.claim_transcript(revision, token):
            self._remember(revision, sequence)
            return None
        chunks = self._store.audio_of([chunk.id for chunk in sequence.chunks])
        if len(chunks) < len(sequence) or any(chunk.problem for chunk in chunks):
            self._store.release_transcript(revision, token)
            logs.left_alone(1, Left.UNUSABLE)
            return None
        with self._lock:
            self._held[token] = revision
        beside = self._store.neighbours_of(sequence.original_id, chunks)
        return Claim(token, sequence.original_id, chunks, neighbours=beside)

    def renew(self, _ids: Sequence[Any], token: str) -> None:
        self._store.renew_transcript(self._held[token], token)

    def release(self, _ids: Sequence[Any], token: str) -> None:
        self._store.release_transcript(self._let_go(token), token)

    def name(self, claim: Claim) -> Revision:
        held = self._held[claim.token]
        return Revision(held.transcript_id, held.number + 1)

    def owned(self, _original_id: Any, _ids: Sequence[Any]) -> set[Any]:
        """The chunks belong to the same transcript all the time."""
        return set()

    def has_transcribed_twin(self, _claim: Claim, _chunk: Chunk) -> bool:
        return False

    def agree_on_seam(
        self, original_id: Any, ids: tuple[Any, Any], seam: Seam, at: datetime
    ) -> Seam:
        return self._store.agree_on_seam(original_id, ids, seam, at)

    def seam_behind(self, original_id: Any, chunk_id: Any) -> Seam | None:
        return self._store.seam_behind(original_id, chunk_id)

    def transcript_of(self, original_id: Any, chunk_id: Any) -> Transcript | None:
        return self._store.transcript_of(original_id, chunk_id)

    def save(self, transcript: Transcript) -> bool:
        """Replace the old text; False when somebody else has."""
        self._warn_if_endless(transcript)
        return self._store.replace(transcript, keep_history=self._keep_history)

    def mark(self, _ids: Sequence[Any], token: str, *, unsaved: Transcript | None = None) -> None:
        """The chunks are marked. Text is not replaced by the verdict that there is none."""
        revision = self._let_go(token)
        if unsaved is not None:
            self._store.release_transcript(revision, token, heard_nothing=unsaved.model)

    def blame(
        self,
        _chunk_id: Any,
        token: str,
        _failure: Failure,
        *,
        due_in: float,
        max_failures: int,
    ) -> None:
        """What failed is in the log; the old text is as good as before."""
        self._give_back(token)

    def excuse(
        self, _ids: Sequence[Any], token: str, _failure: Failure, *, due_in: float = 0.0
    ) -> None:
        self._give_back(token)

    def _give_back(self, token: str) -> None:
        if token in self._held:
            self.release((), token)

    def _let_go(self, token: str) -> Revision:
        with self._lock:
            return self._held.pop(token)

    def _warn_if_endless(self, transcript: Transcript) -> None:
        """A server that does not tell its model leaves us nothing to tell old from new by."""
        if self._has_warned or not self._conditions:
            return
        made = Origin(
            transcript.model,
            transcript.server,
            transcript.protocol,
            transcript.language,
            __version__,
        )
        if self._are_fulfilled_by(made):
            self._has_warned = True
            logs.endless()


def _is_fulfilled(condition: Condition, origin: Origin) -> bool:
    """What is not known is different from every value."""
    told = getattr(origin, condition.field)
    return (told is not None and _is_meant(condition, told)) != condition.is_not


def _is_meant(condition: Condition, told: str) -> bool:
    match condition.field:
        case "model":
            return is_same(condition.value, told)
        case "language":
            return languages.code(condition.value) == languages.code(told)
        case "server":
            return _address(condition.value) == _address(told)
        case _:
            return condition.value == told


def _address(server: str) -> str:
    """Without the protocol that may stand before it: `openai+http://host` is http://host."""
    scheme, separator, rest = server.rstrip("/").partition("://")
    return scheme.rpartition("+")[2] + separator + rest


def _sequence(old: OldTranscript) -> ChunkSequence:
    recording = identity(old.original_id)
    chunks = [ChunkRef(i, old.original_id, recording, None, old.start) for i in old.chunk_ids]
    return ChunkSequence(tuple(chunks), revision=old.revision)

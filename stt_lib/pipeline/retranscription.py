"""`--retranscribe`: replacing transcripts, instead of transcribing pending chunks.

The worker posts the same audio; only where sequences come from and where results go differs. A
transcript is claimed by its chunks and replaced as a whole. Where that cannot be (its audio is
gone, the server rejects it or hears nothing) it stays as it is.
"""

import itertools
from collections import Counter
from collections.abc import Container, Hashable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from stt_lib import __version__
from stt_lib.domain import languages
from stt_lib.domain.model_names import is_same
from stt_lib.domain.models import (
    ChunkRef,
    ChunkSequence,
    Condition,
    Loaded,
    OldTranscript,
    Origin,
    Revision,
    Selection,
    Transcript,
    identity,
)
from stt_lib.store import Store
from stt_lib.telemetry import logs

LOOKED_UP_AT_ONCE: Final = 50
"""Transcripts. Number whose chunks are looked up in one query."""


class Untried(StrEnum):
    """Why a transcript stays as it is without being tried."""

    GONE = "whose audio is gone"
    UNUSABLE = "whose audio cannot be used"
    UNKNOWN = "without a list of their chunks"
    SILENT = "in which this model found no speech before"


class Retranscription:
    """The source of transcripts to be replaced, newest first, each of them once."""

    has_priorities: Final = False
    is_growing: Final = False

    def __init__(
        self,
        store: Store,
        conditions: Sequence[Condition],
        selection: Selection,
        *,
        model: str | None,
    ) -> None:
        """All of the `conditions` have to hold; `model` is the one that the servers use now."""
        self._store = store
        self._conditions = conditions
        self._selection = selection
        self._model = model
        self._position: datetime | None = None
        self._at_position: set[Hashable] = set()
        self._untried: Counter[Untried] = Counter()
        self._is_through = False

    def count(self) -> int:
        origins = self._store.transcripts.count_by_origin(self._selection)
        total = sum(count for origin, count in origins if meets(origin, self._conditions))
        logs.total_again(total)
        return total

    def amount(self, sequence: ChunkSequence) -> int:
        return 1

    def sequences(
        self, *, run_started: datetime, excluding: Container[Hashable]
    ) -> Iterator[ChunkSequence]:
        """Continue where the last call was left, so that nothing is looked at twice."""
        if self._is_through:
            return
        for old, existing in self._with_existing_chunks():
            why = self._reason_against(old, existing)
            if why is not None:
                self._untried[why] += 1
            elif not any(identity(chunk_id) in excluding for chunk_id in old.chunk_ids):
                yield _sequence(old, run_started)
            self._move_on_to(old)
        self._is_through = True
        for why, count in self._untried.items():
            logs.left_alone(count, why)

    def load(self, sequence: ChunkSequence) -> Loaded:
        """The chunks of a transcript; nothing if it was replaced since, or has lost its audio."""
        revision = sequence.revision
        if revision is None:
            raise ValueError("a sequence of another source")
        if not self._store.transcripts.is_current(revision):
            return Loaded()
        chunks = self._store.chunks.audio([chunk.id for chunk in sequence.chunks])
        if len(chunks) < len(sequence) or any(chunk.problem for chunk in chunks):
            logs.left_alone(1, Untried.UNUSABLE)
            return Loaded()
        neighbours = self._store.chunks.neighbours(sequence.original_id, chunks)
        return Loaded(chunks, neighbours=neighbours)

    def _with_existing_chunks(self) -> Iterator[tuple[OldTranscript, set[Hashable]]]:
        """Transcripts from our position on, each with those of a batch's chunks that exist."""
        found = self._store.transcripts.to_retranscribe(self._selection, before=self._position)
        wanted = (old for old in found if self._is_ahead(old))
        while batch := list(itertools.islice(wanted, LOOKED_UP_AT_ONCE)):
            ids = [chunk_id for old in batch for chunk_id in old.chunk_ids]
            existing = self._store.chunks.existing(ids)
            yield from ((old, existing) for old in batch)

    def _is_ahead(self, old: OldTranscript) -> bool:
        is_behind = old.start == self._position and _key(old) in self._at_position
        return not is_behind and meets(old.origin, self._conditions)

    def _move_on_to(self, old: OldTranscript) -> None:
        if old.start != self._position:
            self._position, self._at_position = old.start, set()
        self._at_position.add(_key(old))

    def _reason_against(self, old: OldTranscript, existing: set[Hashable]) -> Untried | None:
        if not old.chunk_ids:
            return Untried.UNKNOWN
        if not existing.issuperset(map(identity, old.chunk_ids)):
            return Untried.GONE
        if self._model and old.heard_nothing and is_same(self._model, old.heard_nothing):
            return Untried.SILENT
        return None


class TranscriptSink:
    """The sink that replaces transcripts; where nothing better is heard, the old text stays."""

    def __init__(self, store: Store, conditions: Sequence[Condition]) -> None:
        """`conditions` chose the transcripts: a new one that still meets them is reported."""
        self._store = store
        self._conditions = conditions
        self._has_warned = False

    def save(self, transcript: Transcript) -> bool:
        self._warn_if_endless(transcript)
        return self._store.transcripts.replace(transcript)

    def no_speech(self, transcript: Transcript) -> None:
        if transcript.dropped:
            return  # with another filter, there may be text
        replaced = Revision(transcript.id, transcript.revision - 1)
        self._store.transcripts.note_nothing_heard(replaced, transcript.model)

    def saved_before(self, ids: Sequence[Any]) -> None:
        """The chunks were marked long ago."""

    def failed(self, *_: Any, **__: Any) -> None:
        """The failure is in the log, and the old text is as good as before."""

    def _warn_if_endless(self, new: Transcript) -> None:
        """A server that does not name its model makes new text look like old text."""
        origin = Origin(new.model, new.server, new.protocol, new.language, __version__)
        if self._conditions and not self._has_warned and meets(origin, self._conditions):
            self._has_warned = True
            logs.endless()


def meets(origin: Origin, conditions: Sequence[Condition]) -> bool:
    """Whether all conditions hold; an unknown value differs from every value."""
    return all(_holds(condition, origin) for condition in conditions)


def _holds(condition: Condition, origin: Origin) -> bool:
    value = getattr(origin, condition.field)
    return (value is not None and _is_meant(condition, value)) != condition.is_not


def _is_meant(condition: Condition, value: str) -> bool:
    match condition.field:
        case "model":
            return is_same(condition.value, value)
        case "language":
            return languages.code(condition.value) == languages.code(value)
        case "server":
            return _address(condition.value) == _address(value)
        case _:
            return condition.value == value


def _address(server: str) -> str:
    """The URL without a protocol before it: `openai+http://host` is http://host."""
    scheme, separator, rest = server.rstrip("/").partition("://")
    return scheme.rpartition("+")[2] + separator + rest


def _key(old: OldTranscript) -> Hashable:
    return identity(old.revision.transcript_id)


def _sequence(old: OldTranscript, planned_at: datetime) -> ChunkSequence:
    recording = identity(old.original_id)
    chunks = [ChunkRef(i, old.original_id, recording, None, old.start) for i in old.chunk_ids]
    return ChunkSequence(tuple(chunks), revision=old.revision, planned_at=planned_at)

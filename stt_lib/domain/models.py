"""The records that travel through a run, in the words of the design; none knows a query."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from stt_lib.domain.text import runs
from stt_lib.errors import FailureKind

NOMINAL_CHUNK_SECONDS = 10.0
"""What an ingester cuts; used only where the real duration cannot be read off the audio."""

USABLE_YEARS = range(2, 9999)
"""Years. Dates in them can be shifted by time zones and by the length of a recording."""


def identity(value: Any) -> Hashable:
    """A hashable stand-in for any BSON value; it is equal where MongoDB finds the values equal.

    Numbers are equal whatever their types; other values of different types are not.
    """
    name = type(value).__name__
    if name in _USUAL_IDS:
        return name, value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", str(value) if math.isnan(value) else value
    if hasattr(value, "to_decimal"):
        number = value.to_decimal()
        return "number", "nan" if number.is_nan() else number
    try:
        hash(value)
    except TypeError:
        return name, repr(value)
    return name, value


_USUAL_IDS = frozenset({"ObjectId", "str", "UUID"})
"""Names of types whose values are hashable and equal only among themselves."""


class Outcome(StrEnum):
    """How a sequence ended in this run."""

    TRANSCRIBED = "transcribed"
    EMPTY = "empty"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a chunk cannot be posted at all."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which chunks a run is about: all of them, or those of a period or a recording.

    A chunk belongs to the period from `since` (included) to `until` (not included) by its `start`.
    `recording` is an `original_id` as a person types it.
    """

    since: datetime | None = None
    until: datetime | None = None
    recording: str | None = None


ALL = Selection()


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A pending chunk as the planner sees it: metadata, never audio.

    `recording` is `original_id` in a hashable form; `index` and `start` (UTC) are None only
    when `problem` says so; `prob` is the detector's probability of speech.
    """

    id: Any
    original_id: Any
    recording: Hashable
    index: int | None
    start: datetime | None
    prob: float | None = None
    priority: float | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ChunkSequence:
    """Consecutive pending chunks of one recording, oldest first; one request.

    `problem` is set for a single chunk that the planner could not place, `revision` where the
    chunks already have a transcript, which is to be replaced. `planned_at` is the database's time
    at which the plan was made: what has changed since is found out when the chunks are loaded.
    """

    chunks: tuple[ChunkRef, ...]
    problem: Problem | None = None
    revision: "Revision | None" = None
    planned_at: datetime | None = None

    @property
    def newest(self) -> ChunkRef:
        return self.chunks[-1]

    @property
    def original_id(self) -> Any:
        return self.newest.original_id

    @property
    def start(self) -> datetime | None:
        return self.chunks[0].start

    def __len__(self) -> int:
        return len(self.chunks)


@dataclass(frozen=True, slots=True)
class Seam:
    """Where two transcripts meet, as decided by whoever was first.

    `words`, in normal form, are what that one heard around the cut, at these `seconds` from it. The
    first `cut` of them belong to the earlier transcript; `moment` is where between them, in
    seconds from the cut, the seam lies.
    """

    words: tuple[str, ...]
    seconds: tuple[float, ...]
    cut: int
    moment: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk with its audio, checked: `problem` says why it cannot be posted, if so.

    `seconds` is the duration of the audio, a guess unless it `is_measured`, and `prob` the
    detector's probability of speech in it. `failures` counts those of the audio itself so far,
    `excuses` those of servers and network; `was_duplicate` when the last one was an index that
    another chunk has as well. `is_done` once it is marked. It `is_whole` unless its file is cut
    off or damaged.
    """

    id: Any
    index: int
    start: datetime
    data: bytes
    format: str
    seconds: float
    prob: float | None = None
    failures: int = 0
    excuses: int = 0
    was_duplicate: bool = False
    problem: Problem | None = None
    is_measured: bool = True
    is_whole: bool = True
    is_done: bool = False
    has_speech: bool = True

    @property
    def end(self) -> datetime:
        """When the audio ends (UTC)."""
        return self.start + timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The chunks of a claimed sequence that still have to be transcribed, oldest first.

    `owned` names those (by `identity`) that a saved transcript already owns: they only have to be
    marked. `neighbours` are the chunks with speech just before the first and just after the last
    one, as far as there are any; they are not claimed.
    """

    chunks: tuple[Chunk, ...] = ()
    owned: frozenset[Hashable] = frozenset()
    neighbours: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease on the chunks of a sequence; `token` is unique to this attempt."""

    token: str
    original_id: Any
    loaded: Loaded


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a segment, with its blank; its times as those of segments."""

    start: float
    end: float
    text: str
    probability: float | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; `start` and `end` in seconds.

    They count from the start of the audio that was posted in an answer, and from the start of
    the transcript in a transcript, where `start_at` and `end_at` are the same by the clock.
    Scores and a language that the server did not give are None; no words means that it gave none.
    """

    start: float
    end: float
    text: str
    no_speech_prob: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    language: str | None = None
    words: tuple[Word, ...] = ()
    start_at: datetime | None = None
    end_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A segment that was taken for no speech.

    `score` is the sum of what speaks against it less what speaks for it; `reasons` are what
    speaks against it, the strongest first.
    """

    segment: Segment
    reasons: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What an STT server heard in one request.

    `model` is what the server calls it, else the one that was asked for by name; `parameters`
    are what was sent along with the audio.
    """

    segments: tuple[Segment, ...]
    language: str | None = None
    top_language_probs: tuple[tuple[str, float], ...] | None = None
    model: str | None = None
    server: str | None = None
    protocol: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revision:
    """A transcript at one time; `number` says how often it has been written."""

    transcript_id: Any
    number: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """How a transcript came about; None is what is not known of it."""

    model: str | None = None
    server: str | None = None
    protocol: str | None = None
    language: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What is demanded of a transcript: that this field of its origin has this value, or not."""

    field: str
    value: str
    is_not: bool = False


@dataclass(frozen=True, slots=True)
class OldTranscript:
    """A transcript that may be done again, without its text.

    `heard_nothing` is the model that found no speech in it.
    """

    revision: Revision
    original_id: Any
    start: datetime
    chunk_ids: tuple[Any, ...]
    origin: Origin
    heard_nothing: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of one stretch of a recording; owns the audio of `chunk_ids`.

    `model`, `server`, `protocol` and `parameters` say how it came about.
    `dropped` is what the server heard as well, but the filter took for no speech.
    `joined` are the ids of the neighbouring chunks at which a decided seam was kept; None if
    nobody knows.
    """

    id: Any
    original_id: Any
    start: datetime
    end: datetime
    chunk_ids: tuple[Any, ...]
    segments: tuple[Segment, ...]
    language: str | None
    top_language_probs: tuple[tuple[str, float], ...] | None
    model: str | None
    server: str | None
    protocol: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    revision: int = 1
    dropped: tuple[Dropped, ...] = ()
    joined: tuple[Any, ...] | None = None

    @property
    def text(self) -> str:
        """All text on one line."""
        return " ".join(segment.text.strip() for segment in self.segments)

    @property
    def everything(self) -> list[tuple[Segment, Dropped | None]]:
        """What was kept and what was dropped, in the order of time."""
        kept: list[tuple[Segment, Dropped | None]] = [(segment, None) for segment in self.segments]
        pairs = [*kept, *((dropped.segment, dropped) for dropped in self.dropped)]
        return sorted(pairs, key=lambda pair: (pair[0].start, pair[0].end, pair[0].text))


@dataclass(frozen=True, slots=True)
class Detection:
    """The probability of speech in a chunk, and where its audio lies, in seconds."""

    start: float
    end: float
    prob: float | None


@dataclass(frozen=True, slots=True)
class Explained:
    """A transcript to be explained; `is_saved` is False when all of it was dropped.

    `detections` are its chunks, oldest first, in seconds from its start.
    """

    transcript: Transcript
    is_saved: bool
    detections: tuple[Detection, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is stored on a chunk that failed; `message` holds neither text nor secrets."""

    kind: FailureKind
    message: str
    server: str | None = None


@dataclass(frozen=True, slots=True)
class FailedKind:
    """How many chunks failed for one reason and are not transcribed yet.

    `parked` of them wait for a person, `waiting` for a later run, the first of these until
    `next_due`; the others are due. `oldest` and `newest` are the times of their last failures.
    """

    kind: str
    chunks: int
    parked: int
    waiting: int
    next_due: datetime | None
    oldest: datetime | None
    newest: datetime | None

    @property
    def due(self) -> int:
        """Chunks that may be transcribed now."""
        return self.chunks - self.parked - self.waiting


@dataclass(frozen=True, slots=True)
class FailedChunk:
    """A chunk that failed and is not transcribed, for a list; its values may be of any type."""

    id: Any
    original_id: Any
    start: Any
    kind: str
    failed_at: datetime | None
    retry_at: datetime | None
    parked_at: datetime | None
    discarded_at: datetime | None = None


class RecordingState(StrEnum):
    """How far a recording has come, from most of the work ahead to none."""

    PENDING = "pending"
    FAILED = "failed"
    PARKED = "parked"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """A recording for a list; `name` is that of the file it was made from, if it is known.

    `seconds` is its length with a last chunk of nominal length, `words` counts its transcripts.
    """

    id: str
    name: str | None
    start: datetime
    seconds: float
    state: RecordingState
    words: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time: from `since` up to but not including `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """Chunks with speech that were recorded in a span, and chunks whose transcript was saved in it.

    `failed` counts those whose last failure was in it and which are not transcribed yet.
    """

    recorded: int
    transcribed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Work:
    """A claimed sequence: `chunks` of a recording from `start` on, claimed at `since`."""

    original_id: Any
    start: datetime | None
    chunks: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker with claims: the oldest was made at `since`, the last one expires at `until`."""

    worker: str
    claims: int
    chunks: int
    since: datetime | None
    until: datetime | None
    work: tuple[Work, ...] = ()


@dataclass(frozen=True, slots=True)
class PastFailure:
    """One failure of a chunk."""

    at: datetime | None
    kind: str
    message: str
    server: str | None


@dataclass(frozen=True, slots=True)
class ChunkStory:
    """What happened to one chunk, for a person to read; its failures oldest first."""

    id: Any
    original_id: Any
    index: Any
    start: Any
    transcribed_at: datetime | None
    parked_at: datetime | None
    retry_at: datetime | None
    claimed_by: str | None
    claimed_until: datetime | None
    failures: int
    history: tuple[PastFailure, ...]


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk that the embedded ingester made.

    `id_bytes` and `original_id_bytes` (12 bytes each) derive from the file's content, so that
    the same file always makes the same chunks. `data` is one Ogg Opus file, `file` the name of
    the file that was ingested; `is_last` at its end.
    """

    id_bytes: bytes
    original_id_bytes: bytes
    index: int
    start: datetime
    data: bytes
    prob: float
    has_speech: bool
    format: str = "opus"
    file: str | None = None
    is_last: bool = False


@dataclass(slots=True)
class Tally:
    """Outcomes of a run so far, counted in sequences."""

    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome] += 1

    def __getitem__(self, outcome: Outcome) -> int:
        return self.counts[outcome]

    @property
    def attempted(self) -> int:
        """Sequences that this run claimed: all but the skipped ones."""
        return sum(self.counts.values()) - self.counts[Outcome.SKIPPED]


def consecutive_runs(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, ...]]:
    """Split chunks, oldest first, wherever an index is missing."""
    return map(tuple, runs(chunks, lambda run, chunk: chunk.index != run[-1].index + 1))

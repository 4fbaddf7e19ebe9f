"""Grouping of pending chunks into sequences: a pure function over a stream."""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime, timedelta
from statistics import fmean

from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, ChunkRef, ChunkSequence, Problem
from stt_lib.errors import FailureKind

MAX_CHUNKS = 30
"""Chunks. Maximum length of a sequence: five minutes of audio, one request."""

PATIENCE = timedelta(minutes=5)
"""Maximum distance of a recording's next chunk before its sequence is complete.

Consecutive chunks lie about ten seconds apart. Without this bound the last sequence of every
recording would stay open until the end of the backlog.
"""


LOOK_BACK = 6
"""Boundaries. A pause is looked for among this many before the cap, which is a minute."""

LOW_PROB = 0.75
"""Probability. A boundary is a pause if the mean probability of speech in the chunks beside it is
at most this. Detectors call more than 0.5 speech, and give 0.9 and more to a chunk full of it."""


class _Run:
    """Chunks collected so far, newest first, with their places in the stream."""

    __slots__ = ("chunks", "closed", "places", "problem")

    def __init__(self, place: int, chunk: ChunkRef, problem: Problem | None = None) -> None:
        self.chunks = [chunk]
        self.places = [place]
        self.problem = problem
        self.closed = problem is not None

    def append(self, place: int, chunk: ChunkRef) -> None:
        self.chunks.append(chunk)
        self.places.append(place)

    def continues_with(self, chunk: ChunkRef) -> bool:
        oldest = self.chunks[-1]
        return (
            not self.closed
            and oldest.index is not None
            and chunk.index is not None
            and chunk.index == oldest.index - 1
            and chunk.priority == oldest.priority
        )

    def holds_index_of(self, chunk: ChunkRef) -> bool:
        return any(chunk.index == held.index for held in self.chunks)

    def is_passed_by(self, chunk: ChunkRef, patience: timedelta) -> bool:
        oldest = self.chunks[-1]
        if chunk.start is None or oldest.start is None or chunk.priority != oldest.priority:
            return True
        return oldest.start - chunk.start > patience

    def cut(self, place: int, following: ChunkRef) -> "_Run":
        """Close this run where people pause; what lies before that begins the next one."""
        self.closed = True
        chunks, places = [*self.chunks, following], [*self.places, place]
        at = _pause(chunks)
        rest = _Run(places[at], chunks[at])
        rest.chunks, rest.places = chunks[at:], places[at:]
        self.chunks, self.places = chunks[:at], places[:at]
        return rest

    def sequence(self) -> ChunkSequence:
        return ChunkSequence(tuple(reversed(self.chunks)), self.problem)


def group(
    chunks: Iterable[ChunkRef],
    max_chunks: int = MAX_CHUNKS,
    patience: timedelta = PATIENCE,
) -> Iterator[ChunkSequence]:
    """Yield sequences in the order of their newest chunks.

    `chunks` come newest first, recordings interleaved in any order. A gap in `index`, the cap,
    or a change of priority ends a sequence and the chunk in hand starts the next one; at the cap
    the cut is made at a pause shortly before, if there is one. A chunk with a problem, or with an
    index that its sequence has already, is a sequence of its own that says so. Every chunk is in
    exactly one sequence.
    """
    waiting: deque[_Run] = deque()  # in the order of their newest chunks
    latest: dict[Hashable, _Run] = {}  # of each recording
    for place, chunk in enumerate(chunks):
        while waiting and (waiting[0].closed or waiting[0].is_passed_by(chunk, patience)):
            waiting[0].closed = True
            yield waiting.popleft().sequence()
        run = latest.get(chunk.recording)
        if chunk.problem is not None:
            waiting.append(_Run(place, chunk, chunk.problem))
        elif run is not None and run.holds_index_of(chunk):
            waiting.append(_Run(place, chunk, duplicate_index(chunk.index)))
        elif run is not None and run.continues_with(chunk):
            if len(run.chunks) < max_chunks:
                run.append(place, chunk)
            else:
                latest[chunk.recording] = rest = run.cut(place, chunk)
                _insert(waiting, rest)
        else:
            if run is not None:
                run.closed = True
            latest[chunk.recording] = opened = _Run(place, chunk)
            waiting.append(opened)
        while waiting and waiting[0].closed:
            yield waiting.popleft().sequence()
    for run in waiting:
        yield run.sequence()


def _pause(chunks: list[ChunkRef]) -> int:
    """How many of these chunks, newest first and one too many, to take: all but one, or fewer.

    Of equal boundaries the one nearest to the cap is taken.
    """
    most = len(chunks) - 1
    places = range(most, most - min(LOOK_BACK, most // 4), -1)
    best = min(places, key=lambda at: _prob_beside(chunks, at), default=most)
    return best if _prob_beside(chunks, best) <= LOW_PROB else most


def _prob_beside(chunks: list[ChunkRef], at: int) -> float:
    """How probable speech is, on the mean, beside the boundary before chunk `at`."""
    probs = (chunks[at - 1].prob, chunks[at].prob)
    return fmean(1.0 if prob is None else prob for prob in probs)


def _insert(waiting: deque[_Run], run: _Run) -> None:
    """Put a run where it belongs by its newest chunk."""
    at = sum(other.places[0] < run.places[0] for other in waiting)
    waiting.insert(at, run)


def settled(
    sequences: Iterable[ChunkSequence], now: datetime, age: timedelta
) -> Iterator[ChunkSequence]:
    """Leave out the newest sequence of each recording that may still be growing.

    It is if its last chunk ended less than `age` ago, or starts within `age` from now. A start
    beyond that is a wrong clock's, which says nothing.
    """
    growing: set[Hashable] = set()
    oldest = now - age - timedelta(seconds=NOMINAL_CHUNK_SECONDS)
    for sequence in sequences:
        newest = sequence.newest
        is_young = newest.start is not None and oldest < newest.start <= now + age
        if is_young and newest.recording not in growing:
            growing.add(newest.recording)
        else:
            yield sequence


def duplicate_index(index: int | None) -> Problem:
    """What is wrong with a chunk whose index another chunk of its recording has."""
    return Problem(
        FailureKind.DUPLICATE_INDEX,
        f"another chunk of this recording has index {index} too: delete one of them",
    )

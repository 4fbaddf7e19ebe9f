"""Grouping of pending chunks into sequences: a pure function over a stream."""

from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime, timedelta
from statistics import fmean

from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, ChunkRef, ChunkSequence, Problem
from stt_lib.errors import FailureKind

MAX_CHUNKS = 30
"""Chunks. Maximum length of a sequence: five minutes of audio, one request."""
LONGEST_SPAN = timedelta(minutes=30)
"""Maximum distance of the first and the last chunk of a sequence by their times.

Somebody who records only while people speak may number chunks without gaps that are minutes apart.
Readers of a period rely on transcripts that are shorter than an hour.
"""
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


Placed = tuple[int, ChunkRef]
"""A chunk and its place in the stream."""


class _Run:
    """Chunks collected so far, newest first, with their places in the stream."""

    def __init__(self, placed: list[Placed], problem: Problem | None = None) -> None:
        self.placed = placed
        self.problem = problem
        self.closed = problem is not None

    def continues_with(self, chunk: ChunkRef) -> bool:
        _, oldest = self.placed[-1]
        return (
            not self.closed
            and oldest.index is not None
            and chunk.index == oldest.index - 1
            and chunk.priority == oldest.priority
            and not self._would_be_long(chunk)
        )

    def _would_be_long(self, chunk: ChunkRef) -> bool:
        newest = self.placed[0][1].start
        return (
            newest is not None and chunk.start is not None and newest - chunk.start > LONGEST_SPAN
        )

    def is_complete(self, chunk: ChunkRef) -> bool:
        """Whether this run cannot grow any more, given the present chunk of the stream."""
        _, oldest = self.placed[-1]
        if self.closed or chunk.start is None or oldest.start is None:
            return True
        return chunk.priority != oldest.priority or oldest.start - chunk.start > PATIENCE

    def cut(self) -> "_Run":
        """Close this run where people pause; what lies before that begins the next one."""
        self.closed = True
        at = _pause([chunk for _, chunk in self.placed])
        self.placed, rest = self.placed[:at], self.placed[at:]
        return _Run(rest)

    def sequence(self) -> ChunkSequence:
        self.closed = True
        return ChunkSequence(tuple(chunk for _, chunk in reversed(self.placed)), self.problem)


def group(chunks: Iterable[ChunkRef], max_chunks: int = MAX_CHUNKS) -> Iterator[ChunkSequence]:
    """Yield sequences in the order of their newest chunks.

    `chunks` come newest first, recordings interleaved in any order. A gap in `index`, the cap,
    or a change of priority ends a sequence and the chunk in hand starts the next one; at the cap
    the cut is made at a pause shortly before, if there is one. A chunk with a problem, or with an
    index that its sequence has already, is a sequence of its own that says so. Every chunk is in
    exactly one sequence.
    """
    waiting: deque[_Run] = deque()  # in the order of their newest chunks
    latest: dict[Hashable, _Run] = {}  # of each recording
    for placed in enumerate(chunks):
        _, chunk = placed
        while waiting and waiting[0].is_complete(chunk):
            yield waiting.popleft().sequence()
        run = latest.get(chunk.recording)
        if chunk.problem is not None:
            waiting.append(_Run([placed], chunk.problem))
        elif run is not None and run.continues_with(chunk):
            run.placed.append(placed)
            if len(run.placed) > max_chunks:
                latest[chunk.recording] = rest = run.cut()
                insort(waiting, rest, key=lambda run: run.placed[0][0])  # by its newest chunk
        elif run is not None and any(chunk.index == held.index for _, held in run.placed):
            waiting.append(_Run([placed], duplicate_index(chunk.index)))
        else:
            if run is not None:
                run.closed = True
            latest[chunk.recording] = opened = _Run([placed])
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

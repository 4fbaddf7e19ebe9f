"""Grouping of pending chunks into sequences: a pure function over a stream."""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from datetime import timedelta

from stt_lib.errors import FailureKind
from stt_lib.model import ChunkRef, Problem, Sequence

MAX_CHUNKS = 30
"""A sequence is at most this long: five minutes of audio, one request."""

PATIENCE = timedelta(minutes=5)
"""How far a recording's next chunk may lie back before we stop waiting for it.

Consecutive chunks lie about ten seconds apart. Without this bound the last sequence of every
recording would stay open until the end of the backlog.
"""


class _Run:
    """Chunks collected so far, newest first."""

    __slots__ = ("chunks", "closed", "problem")

    def __init__(self, chunk: ChunkRef, problem: Problem | None = None) -> None:
        self.chunks = [chunk]
        self.problem = problem
        self.closed = problem is not None

    def continues_with(self, chunk: ChunkRef) -> bool:
        oldest = self.chunks[-1]
        return (
            not self.closed
            and oldest.index is not None
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

    def sequence(self) -> Sequence:
        return Sequence(tuple(reversed(self.chunks)), self.problem)


def group(
    chunks: Iterable[ChunkRef], max_chunks: int = MAX_CHUNKS, patience: timedelta = PATIENCE
) -> Iterator[Sequence]:
    """Yield sequences in the order of their newest chunks.

    `chunks` come newest first, recordings interleaved as they please. A gap in `index`, the cap,
    or a change of priority ends a sequence and the chunk in hand starts the next one. A chunk
    with a problem, or one whose index its neighbour in time has already, is a sequence of its own
    that says so. Every chunk is in exactly one sequence.
    """
    waiting: deque[_Run] = deque()  # in the order of their newest chunks
    latest: dict[Hashable, _Run] = {}  # of each recording
    for chunk in chunks:
        while waiting and (waiting[0].closed or waiting[0].is_passed_by(chunk, patience)):
            waiting[0].closed = True
            yield waiting.popleft().sequence()
        run = latest.get(chunk.recording)
        if chunk.problem is not None:
            waiting.append(_Run(chunk, chunk.problem))
        elif run is not None and run.holds_index_of(chunk):
            waiting.append(_Run(chunk, duplicate_index(chunk.index)))
        elif run is not None and run.continues_with(chunk):
            run.chunks.append(chunk)
            run.closed = len(run.chunks) >= max_chunks
        else:
            if run is not None:
                run.closed = True
            latest[chunk.recording] = opened = _Run(chunk)
            opened.closed = max_chunks == 1
            waiting.append(opened)
        while waiting and waiting[0].closed:
            yield waiting.popleft().sequence()
    for run in waiting:
        yield run.sequence()


def duplicate_index(index: int | None) -> Problem:
    """What is wrong with a chunk whose index another chunk of its recording has."""
    return Problem(
        FailureKind.DUPLICATE_INDEX,
        f"another chunk of this recording has index {index} too: delete one of them",
    )

"""Finding the chunk that costs a whole sequence its transcript: a pure search.

A server only says that it rejects the audio, not which chunk is bad. Bisection finds the longest
prefix that it accepts; the chunk after that is the bad one. A bad chunk costs about log2 n requests
to find and two more to confirm and to continue after it, and the rest ends up in as few pieces as
there are gaps.

A chunk that makes servers crash or hang is not rejected at all. Its sequence fails in run after
run, and is posted in ever smaller parts, until that chunk is alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stt_lib.domain.models import Answer, Chunk
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.domain.timeline import Timeline
from stt_lib.errors import AttemptError, AudioRejected, Suspect

Post = Callable[[Sequence[Chunk]], Answer]

WHOLE_FAILURES = 2
"""Runs. After their requests failed in more than these, chunks are posted in halves, then quarters,
and so on."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Chunks that the server transcribed in one request.

    `audio` is everything that was posted, oldest first: these chunks and their context.
    """

    chunks: tuple[Chunk, ...]
    answer: Answer
    audio: tuple[Chunk, ...]

    @property
    def timeline(self) -> Timeline:
        """The clock along the posted audio."""
        first = self.audio.index(self.chunks[0])
        return Timeline(self.audio, first, self.audio.index(self.chunks[-1]) + 1)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A chunk that the server rejects even alone."""

    chunk: Chunk
    error: AttemptError


def salvage(chunks: Sequence[Chunk], post: Post) -> Iterator[Heard | Unusable]:
    """Transcribe consecutive chunks, oldest first, and leave out those that are rejected.

    Yields every chunk exactly once and in order, each piece as soon as it is known. `post` raises
    `AudioRejected` or `Suspect` for audio that the server rejects; any other error ends the search.
    """
    rest = tuple(chunks)
    while rest:
        tried = _tried(rest, post)
        if isinstance(tried, Heard):
            yield tried
            return
        if len(rest) > 1:
            prefix, tried = _longest_good_prefix(rest, post, tried)
            if prefix is not None:
                yield prefix
                rest = rest[len(prefix.chunks) :]
                if len(rest) == 1:
                    continue  # the loop posts it alone
                tried = _tried(rest[:1], post)
                if isinstance(tried, Heard):
                    continue  # rejected only in this company, as when it is too much at once
        yield Unusable(rest[0], tried)
        rest = rest[1:]


def divided(chunks: tuple[Chunk, ...]) -> list[tuple[Chunk, ...]]:
    """The parts in which consecutive chunks are posted, by the failures of servers so far."""
    beyond = max(chunk.excuses for chunk in chunks) - WHOLE_FAILURES
    size = max(1, MAX_CHUNKS >> max(0, beyond))
    return [chunks[at : at + size] for at in range(0, len(chunks), size)]


def _tried(chunks: tuple[Chunk, ...], post: Post) -> Heard | AttemptError:
    try:
        return Heard(chunks, post(chunks), chunks)
    except (AudioRejected, Suspect) as error:
        return error


def _longest_good_prefix(
    chunks: tuple[Chunk, ...], post: Post, error: AttemptError
) -> tuple[Heard | None, AttemptError]:
    """Bisect: the longest prefix that is accepted, if any, and the last rejection."""
    good, bad = 0, len(chunks)
    prefix: Heard | None = None
    while bad - good > 1:
        middle = (good + bad) // 2
        tried = _tried(chunks[:middle], post)
        if isinstance(tried, Heard):
            good, prefix = middle, tried
        else:
            bad, error = middle, tried
    return prefix, error

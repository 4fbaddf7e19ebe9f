"""Where on the clock something was said: from positions in the posted audio to dates.

A server counts seconds from the start of the audio that it received: chunks joined without gaps.
But chunks are not exactly ten seconds long, and recorders' clocks drift and are corrected at times.
So each position is looked up in the chunk that contains it, and counts from that chunk's `start`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TypeVar

from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, Chunk, Segment, Word

Piece = TypeVar("Piece", Segment, Word)


class Timeline:
    """The clock along joined audio, of which the chunks from `first` to before `beyond` are owned.

    Times outside of these are moved to their edge: a transcript begins with its own audio.
    """

    def __init__(self, audio: Sequence[Chunk], first: int = 0, beyond: int | None = None) -> None:
        self._audio = audio
        self._begins = list(accumulate(map(_length, audio, [*audio[1:], None]), initial=0.0))
        self.begin = self._begins[first]
        """The position at which our audio begins, in seconds."""
        self.end = self._begins[len(audio) if beyond is None else beyond]
        self._origin = audio[first].start

    def holds(self, segment: Segment) -> bool:
        """Whether most of a segment lies in our own audio, or where there is no context."""
        middle = (segment.start + segment.end) / 2
        is_before = self.begin > 0 and middle < self.begin
        return not is_before and not (self.end < self._begins[-1] and middle > self.end)

    def place(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        """The segments by the clock; their seconds then count from the start of our audio.

        Where the clock was set back, later speech does not move before earlier speech: the order
        of the text matters more than the seconds.
        """
        for segment in self._placed(segments, self._origin):
            if segment.words:
                words = self._placed(segment.words, segment.start_at or self._origin)
                segment = replace(segment, words=tuple(words))
            yield segment

    def _placed(self, pieces: Iterable[Piece], earliest: datetime) -> Iterator[Piece]:
        for piece in pieces:
            start, end = self._span(piece.start, piece.end, earliest)
            earliest = start
            yield replace(
                piece,
                start=self._seconds(start),
                end=self._seconds(end),
                start_at=start,
                end_at=end,
            )

    def _span(self, start: float, end: float, earliest: datetime) -> tuple[datetime, datetime]:
        start = min(max(start, self.begin), self.end)
        end = min(max(end, self.begin), self.end)
        began = max(self.at(start), earliest)
        ended = self.at(end, is_end=True)
        return began, ended if ended >= began else began + _whole_ms(end - start)

    def at(self, position: float, *, is_end: bool = False) -> datetime:
        """The date of a position; where two chunks meet, an end belongs to the first of them."""
        search = bisect_left if is_end else bisect_right
        found = search(self._begins, position) - 1
        index = min(max(found, 0), len(self._audio) - 1)
        return self._audio[index].start + _whole_ms(position - self._begins[index])

    def _seconds(self, moment: datetime) -> float:
        return (moment - self._origin).total_seconds()


def _length(chunk: Chunk, following: Chunk | None) -> float:
    """The measured length of a chunk; without one, the time until the next chunk."""
    if chunk.is_measured or following is None:
        return chunk.seconds
    spacing = (following.start - chunk.start).total_seconds()
    return spacing if 0 < spacing < 2 * NOMINAL_CHUNK_SECONDS else chunk.seconds


def _whole_ms(seconds: float) -> timedelta:
    """MongoDB's dates are in milliseconds."""
    return timedelta(milliseconds=round(seconds * 1000))

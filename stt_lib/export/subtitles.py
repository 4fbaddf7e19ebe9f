"""Subtitles as people read them: which words stand together on the screen, and for how long.

The rules are those of Netflix's Timed Text Style Guide (General Requirements; English template): 42
characters a line, two lines, at most 7 s, 17 characters a second, two frames between two
subtitles, lines broken after punctuation. Its shortest time of 5/6 s is 1 s here, and a subtitle
may stay for 1.5 s after its last word, as BBC's Subtitle Guidelines allow.

Segments of Whisper are longer and shorter than that, so the words of a passage are shared out
anew, to the least cost by the table below (Knuth and Plass break paragraphs into lines this way).
"""

import bisect
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, in_time, label
from stt_lib.export.typesetting import (
    Piece,
    clean,
    ends_clause,
    ends_sentence,
    joined,
    pieces,
    set_behind,
    width,
)

LINE: Final = 42
"""Characters."""
SHORTEST: Final = 1.0
LONGEST: Final = 7.0
BETWEEN: Final = 2 / 24
"""Seconds: two frames of film."""
LINGERING: Final = 1.5
"""Seconds that a subtitle may stay after its last word."""
READABLE: Final = 17.0
"""Characters per second."""
SLOWEST: Final = 5.0
"""Characters per second; of a segment that is longer than its text takes, the rest is silence."""

PAUSE: Final = 2.0
"""Seconds of silence after which nothing of what was before stays."""
PASSAGE: Final = 400
"""Words after which the next segment begins a passage of its own, however it hangs together."""

# What makes a subtitle worse, in terms of one subtitle more.
_ONE_MORE: Final = 1.0
_ENDS_IN_CLAUSE: Final = 1.2
_ENDS_AT_COMMA: Final = 0.4
_ENDS_AT_SHORT_WORD: Final = 1.6
"""An article or a preposition belongs to what follows, in most languages."""
_SHORT_WORD: Final = 3
_SENTENCE_ENDS_INSIDE: Final = 0.4
_PAUSE_INSIDE: Final = 1.0
_TOO_SHORT: Final = 20.0
_TOO_FAST: Final = 3.0


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle; times in milliseconds from the scope's zero."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A piece of text and when it was spoken, in seconds from the scope's zero."""

    piece: Piece
    start: float
    end: float


@dataclass(slots=True)
class _Passage:
    """What one recording says without a pause, until it is laid out."""

    spoken: list[_Spoken]

    def add(self, spoken: _Spoken) -> None:
        """Add what is said next; what overlaps begins no earlier than what was before."""
        piece, start = spoken.piece, spoken.start
        if self.spoken:
            start = max(start, self.spoken[-1].start)
            piece = set_behind(self.spoken[-1].piece, piece)
        self.spoken.append(_Spoken(piece, start, max(start, spoken.end)))

    @property
    def start(self) -> float:
        return self.spoken[0].start

    @property
    def end(self) -> float:
        return self.spoken[-1].end

    def goes_on_with(self, start: float) -> bool:
        return start - self.end < PAUSE and len(self.spoken) < PASSAGE


def cues(stretches: Iterable[Stretch], scope: Scope) -> Iterator[Cue]:
    """Subtitles by their start; those of one recording never overlap.

    When there may be several recordings, each that begins to speak is named. Where words come
    faster than they can be shown for a second at least, the following subtitles are late.
    """
    return _Desk(scope).laid_out(in_time(stretches))


class _Desk:
    """The passages in work; of each recording one at most."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._open: dict[str, _Passage] = {}
        self._shown_until: dict[str, int] = {}
        self._ready: list[tuple[int, int, Cue]] = []
        self._number = itertools.count()
        self._speaker: str | None = None

    def laid_out(self, utterances: Iterable[Utterance]) -> Iterator[Cue]:
        for said in utterances:
            start = _seconds(said.start, self._scope.zero)
            self._finish(said.recording, start)
            yield from self._ready_before(min([start, *(p.start for p in self._open.values())]))
            self._take(said)
        for recording in list(self._open):
            self._lay_out(recording, following=None)
        yield from self._ready_before(None)

    def _finish(self, speaking: str, now: float) -> None:
        """Lay out what nobody goes on with."""
        for recording, passage in list(self._open.items()):
            if not passage.goes_on_with(now):
                self._lay_out(recording, following=now if recording == speaking else None)
        self._shown_until = {r: t for r, t in self._shown_until.items() if t > now * 1000}

    def _take(self, said: Utterance) -> None:
        passage = self._open.get(said.recording)
        if passage is None:
            passage = self._open[said.recording] = _Passage(self._name_of(said))
        for spoken in _spoken(said, self._scope.zero):
            passage.add(spoken)

    def _name_of(self, said: Utterance) -> list[_Spoken]:
        """What to put before the words of a recording when another one spoke before."""
        is_known = self._scope.recording is not None or said.recording == self._speaker
        self._speaker = said.recording
        if is_known:
            return []
        now = _seconds(said.start, self._scope.zero)
        return [_Spoken(piece, now, now) for piece in pieces(f"[{label(said.recording)}]", LINE)]

    def _lay_out(self, recording: str, following: float | None) -> None:
        passage = self._open.pop(recording)
        earliest = self._shown_until.get(recording, 0)
        for cue in _timed(_shared_out(passage.spoken), earliest, following):
            heapq.heappush(self._ready, (cue.start, next(self._number), cue))
            self._shown_until[recording] = cue.end

    def _ready_before(self, moment: float | None) -> Iterator[Cue]:
        while self._ready and (moment is None or self._ready[0][0] < moment * 1000):
            yield heapq.heappop(self._ready)[2]


# -- when each piece of text was spoken ------------------------------------------------------------


def _seconds(moment: datetime, zero: datetime) -> float:
    return (moment - zero) / timedelta(seconds=1)


def _spoken(said: Utterance, zero: datetime) -> Iterator[_Spoken]:
    """The pieces of an utterance, timed by its words, else by their share of its characters."""
    parts = pieces(said.text, LINE)
    starts, ends = _clock(said, zero, parts[-1].to)
    for part in parts:
        yield _Spoken(part, starts[part.at], ends[part.to - 1])


def _clock(said: Utterance, zero: datetime, letters: int) -> tuple[list[float], list[float]]:
    """When each letter of a text begins and ends."""
    start, end = _seconds(said.start, zero), _seconds(said.end, zero)
    words = [
        (_seconds(w.start, zero), _seconds(w.end, zero), len(clean(w.text).replace(" ", "")))
        for w in said.words
    ]
    if sum(count for *_, count in words) == letters:
        return _evenly(words)
    starts, ends = _evenly([(start, min(end, start + width(said.text) / SLOWEST), letters)])
    ends[-1] = max(ends[-1], min(end, start + LONGEST))  # or was the silence before?
    return starts, ends


def _evenly(spans: Iterable[tuple[float, float, int]]) -> tuple[list[float], list[float]]:
    """Spans of time, shared by so many letters each."""
    starts: list[float] = []
    ends: list[float] = []
    for start, end, count in spans:
        starts += (start + (end - start) * at / count for at in range(count))
        ends += (start + (end - start) * at / count for at in range(1, count + 1))
    return starts, ends


# -- which pieces stand together -------------------------------------------------------------------


class _Measured:
    """The pieces of a passage, measured so that any run of them is judged at once."""

    def __init__(self, spoken: Sequence[_Spoken]) -> None:
        self.spoken = spoken
        wide = [width(s.piece.text) for s in spoken]
        spaces = [1.0 if s.piece.spaced else 0.0 for s in spoken]
        self._right = list(itertools.accumulate(map(sum, zip(wide, spaces, strict=True))))
        self._left = [right - w for right, w in zip(self._right, wide, strict=True)]
        gaps = [max(0.0, b.start - a.end) for a, b in itertools.pairwise(spoken)]
        self._sentences = self._up_to(1.0 * ends_sentence(s.piece.text) for s in spoken)
        self._pauses = self._up_to([0.0, *gaps])
        self._breaks = [_break_after(s.piece.text) for s in spoken]

    @staticmethod
    def _up_to(values: Iterable[float]) -> list[float]:
        return list(itertools.accumulate(values, initial=0.0))

    def width(self, first: int, behind: int) -> float:
        return self._right[behind - 1] - self._left[first]

    def fits(self, first: int, behind: int) -> bool:
        """Whether these pieces can stand together; one alone always can."""
        if behind - first == 1:
            return True
        if self.spoken[behind - 1].end - self.spoken[first].start > LONGEST:
            return False
        second = bisect.bisect_right(self._right, self._left[first] + LINE)
        return second >= behind or self.width(second, behind) <= LINE

    def badness(self, first: int, behind: int) -> float:
        """How much worse the screen is for this subtitle."""
        seconds = self._seconds_shown(first, behind)
        speed = self.width(first, behind) / max(seconds, 0.1)
        return (
            _ONE_MORE
            + (self._breaks[behind - 1] if behind < len(self.spoken) else 0.0)
            + _SENTENCE_ENDS_INSIDE * (self._sentences[behind - 1] - self._sentences[first])
            + _PAUSE_INSIDE * (self._pauses[behind] - self._pauses[first + 1])
            + _TOO_SHORT * max(0.0, SHORTEST - seconds)
            + _TOO_FAST * max(0.0, speed / READABLE - 1)
        )

    def _seconds_shown(self, first: int, behind: int) -> float:
        latest = self.spoken[behind - 1].end + LINGERING
        if behind < len(self.spoken):
            latest = min(latest, self.spoken[behind].start)
        return latest - self.spoken[first].start


def _break_after(text: str) -> float:
    if ends_sentence(text):
        return 0.0
    if ends_clause(text):
        return _ENDS_AT_COMMA
    return _ENDS_AT_SHORT_WORD if len(text) <= _SHORT_WORD else _ENDS_IN_CLAUSE


def _shared_out(spoken: Sequence[_Spoken]) -> list[Sequence[_Spoken]]:
    """The pieces of a passage in runs, each a subtitle, with the least badness in all."""
    measured = _Measured(spoken)
    least = [0.0] + [math.inf] * len(spoken)
    begins = [0] * (len(spoken) + 1)
    for behind in range(1, len(spoken) + 1):
        for first in range(behind - 1, -1, -1):
            if not measured.fits(first, behind):
                break
            badness = least[first] + measured.badness(first, behind)
            if badness < least[behind]:
                least[behind], begins[behind] = badness, first
    runs: list[Sequence[_Spoken]] = []
    behind = len(spoken)
    while behind:
        runs.append(spoken[begins[behind] : behind])
        behind = begins[behind]
    return runs[::-1]


# -- how long, and in which lines ------------------------------------------------------------------


def _timed(
    runs: Sequence[Sequence[_Spoken]], earliest: int, following: float | None
) -> Iterator[Cue]:
    """Subtitles from `earliest` (milliseconds) on; `following` is when the passage after begins."""
    nexts = [run[0].start for run in runs[1:]] + [math.inf if following is None else following]
    for run, then in zip(runs, nexts, strict=True):
        start = max(earliest, round(run[0].start * 1000))
        end = start + _duration(run, start / 1000, then)
        yield Cue(start, end, set_in_lines([spoken.piece for spoken in run]))
        earliest = end


def _duration(run: Sequence[_Spoken], start: float, then: float) -> int:
    """Milliseconds: as long as it is spoken and needs to be read, and until the next comes."""
    spoken_until = max(run[-1].end, start)
    reading = sum(width(spoken.piece.text) + 1 for spoken in run) / READABLE
    end = max(spoken_until, min(start + reading, spoken_until + LINGERING))
    shown = min(end, then - BETWEEN) - start
    return round(min(max(shown, SHORTEST), LONGEST) * 1000)


def set_in_lines(parts: Sequence[Piece]) -> tuple[str, ...]:
    """One line, or two of like length, the first ending where a clause does if that is near."""
    whole = joined(parts)
    if width(whole) <= LINE:
        return (whole,)
    halves = [(joined(parts[:at]), joined(parts[at:])) for at in range(1, len(parts))]
    fitting = [pair for pair in halves if max(map(width, pair)) <= LINE]
    return min(fitting, key=_imbalance)


def _imbalance(lines: tuple[str, str]) -> float:
    first, second = map(width, lines)
    return abs(first - second) / LINE + _break_after(lines[0].rpartition(" ")[2]) / 2

"""Subtitles: which words share the screen, for how long, and how SubRip and WebVTT write them.

The limits are those of Netflix's Timed Text Style Guide (General Requirements; English template):
42 characters a line, two lines, at most 7 s, 17 characters a second, two frames between
subtitles. The shortest time is 1 s instead of 5/6 s, and a subtitle may stay for 1.5 s after its
last word, as BBC's Subtitle Guidelines allow.

Whisper's segments are longer and shorter than that, so the words of a passage are divided anew.
"""

import heapq
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from stt_lib.domain.text import one_line
from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, in_time, utc
from stt_lib.export.text import (
    Piece,
    ends_clause,
    ends_sentence,
    is_spaced,
    joined,
    pieces,
    width,
)

LINE: Final = 42
"""Characters per line."""
SHORTEST: Final = 1.0
"""Seconds. Minimum time that a subtitle is shown."""
LONGEST: Final = 7.0
"""Seconds. Maximum time that a subtitle is shown."""
BETWEEN: Final = 2 / 24
"""Seconds. Gap between two subtitles: two frames of film."""
LINGERING: Final = 1.5
"""Seconds. Maximum time that a subtitle stays after its last word."""
READABLE: Final = 17.0
"""Characters per second that people can read."""
PAUSE: Final = 2.0
"""Seconds. Silence after which the text before it is no longer shown."""
BREATH: Final = 0.7
"""Seconds. Silence at which a subtitle may well end."""
PASSAGE: Final = 400
"""Words. Longest passage that is laid out at once; the next segment begins another."""
_NAME: Final = 24
"""Characters. Longest name of a file; of longer ones the beginning is shown."""
_LABEL: Final = 12
"""Characters. Longest id of a recording; of longer ones the end is shown."""
SHORT_LETTERS: Final = 3
"""Letters of articles and prepositions, which belong to the word after them."""

_SENTENCE, _BREATH, _CLAUSE, _WORD, _SHORT_WORD = 3.0, 2.5, 2.0, 1.0, 0.0
"""Merits of ending a subtitle there; a full subtitle adds 1."""
_EARLY: Final = 0.4
"""Share of a full subtitle before which only a sentence may end without a penalty."""
_TOO_EARLY: Final = 1.5


@dataclass(frozen=True, slots=True)
class Cue:
    """A subtitle; its times are milliseconds from the scope's zero."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A piece of text, spoken from `start` to `end`, in seconds from the scope's zero."""

    piece: Piece
    start: float
    end: float


def cues(stretches: Iterable[Stretch], scope: Scope) -> Iterator[Cue]:
    """Yield subtitles by start time; those of one recording never overlap.

    If there may be several recordings, each is named when it begins to speak. Where words are too
    fast for subtitles of at least a second, the subtitles after them are late.
    """
    return _Layout(scope).laid_out(in_time(stretches))


class _Layout:
    """Lays out passages as they end; at most one per recording is still growing."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._open: dict[str, list[_Spoken]] = {}
        self._shown_until: dict[str, int] = {}
        self._ready: list[tuple[int, int, Cue]] = []
        self._number = itertools.count()
        self._speaker: str | None = None

    def laid_out(self, utterances: Iterable[Utterance]) -> Iterator[Cue]:
        for said in utterances:
            start = _seconds(said.start, self._scope.zero)
            self._finish(said.recording, start)
            yield from self._ready_before(min([start, *(p[0].start for p in self._open.values())]))
            self._add(said)
        for recording in list(self._open):
            self._lay_out(recording, following=math.inf)
        yield from self._ready_before(math.inf)

    def _finish(self, speaking: str, now: float) -> None:
        """Lay out the passages that have ended."""
        for recording, passage in list(self._open.items()):
            if now - passage[-1].end >= PAUSE or len(passage) >= PASSAGE:
                self._lay_out(recording, following=now if recording == speaking else math.inf)
        self._shown_until = {r: t for r, t in self._shown_until.items() if t > now * 1000}

    def _add(self, said: Utterance) -> None:
        if said.recording not in self._open:
            self._open[said.recording] = self._name_of(said)
        passage = self._open[said.recording]
        for spoken in _spoken(said, self._scope.zero):
            passage.append(_set_behind(passage[-1], spoken) if passage else spoken)

    def _name_of(self, said: Utterance) -> list[_Spoken]:
        """The name of a recording, if another one spoke before it."""
        is_known = self._scope.recording is not None or said.recording == self._speaker
        self._speaker = said.recording
        if is_known:
            return []
        now = _seconds(said.start, self._scope.zero)
        label = _label(self._scope.name_of(said.recording), said.recording)
        return [_Spoken(piece, now, now) for piece in pieces(f"[{label}]", LINE)]

    def _lay_out(self, recording: str, following: float) -> None:
        """Make the subtitles of a passage; the next one begins at `following`, in seconds."""
        runs = list(_divided(self._open.pop(recording)))
        nexts = [*(run[0].start for run in runs[1:]), following]
        for run, then in zip(runs, nexts, strict=True):
            start = max(self._shown_until.get(recording, 0), round(run[0].start * 1000))
            end = start + _duration(run, start / 1000, then)
            cue = Cue(start, end, set_in_lines([spoken.piece for spoken in run]))
            heapq.heappush(self._ready, (start, next(self._number), cue))
            self._shown_until[recording] = end

    def _ready_before(self, moment: float) -> Iterator[Cue]:
        while self._ready and self._ready[0][0] < moment * 1000:
            yield heapq.heappop(self._ready)[2]


def _label(name: str | None, recording: str) -> str:
    """The beginning of a file's name, or the end of an id."""
    if name:
        name = one_line(name)
        return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    known = one_line(recording)
    return known if len(known) <= _LABEL else "…" + known[-_LABEL // 2 :]


# -- when each piece of text was spoken ------------------------------------------------------------


def _seconds(moment: datetime, zero: datetime) -> float:
    return (moment - zero) / timedelta(seconds=1)


def _spoken(said: Utterance, zero: datetime) -> Iterator[_Spoken]:
    """The pieces of an utterance, timed by its words, or else by their share of its letters."""
    parts = pieces(said.text, LINE)
    clock = _clock(said, zero, parts[-1].to)
    for part in parts:
        yield _Spoken(part, clock[part.at][0], clock[part.to - 1][1])


def _clock(said: Utterance, zero: datetime, letters: int) -> list[tuple[float, float]]:
    """Return when each letter of a text begins and ends."""
    spans = [
        (_seconds(w.start, zero), _seconds(w.end, zero), len(one_line(w.text).replace(" ", "")))
        for w in said.words
    ]
    if sum(count for *_, count in spans) != letters:
        start, end = _seconds(said.start, zero), _seconds(said.end, zero)
        if width(said.text) <= 2 * LINE:  # one subtitle, which disappears by then
            end = min(end, start + LONGEST)
        spans = [(start, end, letters)]
    return [
        (start + (end - start) * at / count, start + (end - start) * (at + 1) / count)
        for start, end, count in spans
        for at in range(count)
    ]


def _set_behind(before: _Spoken, spoken: _Spoken) -> _Spoken:
    """Let a piece follow another one: no earlier, and with a space if the script has any."""
    piece, start = spoken.piece, max(before.start, spoken.start)
    if piece.at == 0:
        piece = replace(piece, spaced=is_spaced(before.piece.text, piece.text))
    return _Spoken(piece, start, max(start, spoken.end))


# -- which pieces stand together -------------------------------------------------------------------


def _divided(spoken: Sequence[_Spoken]) -> Iterator[Sequence[_Spoken]]:
    """Divide the pieces of a passage into subtitles, each as long as possible and well ended."""
    first = 0
    while first < len(spoken):
        behind = _fullest(spoken, first)
        if behind < len(spoken):
            behind = _best_end(spoken, first, behind)
        yield spoken[first:behind]
        first = behind


def _fullest(spoken: Sequence[_Spoken], first: int) -> int:
    """The end of the longest subtitle that begins with the piece `first`."""
    behind, lines, used = first + 1, 1, width(spoken[first].piece.text)
    while behind < len(spoken):
        piece = spoken[behind].piece
        used += width(piece.text) + piece.spaced
        if used > LINE:
            lines, used = lines + 1, width(piece.text)
        if lines > 2 or spoken[behind].end - spoken[first].start > LONGEST:
            break
        behind += 1
    return behind


def _best_end(spoken: Sequence[_Spoken], first: int, fullest: int) -> int:
    """The best place to end a subtitle: after a sentence, a pause, a clause or at least a word."""

    def merit(behind: int) -> float:
        fullness = (behind - first) / (fullest - first)
        kind = _kind_of_end(spoken[behind - 1], spoken[behind])
        return kind + fullness - (_TOO_EARLY if fullness < _EARLY and kind < _SENTENCE else 0)

    ends = range(first + 1, fullest + 1)
    shown = [end for end in ends if spoken[end].start - spoken[first].start >= SHORTEST]
    return max(shown, key=merit, default=fullest)


def _kind_of_end(last: _Spoken, following: _Spoken) -> float:
    if ends_sentence(last.piece.text):
        return _SENTENCE
    if following.start - last.end >= BREATH:
        return _BREATH
    if ends_clause(last.piece.text):
        return _CLAUSE
    return _SHORT_WORD if len(last.piece.text) <= SHORT_LETTERS else _WORD


# -- how long, and in which lines ------------------------------------------------------------------


def _duration(run: Sequence[_Spoken], start: float, then: float) -> int:
    """Milliseconds that a subtitle is shown: while it is spoken and read, until the next one."""
    spoken_until = max(run[-1].end, start)
    reading = sum(width(spoken.piece.text) + 1 for spoken in run) / READABLE
    end = max(spoken_until, min(start + reading, spoken_until + LINGERING))
    shown = min(end, then - BETWEEN) - start
    return round(min(max(shown, SHORTEST), LONGEST) * 1000)


def set_in_lines(parts: Sequence[Piece]) -> tuple[str, ...]:
    """Set one line, or two of similar length with the break at the end of a clause if possible."""
    whole = joined(parts)
    if width(whole) <= LINE:
        return (whole,)

    def badness(lines: tuple[str, str]) -> float:
        first, second = map(width, lines)
        return abs(first - second) / LINE + _break_penalty(lines[0].rpartition(" ")[2])

    halves = [(joined(parts[:at]), joined(parts[at:])) for at in range(1, len(parts))]
    return min((pair for pair in halves if max(map(width, pair)) <= LINE), key=badness)


def _break_penalty(word: str) -> float:
    """How bad a line break after this word is, in line lengths."""
    if ends_clause(word):
        return 0.0 if ends_sentence(word) else 0.2
    return 0.8 if len(word) <= SHORT_LETTERS else 0.6


# -- the formats -----------------------------------------------------------------------------------


def write_srt(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield SubRip, which every player reads; times count from the scope's zero."""
    for number, cue in enumerate(cues(stretches, scope), 1):
        lines = "\n".join(map(plain, cue.lines))
        times = f"{_time(cue.start, ',')} --> {_time(cue.end, ',')}"
        yield f"{number}\n{times}\n{lines}\n\n"


_ARROW: Final = re.compile(r"--+>")
_LOOKALIKES: Final = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def plain(line: str) -> str:
    """Replace what a player would take for a tag or times; SubRip has no escapes."""
    return _ARROW.sub("→", line).translate(_LOOKALIKES)


def write_vtt(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield WebVTT (W3C, webvtt1) with a note that says what it is and what its times mean."""
    what = "all recordings" if scope.recording is None else scope.title(scope.recording)
    yield f"WEBVTT\n\nNOTE\nTranscript of {escaped(what)}; 00:00:00.000 is {utc(scope.zero)}.\n"
    yield from vtt_cues(stretches, scope)


def vtt_cues(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield the cues of a WebVTT file; each begins with an empty line."""
    for cue in cues(stretches, scope):
        lines = "\n".join(map(escaped, cue.lines))
        yield f"\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{lines}\n"


def escaped(text: str) -> str:
    """Escape a text for WebVTT."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"

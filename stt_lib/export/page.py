"""A page to read, search and keep: one HTML file that needs no network.

The template escapes all text. Should that ever fail, the page's content security policy still
allows nothing but the one script whose hash it names.
"""

import base64
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final, Self

import jinja2

from stt_lib.domain.text import one_line
from stt_lib.domain.units import duration
from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, in_time, utc

COLOURS: Final = 6
"""Colours in page.css; further recordings share them."""
MOST_TICKS: Final = 6
STEPS: Final = tuple(
    timedelta(seconds=s) for s in (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
)
_BREATH: Final = timedelta(seconds=3)
_SILENCE: Final = timedelta(minutes=1)
_NARROWEST: Final = 0.2
"""Percent of the timeline. Shorter bars and gaps would be invisible."""


@dataclass(frozen=True, slots=True)
class Row:
    """A segment; `anchor` is its address in the page, `gap` a long silence before it."""

    anchor: str
    at: str
    clock: str
    text: str
    language: str | None
    begins_paragraph: bool
    gap: str | None
    is_long_gap: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar on the timeline, in percent of its length."""

    left: float
    width: float
    title: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One recording on one day; `extent` spans its first to its last word on the timeline."""

    anchor: str
    recording: str
    colour: int
    start: datetime
    end: datetime
    span: str
    rows: Sequence[Row]
    extent: Bar
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Tick:
    """A time on the timeline, in percent of its length."""

    left: float
    clock: str


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the reader's calendar, with a timeline from `begin` to `end`.

    Recordings share a lane unless they overlap.
    """

    anchor: str
    heading: str
    zone: str
    begin: str
    end: str
    ticks: Sequence[Tick]
    parts: Sequence[Part]
    lanes: Sequence[Sequence[Part]]


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield the page; it is built as a whole, because the timeline precedes the text."""
    said = list(in_time(stretches))
    days = _days(said, scope)
    style, script = _asset("page.css"), _asset("page.js")
    page = _template().stream(
        title=_title(said, days, scope),
        facts=_facts(said, scope),
        days=days,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    page.enable_buffering(500)
    yield from page


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


# -- the header ---------------------------------------------------------------------------------


def _title(said: Sequence[Utterance], days: Sequence[Day], scope: Scope) -> str:
    if len(days) == 1:
        return days[0].heading
    first, last = (scope.local(said[at].start).date() for at in (0, -1))
    return f"{_written(first)} – {_written(last)}"


def _written(day: date) -> str:
    return f"{day.day} {day:%B} {day.year}"


def _facts(said: Sequence[Utterance], scope: Scope) -> list[str]:
    recordings = {utterance.recording for utterance in said}
    spoken = sum((u.end - u.start for u in said), timedelta())
    whose = (
        f"recording {one_line(said[0].recording)}"
        if len(recordings) == 1
        else f"{len(recordings)} recordings"
    )
    zones = dict.fromkeys(scope.zone_of(said[at].start) for at in (0, -1))
    return [whose, f"{duration(spoken)} of speech", f"times in {' and '.join(zones)}"]


# -- days and recordings ------------------------------------------------------------------------


def _days(said: Sequence[Utterance], scope: Scope) -> list[Day]:
    anchors = _Anchors(scope)
    colours: dict[str, int] = {}
    for utterance in said:
        colours.setdefault(utterance.recording, len(colours) % COLOURS)
    by_day = itertools.groupby(said, key=lambda u: scope.local(u.start).date())
    return [_day(day, list(group), scope, anchors, colours) for day, group in by_day]


class _Anchors:
    """Addresses of segments: their local times, which are the same in every export."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._taken: dict[str, int] = {}

    def __call__(self, said: Utterance) -> str:
        name = f"t{self._scope.local(said.start):%Y%m%d-%H%M%S}"
        number = self._taken[name] = self._taken.get(name, 0) + 1
        return name if number == 1 else f"{name}-{number}"


def _day(
    day: date,
    said: Sequence[Utterance],
    scope: Scope,
    anchors: _Anchors,
    colours: dict[str, int],
) -> Day:
    axis = _Axis.around(said, scope)
    spoken: dict[str, list[Utterance]] = {}
    for utterance in said:
        spoken.setdefault(utterance.recording, []).append(utterance)
    parts = [
        _part(f"r{day:%Y%m%d}-{number}", colours[recording], theirs, axis, anchors)
        for number, (recording, theirs) in enumerate(spoken.items(), 1)
    ]
    return Day(
        anchor=f"d{day:%Y%m%d}",
        heading=f"{day:%A}, {_written(day)}",
        zone=scope.zone_of(axis.begin),
        begin=utc(axis.begin),
        end=utc(axis.end),
        ticks=list(axis.ticks()),
        parts=parts,
        lanes=_lanes(parts),
    )


def _part(
    anchor: str, colour: int, said: Sequence[Utterance], axis: "_Axis", anchors: _Anchors
) -> Part:
    first, last = said[0], said[-1]
    return Part(
        anchor=anchor,
        recording=one_line(first.recording),
        colour=colour,
        start=first.start,
        end=max(utterance.end for utterance in said),
        span=_clocks(first.start, last.end, axis.scope),
        rows=list(_rows(said, axis.scope, anchors)),
        extent=axis.bar(first.start, last.end),
        bars=list(axis.bars(said)),
    )


def _lanes(parts: Iterable[Part]) -> list[list[Part]]:
    """Put each recording on the first lane where it overlaps no other."""
    lanes: list[list[Part]] = []
    for part in parts:
        free = next((lane for lane in lanes if lane[-1].end <= part.start), None)
        if free is None:
            free = []
            lanes.append(free)
        free.append(part)
    return lanes


def _clocks(start: datetime, end: datetime, scope: Scope) -> str:
    return f"{scope.local(start):%H:%M:%S} – {scope.local(end):%H:%M:%S}"


def _rows(said: Sequence[Utterance], scope: Scope, anchors: _Anchors) -> Iterator[Row]:
    for before, utterance in itertools.pairwise([None, *said]):
        assert utterance is not None
        gap = utterance.start - before.end if before else timedelta()
        yield Row(
            anchor=anchors(utterance),
            at=utc(utterance.start),
            clock=f"{scope.local(utterance.start):%H:%M:%S}",
            text=utterance.text,
            language=utterance.language,
            begins_paragraph=gap >= _BREATH,
            gap=duration(gap) if gap >= _SILENCE else None,
            is_long_gap=gap >= 10 * _SILENCE,
        )


# -- the timeline -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Axis:
    """The time axis of a day, in whole steps of the reader's clock."""

    begin: datetime
    end: datetime
    step: timedelta
    scope: Scope

    @classmethod
    def around(cls, said: Sequence[Utterance], scope: Scope) -> Self:
        first, last = said[0].start, max(utterance.end for utterance in said)
        step = next((s for s in STEPS if last - first <= s * (MOST_TICKS - 1)), STEPS[-1])
        local = scope.local(first)
        begin = first - (local - local.replace(hour=0, minute=0, second=0, microsecond=0)) % step
        return cls(begin, begin + step * max(1, -(-(last - begin) // step)), step, scope)

    def ticks(self) -> Iterator[Tick]:
        clock = "%H:%M" if self.step.seconds % 60 == 0 else "%H:%M:%S"
        for number in range(round((self.end - self.begin) / self.step) + 1):
            moment = self.begin + number * self.step
            yield Tick(self._percent(moment - self.begin), f"{self.scope.local(moment):{clock}}")

    def bars(self, said: Sequence[Utterance]) -> Iterator[Bar]:
        """Yield speech as bars; those too close to be told apart become one."""
        near = (self.end - self.begin) * (_NARROWEST / 100)
        first, spoken_until = said[0].start, said[0].end
        for utterance in said:
            if utterance.start - spoken_until > near:
                yield self.bar(first, spoken_until, _clocks(first, spoken_until, self.scope))
                first = utterance.start
            spoken_until = max(spoken_until, utterance.end)
        yield self.bar(first, spoken_until, _clocks(first, spoken_until, self.scope))

    def bar(self, start: datetime, stop: datetime, title: str = "") -> Bar:
        width = max(_NARROWEST, self._percent(stop - start))
        return Bar(self._percent(start - self.begin), width, title)

    def _percent(self, span: timedelta) -> float:
        return round(100 * (span / (self.end - self.begin)), 3)

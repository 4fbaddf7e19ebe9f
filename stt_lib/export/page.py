"""A page to read, search and keep: one HTML file that needs no network.

The template escapes all text. Should that ever fail, the page's content security policy still
allows nothing but the one script whose hash it names.
"""

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self

from stt_lib.domain.text import one_line
from stt_lib.domain.units import duration
from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope, in_time, utc
from stt_lib.export.text import BREATH, SILENCE

COLOURS: Final = 6
"""Colours in page.css; further recordings share them."""
MOST_TICKS: Final = 6
STEPS: Final = tuple(
    timedelta(seconds=s) for s in (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
)
_NARROWEST: Final = 0.2
"""Percent of the timeline. Shorter bars and gaps would be invisible."""

Fields = dict[str, Any]
"""The values that the template inserts for one element of the page."""


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield the page; it is built as a whole, because the timeline precedes the text."""
    said = list(in_time(stretches))
    style, script = map(_asset, ("page.css", "page.js"))
    yield from _filled_in(
        title=_title(said, scope),
        facts=_facts(said, scope),
        days=list(_Days(said, scope)),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )


def _filled_in(**values: Any) -> Iterator[str]:
    import jinja2  # takes a while to load, which other formats need not wait for

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").stream(values)
    page.enable_buffering(500)
    return page


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _title(said: Sequence[Utterance], scope: Scope) -> str:
    first, last = (scope.local(said[at].start).date() for at in (0, -1))
    return _heading(first) if first == last else f"{_written(first)} – {_written(last)}"


def _heading(day: date) -> str:
    return f"{day:%A}, {_written(day)}"


def _written(day: date) -> str:
    return f"{day.day} {day:%B} {day.year}"


def _facts(said: Sequence[Utterance], scope: Scope) -> list[str]:
    number = len({utterance.recording for utterance in said})
    whose = f"{number} recordings" if number > 1 else scope.title(said[0].recording)
    spoken = sum((u.end - u.start for u in said), timedelta())
    zones = dict.fromkeys(scope.zone_of(said[at].start) for at in (0, -1))
    return [whose, f"{duration(spoken)} of speech", f"times in {' and '.join(zones)}"]


class _Days:
    """The days of the reader's calendar, each with its timeline and its recordings."""

    def __init__(self, said: Sequence[Utterance], scope: Scope) -> None:
        self._said = said
        self._scope = scope
        recordings = dict.fromkeys(utterance.recording for utterance in said)
        self._colours = {name: number % COLOURS for number, name in enumerate(recordings)}
        self._anchors: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Fields]:
        for day, said in groupby(self._said, key=lambda u: self._scope.local(u.start).date()):
            yield self._day(day, list(said))

    def _day(self, day: date, said: Sequence[Utterance]) -> Fields:
        axis = _Axis.around(said, self._scope)
        spoken: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in said:
            spoken[utterance.recording].append(utterance)
        parts = [
            self._part(f"r{day:%Y%m%d}-{number}", theirs, axis)
            for number, theirs in enumerate(spoken.values(), 1)
        ]
        return {
            "anchor": f"d{day:%Y%m%d}",
            "heading": _heading(day),
            "begin": utc(axis.begin),
            "end": utc(axis.end),
            "ticks": list(axis.ticks()),
            "parts": parts,
            "lanes": _lanes(parts),
        }

    def _part(self, anchor: str, said: Sequence[Utterance], axis: "_Axis") -> Fields:
        """One recording on one day; `extent` spans its first to its last word."""
        first, last = said[0], said[-1]
        return {
            "anchor": anchor,
            "recording": one_line(first.recording),
            "name": one_line(self._scope.name_of(first.recording) or ""),
            "colour": self._colours[first.recording],
            "start": first.start,
            "end": max(utterance.end for utterance in said),
            "span": self._scope.clocks(first.start, last.end),
            "rows": list(self._rows(said)),
            "extent": axis.bar(first.start, last.end),
            "bars": list(axis.bars(said)),
        }

    def _rows(self, said: Sequence[Utterance]) -> Iterator[Fields]:
        for before, utterance in zip([None, *said], said, strict=False):
            gap = utterance.start - before.end if before else timedelta()
            yield {
                "anchor": self._anchor(utterance),
                "at": utc(utterance.start),
                "clock": self._scope.clock(utterance.start),
                "text": utterance.text,
                "language": utterance.language,
                "begins_paragraph": gap >= BREATH,
                "gap": duration(gap) if gap >= SILENCE else None,
                "is_long_gap": gap >= 10 * SILENCE,
            }

    def _anchor(self, said: Utterance) -> str:
        """A segment's address: its local time, which is the same in every export."""
        name = f"t{self._scope.local(said.start):%Y%m%d-%H%M%S}"
        self._anchors[name] += 1
        return name if self._anchors[name] == 1 else f"{name}-{self._anchors[name]}"


def _lanes(parts: Iterable[Fields]) -> list[list[Fields]]:
    """Put each recording on the first lane where it overlaps no other."""
    lanes: list[list[Fields]] = []
    for part in parts:
        free = next((lane for lane in lanes if lane[-1]["end"] <= part["start"]), None)
        if free is None:
            lanes.append([part])
        else:
            free.append(part)
    return lanes


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

    def ticks(self) -> Iterator[Fields]:
        clock = "%H:%M" if self.step.seconds % 60 == 0 else "%H:%M:%S"
        for number in range(round((self.end - self.begin) / self.step) + 1):
            moment = self.begin + number * self.step
            yield {
                "left": self._percent(moment - self.begin),
                "clock": f"{self.scope.local(moment):{clock}}",
            }

    def bars(self, said: Sequence[Utterance]) -> Iterator[Fields]:
        """Yield speech as bars; those too close to be told apart become one."""
        near = (self.end - self.begin) * (_NARROWEST / 100)
        first, spoken_until = said[0].start, said[0].end
        for utterance in said:
            if utterance.start - spoken_until > near:
                yield self.bar(first, spoken_until)
                first = utterance.start
            spoken_until = max(spoken_until, utterance.end)
        yield self.bar(first, spoken_until)

    def bar(self, start: datetime, stop: datetime) -> Fields:
        return {
            "left": self._percent(start - self.begin),
            "width": max(_NARROWEST, self._percent(stop - start)),
            "title": self.scope.clocks(start, stop),
        }

    def _percent(self, span: timedelta) -> float:
        return round(100 * (span / (self.end - self.begin)), 3)

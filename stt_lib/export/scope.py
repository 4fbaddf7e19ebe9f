"""What is exported, and in which time zone it is shown."""

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime, tzinfo

from stt_lib.domain.text import one_line
from stt_lib.domain.utterances import Stretch, Utterance


@dataclass(frozen=True, slots=True)
class Scope:
    """One recording, or everything in a span of time.

    Subtitles count from `zero`. `zone` is the reader's; None stands for the zone of this machine.
    `name_of` returns the name of the file that a recording was stored from, if it was one.
    """

    recording: str | None
    since: datetime | None
    until: datetime | None
    zero: datetime
    zone: tzinfo | None = None
    name_of: Callable[[str], str | None] = lambda _recording: None

    def title(self, recording: str) -> str:
        """Return how people know a recording: by its name, if it has one, and its id."""
        return title(recording, self.name_of(recording))

    def local(self, moment: datetime) -> datetime:
        """Return a time in the reader's zone.

        In the first and the last year of the calendar it stays in UTC: the zone's midnight may lie
        beyond the calendar.
        """
        is_at_an_end = moment.year in (MINYEAR, MAXYEAR)
        return moment if is_at_an_end else moment.astimezone(self.zone)

    def clock(self, moment: datetime) -> str:
        """Format the time of day in the reader's zone."""
        return f"{self.local(moment):%H:%M:%S}"

    def clocks(self, start: datetime, end: datetime) -> str:
        return f"{self.clock(start)} – {self.clock(end)}"

    def zone_of(self, moment: datetime) -> str:
        """Return the reader's zone at that time, such as CET (UTC+01:00)."""
        local = self.local(moment)
        name, offset = local.tzname() or "UTC", f"{local:%z}"
        against = f"UTC{offset[:3]}:{offset[3:5]}"
        return name if name == "UTC" else against if name == against else f"{name} ({against})"


def readable(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Clean all texts, and leave out utterances that come out empty."""
    for stretch in stretches:
        cleaned = (dataclasses.replace(u, text=one_line(u.text)) for u in stretch.utterances)
        said = tuple(u for u in cleaned if u.text)
        if said:
            yield Stretch(stretch.start, said)


def in_time(stretches: Iterable[Stretch]) -> Iterator[Utterance]:
    """Yield the utterances of all recordings by start time; holds only those that overlap."""
    waiting: list[tuple[datetime, int, Utterance]] = []
    numbers = itertools.count()
    for stretch in stretches:
        while waiting and waiting[0][0] < stretch.start:
            yield heapq.heappop(waiting)[2]
        for utterance in stretch.utterances:
            heapq.heappush(waiting, (utterance.start, next(numbers), utterance))
    while waiting:
        yield heapq.heappop(waiting)[2]


def title(recording: str, name: str | None) -> str:
    """Return how people know a recording: by the name of its file, if it has one, and its id."""
    known = f"recording {one_line(recording)}"
    return f"{one_line(name)} · {known}" if name else known


def utc(moment: datetime) -> str:
    """Format a time for programs: ISO 8601 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

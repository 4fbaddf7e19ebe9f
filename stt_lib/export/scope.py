"""What is exported, and in whose time."""

import dataclasses
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.typesetting import clean


@dataclass(frozen=True, slots=True)
class Scope:
    """One recording, or everything in a span of time.

    `zero` is where the clock of subtitles begins. `zone` is the reader's; None means the zone
    of this machine.
    """

    recording: str | None
    since: datetime | None
    until: datetime | None
    zero: datetime
    zone: tzinfo | None = None

    def local(self, moment: datetime) -> datetime:
        """A moment by the reader's clock."""
        try:
            return moment.astimezone(self.zone)
        except (OverflowError, ValueError):  # at the ends of the calendar
            return moment

    def zone_of(self, moment: datetime) -> str:
        """The reader's zone at that moment, as in CET (UTC+01:00)."""
        local = self.local(moment)
        name, offset = local.tzname() or "UTC", f"{local:%z}"
        against = f"UTC{offset[:3]}:{offset[3:5]}"
        return name if name == "UTC" else against if name == against else f"{name} ({against})"


def readable(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Texts made clean; utterances of which nothing is left are left out."""
    for stretch in stretches:
        cleaned = (dataclasses.replace(u, text=clean(u.text)) for u in stretch.utterances)
        said = tuple(u for u in cleaned if u.text)
        if said:
            yield Stretch(stretch.start, said)


def in_time(stretches: Iterable[Stretch]) -> Iterator[Utterance]:
    """The utterances of all recordings by their start; holds only what overlaps."""
    waiting: list[tuple[datetime, int, Utterance]] = []
    number = 0
    for stretch in stretches:
        while waiting and waiting[0][0] < stretch.start:
            yield heapq.heappop(waiting)[2]
        for utterance in stretch.utterances:
            heapq.heappush(waiting, (utterance.start, number, utterance))
            number += 1
    while waiting:
        yield heapq.heappop(waiting)[2]


def utc(moment: datetime) -> str:
    """A moment for programs: ISO 8601 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lasting(span: timedelta) -> str:
    """A span as people say it: its two largest units."""
    seconds = max(0, round(span.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s"))
    told = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0 s"


def label(recording: str) -> str:
    """A recording's id, short enough to stand before what is said."""
    name = clean(recording)
    return name if len(name) <= _SHORT else "…" + name[-_TAIL:]


_SHORT: Final = 12
_TAIL: Final = 6

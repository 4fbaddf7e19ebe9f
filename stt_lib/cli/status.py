"""`status`: whether the worker keeps up, who is working, what failed, and what is next."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, astuple
from typing import Any, Final

import click

from stt_lib.cli.options import JSON, settings_options
from stt_lib.cli.rendering import at, clock, print_json, with_shown_ids
from stt_lib.cli.session import opened_store, same_place
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load
from stt_lib.domain.models import Activity, FailedKind
from stt_lib.domain.units import about, age, audio, counted
from stt_lib.reports.status import Status, Trend, look
from stt_lib.telemetry.formatters import short_id

_COLOURS: Final = {
    Trend.UP_TO_DATE: "green",
    Trend.KEEPING_UP: "green",
    Trend.CATCHING_UP: "yellow",
    Trend.FALLING_BEHIND: "red",
    Trend.STANDING_STILL: "red",
    Trend.WAITING: "yellow",
}
_MOST_COLUMNS: Final = 100
_FEWEST_BAR_COLUMNS: Final = 8
_FEWEST_NAME_COLUMNS: Final = 8
_LABEL_COLUMNS: Final = 9
_MOST_CLAIMS_SHOWN: Final = 5
"""Claims. The ones held longest are shown for each worker."""

_FULL, _LACKING, _MARK, _LOST = "█", "░", "┃", "×"
_LEGEND: Final = f"{_FULL} transcribed  {_LACKING} recorded, not transcribed  {_LOST} failed"


@click.command()
@JSON
@settings_options("local", "data_dir")
def status(as_json: bool, **flags: Any) -> None:
    """Show whether the worker keeps up, current work and failures.

    Only reads. Hours of audio are estimated from the number of chunks.
    """
    settings = load(flags)
    with opened_store(settings) as store:
        found = look(store)
    if as_json:
        print_json(_for_programs(found))
    else:
        columns = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
        click.echo("\n".join(lines(found, columns, same_place(settings))))


def lines(found: Status, columns: int, place: str = "") -> Iterator[str]:
    """The report for a terminal this wide; `place` holds the options for further commands."""
    verdict = click.style(found.verdict.capitalize(), fg=_COLOURS[found.verdict], bold=True)
    yield f"{verdict}: {_reason(found)}"
    yield ""
    facts = {
        "Pending": _backlog(found),
        "Speed": _speed(found),
        "At work": _workers(found, columns),
        "Failed": _failures(found, place),
    }
    for label, about_it in facts.items():
        for number, fact in enumerate(about_it):
            yield f"{'' if number else label:<{_LABEL_COLUMNS}}{fact}"
    yield ""
    yield from _windows(found)
    yield ""
    yield from _plot(found, columns)
    if not found.is_quick:
        yield ""
        yield f"Slow: indexes are missing ({PROGRAM} doctor lists them; a run builds them)."


def _reason(found: Status) -> str:
    match found.verdict:
        case Trend.UP_TO_DATE:
            return "nothing is pending"
        case Trend.KEEPING_UP:
            return "nothing pending is older than a day"
        case Trend.CATCHING_UP:
            return _end(found)
        case Trend.WAITING:
            due = found.next_due
            again = "waits to be retried" if due is None else f"next retry {clock(due, found.now)}"
            return f"everything pending failed before; {again}"
        case Trend.STANDING_STILL:
            return f"nothing transcribed for a day; run {PROGRAM} doctor"
    recorded, done, _ = _amounts(found, found.day)
    return f"in the last day {recorded} recorded, {done} transcribed"


def _end(found: Status) -> str:
    """When the backlog is done."""
    if found.done_in is None:
        return "at this rate the backlog never shrinks"
    end = clock(found.now + found.done_in, found.now)
    what = "due chunks" if found.waiting else "all"
    return f"{what} done in {about(found.done_in)} ({end}) at this rate"


def _backlog(found: Status) -> Iterator[str]:
    backlog = found.backlog
    if not backlog.chunks:
        yield "nothing"
        return
    guess = "about " if backlog.is_estimate else ""
    yield (
        f"{counted(backlog.chunks, 'chunk')} · {guess}{counted(backlog.sequences, 'sequence')}"
        f" · {audio(backlog.seconds)} of audio"
    )
    if backlog.newest is not None and backlog.oldest is not None:
        newest, oldest = found.now - backlog.newest, found.now - backlog.oldest
        yield f"the newest {age(newest)} old, the oldest {age(oldest)}"


def _speed(found: Status) -> Iterator[str]:
    if not found.week.transcribed:
        yield "nothing was transcribed in the last week"
        return
    inflow = "almost no inflow" if found.inflow < 0.01 else f"{_rate(found.inflow)} recorded"
    yield f"{_rate(found.speed)} hours of audio per hour in the {found.speed_of}; {inflow}"
    if found.due and found.verdict is not Trend.CATCHING_UP:
        yield _end(found)


def _rate(rate: float) -> str:
    if rate < 0.01:
        return "<0.01"
    return f"{rate:.2f}" if rate < 100 else f"{rate:,.0f}"


def _workers(found: Status, columns: int) -> Iterator[str]:
    for holder in found.holders:
        held = f": {counted(holder.chunks, 'chunk')} in {counted(holder.claims, 'sequence')}"
        yield _end_of(holder.worker, columns - _LABEL_COLUMNS - len(held)) + held
        for work in holder.work[:_MOST_CLAIMS_SHOWN]:
            start = "" if work.start is None else f", {at(work.start)}"
            since = "" if work.since is None else f", for {age(found.now - work.since)}"
            facts = f"{start}: {counted(work.chunks, 'chunk')}{since}"
            name = _end_of(short_id(work.original_id), columns - _LABEL_COLUMNS - 2 - len(facts))
            yield f"  {name}{facts}"
    if not found.holders:
        yield "no worker"


def _end_of(name: str, columns: int) -> str:
    """The end of a long name tells pods and recordings apart."""
    room = max(columns, _FEWEST_NAME_COLUMNS)
    return name if len(name) <= room else f"…{name[1 - room :]}"


def _failures(found: Status, place: str) -> Iterator[str]:
    if not found.failed:
        yield "nothing"
        return
    width = max(len(kind.kind) for kind in found.failed)
    for kind in found.failed:
        states = " · ".join(_by_state(kind))
        shown = click.style(states, fg="red") if kind.parked else states
        yield f"{kind.kind:<{width}}  {shown}"
    yield f"details: {PROGRAM} errors{place}"


def _by_state(kind: FailedKind) -> Iterator[str]:
    states = {"due": kind.due, "waiting": kind.waiting, "parked": kind.parked}
    for number, (state, count) in enumerate((s, c) for s, c in states.items() if c):
        yield f"{counted(count, 'chunk') if number == 0 else f'{count:,}'} {state}"


def _windows(found: Status) -> Iterator[str]:
    yield _row("", "last hour", "last day", "last week")
    columns = (_amounts(found, window) for window in (found.hour, found.day, found.week))
    for name, *cells in zip(("Recorded", "Transcribed", "Failed"), *columns, strict=True):
        yield _row(name, *cells)


def _row(label: str, *cells: str) -> str:
    return f"{label:<11}" + "".join(f"{cell:>12}" for cell in cells)


def _amounts(found: Status, activity: Activity) -> list[str]:
    """The audio that was recorded, transcribed and lost."""
    return [audio(chunks * found.backlog.chunk_seconds) for chunks in astuple(activity)]


# -- the plot ---------------------------------------------------------------------------------


def _plot(found: Status, columns: int) -> Iterator[str]:
    """A row per day: numbers, and a bar where there is room for one."""
    yield _row("", "recorded", "transcribed", "failed")
    width = columns - len(_row("", "", "", "")) - 2
    most = max(max(a.recorded, a.transcribed) + a.failed for _, a in found.days)
    has_bars = width >= _FEWEST_BAR_COLUMNS and most > 0
    for day, activity in found.days:
        bar = _bar(activity, (width - 1) / most) if has_bars else ""
        row = _row(f"{day:%a} {day.day:>2} {day:%b}", *_amounts(found, activity))
        yield f"{row}  {bar}".rstrip()
    if has_bars:
        yield _LEGEND


def _bar(activity: Activity, scale: float) -> str:
    """Solid for what was transcribed, shaded for what else was recorded, crosses for failures.

    `scale` is in columns per chunk. A mark shows how much was recorded where that is less.
    """
    done, came, lost = (
        round(count * scale) or int(count > 0)
        for count in (activity.transcribed, activity.recorded, activity.failed)
    )
    solid = _FULL * done
    if came < done:
        solid = _FULL * came + _MARK + _FULL * (done - came - 1)
    parts = ((solid, "green"), (_LACKING * (came - done), "yellow"), (_LOST * lost, "red"))
    return "".join(click.style(text, fg=colour) for text, colour in parts if text)


# -- for programs -----------------------------------------------------------------------------


def _for_programs(found: Status) -> Any:
    backlog = found.backlog
    return {
        "verdict": found.verdict,
        "now": found.now,
        "pending": {**asdict(backlog), "hours": backlog.seconds / 3600},
        "holders": [
            {**asdict(holder), "work": [with_shown_ids(work) for work in holder.work]}
            for holder in found.holders
        ],
        "failed": [{**asdict(kind), "due": kind.due} for kind in found.failed],
        "last": {name: asdict(getattr(found, name)) for name in ("hour", "day", "week")},
        "days": [{"day": day.isoformat(), **asdict(a)} for day, a in found.days],
        "speed": found.speed,
        "speed_over": found.speed_of,
        "inflow": found.inflow,
        "done_at": None if found.done_in is None else found.now + found.done_in,
    }

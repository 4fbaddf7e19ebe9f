"""How times and amounts are told to a person, and records to a program."""

from datetime import datetime, timedelta
from typing import Any


def counted(number: int, noun: str) -> str:
    """1 chunk, 5,420 chunks."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def age(span: timedelta) -> str:
    """A stretch of time in its two largest units: 2 days 4 h."""
    minutes = max(round(span.total_seconds() / 60), 0)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        number = f"{days:,} day{'s' if days > 1 else ''}"
        return f"{number} {hours} h" if hours and days < 30 else number
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min")) if n)


def about(span: timedelta) -> str:
    """The same as an estimate: about 2 h, or less than a minute."""
    told = age(span)
    return told if told.startswith("less") else f"about {told}"


def audio(seconds: float) -> str:
    """An amount of audio: 12 min, 15.1 h, 1,389 h."""
    if not seconds:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3570:  # 59.5 min
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:,.1f} h" if hours < 100 else f"{hours:,.0f} h"


def moment(time: datetime, now: datetime) -> str:
    """A time to come, by the clock on the wall."""
    local, today = time.astimezone(), now.astimezone()
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if local - today < timedelta(days=6) else f"{local:%Y-%m-%d}"


def plain(value: Any) -> Any:
    """What JSON can hold: times in ISO 8601, and ids and the like as text."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float) else str(value)

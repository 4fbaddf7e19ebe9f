"""Amounts and durations as people read them."""

from datetime import timedelta


def counted(number: int, noun: str) -> str:
    """1 chunk, 5,420 chunks."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def age(span: timedelta) -> str:
    """A duration in its two largest units: 2 days 4 h."""
    minutes = max(round(span.total_seconds() / 60), 0)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        number = counted(days, "day")
        return f"{number} {hours} h" if hours and days < 30 else number
    return " ".join(f"{n} {unit}" for n, unit in ((hours, "h"), (minutes, "min")) if n)


def duration(span: timedelta) -> str:
    """A duration to the second, in its two largest units: 4 min 52 s, 2 h 5 min."""
    seconds = max(0, round(span.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s"))
    return " ".join([f"{number} {unit}" for number, unit in parts if number][:2]) or "0 s"


def about(span: timedelta) -> str:
    """The same as an estimate: about 2 h, or less than a minute."""
    text = age(span)
    return text if text.startswith("less") else f"about {text}"


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

"""Times and spans as people write them: pure functions, the present passed in.

Dates as ISO 8601 writes them, `today`, `yesterday`, and spans such as `7d` for so long ago, as
journalctl and git take them. Times without a zone are those of the local clock.
"""

import re
from datetime import UTC, datetime, time, timedelta

MOMENT_FORMS = "2026-03-01, 2026-03-01T08:00, yesterday, 'yesterday 18:00', 08:00, or 12h or 7d ago"
SPAN_FORMS = "90m, 2h, 1h30m or seconds"

_SPAN = re.compile(r"(?=\d)(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")
_DAYS_AGO = {"today": 0, "yesterday": 1}


def moment(text: str, now: datetime) -> datetime:
    """The moment that is meant, in UTC; `now` is the present by the local clock.

    Raises:
        ValueError: it is not a moment; the message says how to give one.
    """
    words = text.strip().lower()
    try:
        return (_relative(words, now) or _absolute(words, now)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"is not a time: give it as {MOMENT_FORMS}") from None


def _relative(words: str, now: datetime) -> datetime | None:
    if words == "now":
        return now
    span = _span(words)
    return None if span is None else now - span


def _absolute(words: str, now: datetime) -> datetime:
    """Without a zone when none is written."""
    day, _, clock = words.partition(" ")
    if day in _DAYS_AGO:
        date = now.date() - timedelta(days=_DAYS_AGO[day])
        return datetime.combine(date, time.fromisoformat(clock) if clock else time())
    if re.fullmatch(r"\d\d:\d\d(:\d\d)?", words):
        return datetime.combine(now.date(), time.fromisoformat(words))
    return datetime.fromisoformat(words.upper())


def seconds(text: str) -> float:
    """A span such as 90m, 1h30m or 3600, in seconds.

    Raises:
        ValueError: it is none; the message says how to give one.
    """
    span = _span(text.strip().lower())
    if span is not None:
        return span.total_seconds()
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"is not a span of time: give it as {SPAN_FORMS}") from None


def _span(words: str) -> timedelta | None:
    """Numbers with units, the larger ones first."""
    match = _SPAN.fullmatch(words)
    if match is None:
        return None
    parts = zip(_UNITS, match.groups(), strict=True)
    try:
        return timedelta(**{unit: int(number) for unit, number in parts if number})
    except OverflowError:
        raise ValueError("is too long ago") from None

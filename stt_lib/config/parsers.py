"""Values as people write them: numbers, times, rates, addresses and conditions.

Each parser takes text and returns the value, or raises a `ValueError` whose message completes the
sentence that begins with the name of the option: "must be at least 1".
"""

import contextlib
import ipaddress
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Final
from urllib.parse import urlsplit

from stt_lib.domain import languages
from stt_lib.domain.models import Condition

MOMENT_FORMS: Final = (
    "2026-03-01, 2026-03-01T08:00, yesterday, 'yesterday 18:00', 08:00, or 12h or 7d ago"
)
DURATION_FORMS: Final = "90, 90s, 15m, 2h, 1h30m or 1d"

PROTOCOLS: Final = ("transcribe", "openai", "whispercpp", "asr")
"""Protocols of STT servers; a URL may name its own, as in openai+http://HOST:PORT."""

CRITERIA: Final = ("model", "server", "protocol", "language", "version")
"""Properties by which `--retranscribe` selects transcripts."""

EVERYTHING: Final = "all"
"""In place of a condition: every transcript."""

_DURATION = re.compile(r"(?=\d)(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")
_DAYS_AGO = {"today": 0, "yesterday": 1}
_CONDITION = re.compile(r"(\w+)\s*(!?)=\s*(\S.*)")
_SECONDS_PER = {"": 1, "s": 1, "m": 60, "h": 3600}

Parser = Callable[[str], object]


# -- numbers, switches and text ---------------------------------------------------------------


def whole(at_least: int = 1, at_most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers within these bounds."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError("must be a whole number") from None
        return int(_within(number, at_least, at_most))

    return parse


def number(text: str) -> float:
    """A number above 0."""
    return _above_zero(_finite(text))


def switch(text: str) -> bool:
    """True or false, in one of the usual spellings."""
    word = text.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("must be true or false")


def choice(*choices: str) -> Parser:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            listed = ", ".join(map(repr, choices[:-1]))
            raise ValueError(f"must be {listed} or {choices[-1]!r}")
        return text

    return parse


def nonempty(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def language(text: str) -> str:
    if not languages.is_known(nonempty(text)):
        raise ValueError("must be a language that Whisper knows, such as en or English")
    return text


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return text


def header(text: str) -> str:
    """Text that fits into the header of a request."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("must not contain characters outside Latin-1") from None
    if not text.isprintable():
        raise ValueError("must be a single line without control characters")
    return text


def _finite(text: str) -> float:
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    raise ValueError("must be a number")


def _within(value: float, at_least: float, at_most: float | None) -> float:
    if value < at_least:
        raise ValueError(f"must be at least {at_least:g}")
    if at_most is not None and value > at_most:
        raise ValueError(f"must be at most {at_most:g}")
    return value


def _above_zero(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


# -- times ------------------------------------------------------------------------------------


def moment(text: str, now: datetime | None = None) -> datetime:
    """A moment in UTC; `now` is the present by the local clock.

    Dates are written as in ISO 8601, as `today` or `yesterday`, or as a duration such as `7d` for
    that long ago, as journalctl and git take them. Times without a zone are local.
    """
    words = text.strip().lower()
    present = now or datetime.now().astimezone()
    try:
        span = timedelta(0) if words == "now" else _span(words)
        return (_absolute(words, present) if span is None else present - span).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"is not a time: give it as {MOMENT_FORMS}") from None


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
    """A duration such as 90m, 1h30m or 3600, in seconds."""
    span = _span(text.strip().lower())
    if span is not None:
        return span.total_seconds()
    try:
        float(text)
    except ValueError:
        raise ValueError(f"is not a duration: give it as {DURATION_FORMS}") from None
    return _finite(text)


def duration(at_least: float = 0, at_most: float | None = None) -> Parser:
    """A parser of durations, in seconds, within these bounds."""
    return lambda text: _within(seconds(text), at_least, at_most)


def positive_duration(text: str) -> float:
    return _above_zero(seconds(text))


def interval(text: str) -> float | None:
    """A duration above 0, or None for `off`."""
    return None if text.strip().lower() == "off" else positive_duration(text)


def _span(words: str) -> timedelta | None:
    """Numbers with units, the larger ones first."""
    match = _DURATION.fullmatch(words)
    if match is None:
        return None
    parts = zip(_UNITS, match.groups(), strict=True)
    try:
        return timedelta(**{unit: int(digits) for unit, digits in parts if digits})
    except OverflowError:
        raise ValueError("is too long") from None


def rate(text: str) -> float:
    """A rate such as 2, 0.5, 10/m or 600/h, per second."""
    count, _, unit = text.partition("/")
    try:
        per_second = _finite(count) / _SECONDS_PER[unit.strip()]
    except (KeyError, ValueError):
        raise ValueError("is not a rate: give it as 2, 0.5, 10/m or 600/h") from None
    return _above_zero(per_second)


# -- addresses --------------------------------------------------------------------------------


def servers(text: str) -> tuple[str, ...]:
    """URLs of STT servers, separated by commas; each is listed once."""
    urls = [url.strip() for url in text.split(",") if url.strip()]
    return tuple(dict.fromkeys(_server(nonempty(url)) for url in urls or [""]))


def _server(url: str) -> str:
    hint = "give it as http://HOST:PORT or https://HOST"
    if url.startswith("dns+"):
        server = _server(url.removeprefix("dns+"))
        if "https://" in server:  # no certificate can be for addresses that change
            raise ValueError("is not possible with https: give it as dns+http://NAME:PORT")
        return f"dns+{server}"
    protocol, plus, plain = url.partition("+")
    protocol = protocol.lower()
    if plus and "://" not in protocol and protocol not in PROTOCOLS:
        raise ValueError(f"has no protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}")
    try:
        parts = urlsplit(plain if protocol in PROTOCOLS else url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"is not a URL: {hint}") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
        raise ValueError(f"is not a URL with a host: {hint}")
    return url.rstrip("/")


def mongodb_uri(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    if scheme not in ("mongodb", "mongodb+srv") or not host.strip(":,"):
        raise ValueError("has no host: give it as mongodb://HOST:PORT")
    return text


def address(text: str) -> tuple[str, int]:
    """A host and a port; without a host, the port of this machine alone."""
    host, _, port = text.rpartition(":")
    try:
        return host.strip("[]") or "127.0.0.1", whole(0, 65535)(port)
    except ValueError:
        raise ValueError("is not a port: give it as 9464 or 0.0.0.0:9464") from None


def dns_server(text: str) -> str:
    """HOST:PORT of a DNS server."""
    host, _, port = text.rpartition(":")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host.strip("[]")) and port.isdecimal():
            return text
    raise ValueError("must be ADDRESS:PORT, such as 127.0.0.1:8600")


# -- conditions -------------------------------------------------------------------------------


def conditions(text: str) -> tuple[Condition, ...]:
    """Conditions such as `model!=large-v3`, separated by commas; none when all are wanted."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    nonempty("".join(parts))
    return tuple(_condition(part) for part in parts if part.lower() != EVERYTHING)


def _condition(text: str) -> Condition:
    form = _CONDITION.fullmatch(text)
    if form is None:
        raise ValueError(f"is neither {EVERYTHING} nor a condition such as model!=large-v3")
    name = form[1].lower()
    if name in ("since", "until", "recording"):
        raise ValueError(f"takes no {name}: use --{name} as well")
    if name not in CRITERIA:
        raise ValueError(f"knows no {name!r}: use one of {', '.join(CRITERIA)}")
    return Condition(name, form[3].strip(), is_not=bool(form[2]))

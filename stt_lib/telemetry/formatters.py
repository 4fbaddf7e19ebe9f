"""Log lines for people and for programs, without secrets."""

import functools
import json
import logging
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from stt_lib.domain.text import one_line
from stt_lib.telemetry.events import Event

TEXT: Final = "%(asctime)s - %(levelname)s - %(message)s"
DATE_FORMAT: Final = "%Y-%m-%d %H:%M:%S"

LONGEST_ID: Final = 100
"""Characters. An id may be any value, but never takes more of a line than this."""


def local_time(moment: datetime | None) -> str:
    """A moment by the clock of whoever reads the log."""
    if moment is None:
        return "unknown time"
    try:
        return moment.astimezone().strftime(DATE_FORMAT)
    except (OverflowError, ValueError):  # at the ends of the calendar
        return moment.strftime(DATE_FORMAT)


@functools.singledispatch
def shown_id(value: object) -> str:
    """An id of any type as commands take it; `store.ids` adds the types of the database."""
    return str(value)


def short_id(value: object) -> str:
    """The same on one line."""
    text = one_line(shown_id(value))
    return text if len(text) <= LONGEST_ID else text[: LONGEST_ID - 1] + "…"


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces every known secret in a text, whoever logs it."""
    longest_first = sorted(filter(None, secrets), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")  # matches nothing
    return functools.partial(pattern.sub, "***")


class _Formatter(logging.Formatter):
    def __init__(self, redact: Callable[[str], str], *, traces: bool) -> None:
        super().__init__(TEXT, DATE_FORMAT)
        self._redact = redact
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
        """Compose the line, once for file and console unless a stack trace makes them differ."""
        if record.exc_info or record.stack_info:
            return self._line(record)
        known = record.__dict__
        if "line" not in known:
            known["line"] = self._line(record)
        return str(known["line"])

    def _line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError


class TextFormatter(_Formatter):
    """Lines such as `2026-03-01 08:00:00 - INFO - …`, with stack traces below them if wanted."""

    def _line(self, record: logging.LogRecord) -> str:
        if not self._traces and (record.exc_info or record.stack_info):
            record = logging.makeLogRecord(
                {**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None}
            )
        return self._redact(logging.Formatter.format(self, record))


class JsonFormatter(_Formatter):
    """One object per line: `time`, `level`, `event`, `message`, `pid` and the known facts.

    A stack trace is in `trace`.
    """

    def _line(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": getattr(record, "event", Event.LIBRARY),
            "message": record.getMessage(),
            "pid": record.process,
        }
        if not hasattr(record, "event"):
            line["logger"] = record.name
        line |= {k: v for k, v in getattr(record, "facts", {}).items() if v is not None}
        if self._traces and record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(self._clean(line), ensure_ascii=False)

    def _clean(self, value: object) -> object:
        """What JSON can hold, without secrets; numbers stay even if they look like one."""
        if isinstance(value, str):
            return self._redact(value)
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, dict):
            return {str(name): self._clean(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(inner) for inner in value]
        return self._redact(str(value))

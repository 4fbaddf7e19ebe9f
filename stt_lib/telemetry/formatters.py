"""How a line of the log looks, to a person and to a program; and that no secret is in it."""

import functools
import json
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from stt_lib.telemetry.events import Event

TEXT = "%(asctime)s - %(levelname)s - %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"


class Blotter:
    """Blots every known secret out, whoever put it there."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted({s for s in secrets if s}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class TextFormatter(logging.Formatter):
    """Lines as `2026-03-01 08:00:00 - INFO - …`; stack traces below them, if wanted."""

    def __init__(self, blot: Blotter, *, traces: bool) -> None:
        super().__init__(TEXT, DATE_FORMAT)
        self._blot = blot
        self._traces = traces

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _clock(int(record.created))

    def format(self, record: logging.LogRecord) -> str:
        if not self._traces and (record.exc_info or record.stack_info):
            record = logging.makeLogRecord(
                {**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None}
            )
        return self._blot(super().format(record))


class JsonFormatter(logging.Formatter):
    """One object a line: `time`, `level`, `event`, `message`, `pid`, and the facts that there are.

    A stack trace is inside, as `trace`.
    """

    def __init__(self, blot: Blotter, *, traces: bool) -> None:
        super().__init__()
        self._blot = blot
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
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
        """What JSON can hold, without secrets; numbers stay, that look like one."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {str(name): self._clean(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(inner) for inner in value]
        return self._blot(str(value))


@functools.lru_cache(maxsize=8)
def _clock(second: int) -> str:
    return time.strftime(DATE_FORMAT, time.localtime(second))

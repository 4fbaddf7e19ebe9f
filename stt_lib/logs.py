"""The log: its line formats, where it goes, and what must never be in it."""

import functools
import logging
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tqdm import tqdm

from stt_lib.errors import AttemptError
from stt_lib.model import Outcome, Sequence, Tally

FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
MAX_BYTES = 10_000_000
BACKUPS = 5

log = logging.getLogger("stt")


@functools.lru_cache(maxsize=8)
def _clock(second: int) -> str:
    return time.strftime(DATE_FORMAT, time.localtime(second))


class _Formatter(logging.Formatter):
    """Writes records with every known secret blotted out, whoever put it there."""

    def __init__(self, secrets: Iterable[str], *, traces: bool) -> None:
        super().__init__(FORMAT, DATE_FORMAT)
        self._secrets = sorted({s for s in secrets if s}, key=len, reverse=True)
        self._traces = traces

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _clock(int(record.created))

    def format(self, record: logging.LogRecord) -> str:
        if not self._traces and (record.exc_info or record.stack_info):
            record = logging.makeLogRecord(
                {**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None}
            )
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _File(RotatingFileHandler):
    """Rotates once the file is full, without formatting each record twice to know it before."""

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        return int(self.stream is not None and self.stream.tell() >= self.maxBytes)


class _Console(logging.Handler):
    """Writes above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if sys.stderr.isatty():
                tqdm.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - a closed terminal must not end the run
            self.handleError(record)


def set_up(file: Path | None, secrets: Iterable[str] = ()) -> None:
    """Log to `file` (with stack traces) and to the console (without), or to the console only.

    A file that cannot be written is a warning, not an end.
    """
    tear_down()
    secrets = tuple(secrets)
    console = _Console()
    console.setFormatter(_Formatter(secrets, traces=file is None))
    log.addHandler(console)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.raiseExceptions = False
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _File(file, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
    except OSError as error:
        log.warning("No log file: %s cannot be written (%s)", file, error.strerror or error)
        return
    handler.setFormatter(_Formatter(secrets, traces=True))
    log.addHandler(handler)


def tear_down() -> None:
    """Close what `set_up` opened."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def total_pending(chunks: int) -> None:
    log.info("Total pending chunks: %d", chunks)


def workers(count: int) -> None:
    log.info("Using %d parallel worker(s)", count)


def processing(sequence: Sequence) -> None:
    log.info(
        "Processing sequence: %s | %d chunks | ID: %s",
        _moment(sequence.start),
        len(sequence),
        _one_line(sequence.original_id),
    )


def completed(sequence: Sequence, seconds: float, outcome: Outcome) -> None:
    log.info(
        "Completed sequence: %s | %d chunks | %.2fs | %s",
        _moment(sequence.start),
        len(sequence),
        seconds,
        outcome,
    )


def failed(sequence: Sequence, seconds: float, error: BaseException) -> None:
    """Log a failure with its stack trace."""
    kind = f" [{error.kind}]" if isinstance(error, AttemptError) else ""
    log.error(
        "Error processing sequence at %s after %.2fs: %s%s",
        _moment(sequence.start),
        seconds,
        error,
        kind,
        exc_info=error,
    )


def skipped(sequence: Sequence, why: str) -> None:
    log.warning(
        "Skipped sequence: %s | %d chunks | %s", _moment(sequence.start), len(sequence), why
    )


def totals(tally: Tally, seconds: float, *, unfinished: int) -> None:
    """The last line of a run; `unfinished` sequences were begun and given back."""
    log.info(
        "Finished: %d sequences in %.1fs | %s%s",
        tally.attempted,
        seconds,
        f"{counts(tally)} skipped={tally[Outcome.SKIPPED]}",
        f" | {unfinished} given back" if unfinished else "",
    )


def counts(tally: Tally) -> str:
    """The outcomes as bar and log show them."""
    return (
        f"transcribed={tally[Outcome.TRANSCRIBED]} empty={tally[Outcome.EMPTY]} "
        f"errors={tally[Outcome.ERROR]}"
    )


def _moment(start: datetime | None) -> str:
    """The wall clock of whoever reads the log, like the time at the start of its lines."""
    return "unknown time" if start is None else start.astimezone().strftime(DATE_FORMAT)


def _one_line(original_id: object) -> str:
    """An id may be any value, but never more than a piece of a line."""
    text = "".join(c if c.isprintable() else "?" for c in str(original_id))
    return text if len(text) <= 100 else text[:99] + "…"

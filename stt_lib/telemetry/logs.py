"""The run's log: where it goes, and the sentences that several modules share."""

import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from tqdm import tqdm

from stt_lib.domain.models import Chunk, ChunkSequence, Outcome, Tally
from stt_lib.domain.units import counted
from stt_lib.errors import AttemptError, FailureKind
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.formatters import (
    JsonFormatter,
    TextFormatter,
    local_time,
    redactor,
    short_id,
)
from stt_lib.telemetry.rotation import RotatedFile

MAX_BYTES: Final = 10_000_000
"""Bytes. Size at which the log file is rotated."""

BACKUPS: Final = 5
"""Rotated log files to keep."""

log = logging.getLogger("stt")

_installed: list[logging.Handler] = []


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


def set_up(
    file: Path | None,
    secrets: Iterable[str] = (),
    *,
    format: Literal["text", "json"] = "text",  # noqa: A002 - what it is called everywhere
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Log to `file`, with stack traces, and to the console, without; or to the console only.

    `verbose` adds details for debugging; `quiet` reduces the console to warnings and errors.
    Warnings of libraries are logged as well. A file that cannot be written causes a warning.
    """
    tear_down()
    redact = redactor(secrets)
    formatter = JsonFormatter if format == "json" else TextFormatter
    _install(
        _Console(logging.WARNING if quiet else logging.NOTSET),
        formatter(redact, traces=file is None),
    )
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    if file is None:
        return
    try:
        _install(RotatedFile(file, MAX_BYTES, BACKUPS), formatter(redact, traces=True))
    except OSError as error:
        cannot_write("log file", file, error)


def cannot_write(what: str, file: Path, error: OSError) -> None:
    """Warn about a report that is lost; the run goes on."""
    reason = error.strerror or error
    text = "No %s: %s cannot be written (%s)"
    log.warning(text, what, file, reason, extra=Event.LOG_TROUBLE.of())


def _install(handler: logging.Handler, formatter: logging.Formatter) -> None:
    """Attach it to the root logger, so that messages of libraries are formatted as well."""
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    _installed.append(handler)


def tear_down() -> None:
    """Close what `set_up` opened."""
    logging.captureWarnings(False)
    while _installed:
        handler = _installed.pop()
        logging.getLogger().removeHandler(handler)
        handler.close()


def total_pending(chunks: int) -> None:
    log.info("Total pending chunks: %d", chunks, extra=Event.PENDING.of(chunks=chunks))


def total_again(transcripts: int) -> None:
    none = "" if transcripts else ": none matches --retranscribe"
    facts = Event.PENDING.of(transcripts=transcripts)
    log.info("Total transcripts to replace: %d%s", transcripts, none, extra=facts)


def left_alone(transcripts: int, why: str) -> None:
    facts = Event.LEFT_ALONE.of(transcripts=transcripts, why=why)
    log.info("Left as they are: %s %s", counted(transcripts, "transcript"), why, extra=facts)


def endless() -> None:
    log.warning(
        "The new transcripts still match --retranscribe, so the next such run would replace them"
        " again: name the server's model with --model if the server does not report it",
        extra=Event.LEFT_ALONE.of(),
    )


def workers(count: int) -> None:
    log.info("Using %d parallel worker(s)", count, extra=Event.STARTED.of(workers=count))


def out_of_time(seconds_left: float, needed: float) -> None:
    """The end of `--max-runtime` is so near that no more work is started."""
    end = datetime.now().astimezone() + timedelta(seconds=seconds_left)
    text = "Starting no more work: this run must end by %s, and a sequence takes about %.0f s"
    facts = Event.OUT_OF_TIME.of(seconds=round(needed, 3))
    log.info(text, f"{end:%H:%M:%S}", needed, extra=facts)


def stopping(seconds: float) -> None:
    facts = Event.STOPPING.of()
    text = "Stopping: requests in flight get up to %g s to finish"
    log.info(text, round(seconds, 1), extra=facts)


def processing(sequence: ChunkSequence) -> None:
    text = f"Processing sequence: {_brief(sequence)} | ID: {short_id(sequence.original_id)}"
    _log(logging.INFO, text, Event.PROCESSING, sequence)


def completed(sequence: ChunkSequence, seconds: float, outcome: Outcome) -> None:
    text = f"Completed sequence: {_brief(sequence)} | {seconds:.2f}s | {outcome}"
    took = round(seconds, 3)
    _log(logging.INFO, text, Event.COMPLETED, sequence, seconds=took, outcome=outcome)


def failed(
    sequence: ChunkSequence, seconds: float, error: BaseException, chunk_id: object = None
) -> None:
    """Log a failure with its stack trace; `chunk_id` names the one chunk that is at fault."""
    _log(
        logging.ERROR,
        f"Error processing sequence at {local_time(sequence.start)} after {seconds:.2f}s: {error}",
        Event.FAILED,
        sequence,
        error,
        seconds=round(seconds, 3),
        outcome=Outcome.ERROR,
        kind=error.kind if isinstance(error, AttemptError) else FailureKind.INTERNAL,
        chunk=None if chunk_id is None else short_id(chunk_id),
        server=getattr(error, "server", None),
    )


def cut_off(sequence: ChunkSequence, chunk: Chunk) -> None:
    name = short_id(chunk.id)
    text = f"Chunk {name} is cut off or damaged: only its first {chunk.seconds:.1f} s can be heard"
    _log(logging.WARNING, text, Event.CUT_OFF, sequence, chunk=name)


def skipped(sequence: ChunkSequence, why: str) -> None:
    text = f"Skipped sequence: {_brief(sequence)} | {why}"
    _log(logging.WARNING, text, Event.SKIPPED, sequence, outcome=Outcome.SKIPPED)


def retrying(sequence: ChunkSequence, attempt: int, error: AttemptError) -> None:
    """A request failed for the `attempt`th time and is sent once more."""
    start = local_time(sequence.start)
    text = f"Attempt {attempt} at sequence {start} failed, trying again: {error}"
    facts: dict[str, Any] = {"attempt": attempt, "kind": error.kind, "server": error.server}
    _log(logging.WARNING, text, Event.RETRYING, sequence, **facts)


def totals(tally: Tally, seconds: float, *, unfinished: int) -> None:
    """The last line of a run; `unfinished` sequences were started and given back."""
    log.info(
        "Finished: %s in %.1fs | %s skipped=%d%s",
        counted(tally.attempted, "sequence"),
        seconds,
        counts(tally),
        tally[Outcome.SKIPPED],
        f" | {unfinished} given back" if unfinished else "",
        extra=Event.FINISHED.of(
            seconds=round(seconds, 3), sequences=dict(tally.counts), given_back=unfinished
        ),
    )


def counts(tally: Tally) -> str:
    """The outcomes as bar and log show them."""
    return (
        f"transcribed={tally[Outcome.TRANSCRIBED]} empty={tally[Outcome.EMPTY]} "
        f"errors={tally[Outcome.ERROR]}"
    )


def _brief(sequence: ChunkSequence) -> str:
    return f"{local_time(sequence.start)} | {len(sequence)} chunks"


def _log(
    level: int,
    text: str,
    event: Event,
    sequence: ChunkSequence,
    error: BaseException | None = None,
    **facts: object,
) -> None:
    """Log a sentence about a sequence, with what programs want to know about it."""
    start = sequence.start
    about = {
        "sequence": None if start is None else start.astimezone(UTC).isoformat(),
        "recording": short_id(sequence.original_id),
        "chunks": len(sequence),
    }
    log.log(level, "%s", text, exc_info=error, extra=event.of(**about, **facts))

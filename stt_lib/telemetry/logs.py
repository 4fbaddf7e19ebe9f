"""The run's log: where it goes, and the sentences that several modules share."""

import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from tqdm import tqdm

from stt_lib.domain.models import ChunkSequence, Outcome, Tally
from stt_lib.domain.units import counted
from stt_lib.errors import AttemptError, FailureKind
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.formatters import (
    JsonFormatter,
    Redactor,
    TextFormatter,
    local_time,
    short_id,
)
from stt_lib.telemetry.rotation import RotatedFile

MAX_BYTES: Final = 10_000_000
"""Bytes. Size from which the log file is rotated."""

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
    redact = Redactor(secrets)
    formatter = JsonFormatter if format == "json" else TextFormatter
    console = _Console(logging.WARNING if quiet else logging.NOTSET)
    console.setFormatter(formatter(redact, traces=file is None))
    _install(console)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False
    if file is None:
        return
    try:
        handler = RotatedFile(file, MAX_BYTES, BACKUPS)
    except OSError as error:
        cannot_write("log file", file, error)
        return
    handler.setFormatter(formatter(redact, traces=True))
    _install(handler)


def cannot_write(what: str, file: Path, error: OSError) -> None:
    """Warn about a report that is lost; the run goes on."""
    log.warning(
        "No %s: %s cannot be written (%s)",
        what,
        file,
        error.strerror or error,
        extra=Event.LOG_TROUBLE.of(),
    )


def _install(handler: logging.Handler) -> None:
    """Attach it to the root logger, so that messages of libraries are formatted as well."""
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
    log.info(
        "No more work is started: this run is to end by %s, and a sequence takes about %.0f s",
        f"{end:%H:%M:%S}",
        needed,
        extra=Event.OUT_OF_TIME.of(seconds=round(needed, 3)),
    )


def stopping(grace: float) -> None:
    log.info(
        "Stopping: requests in flight get up to %g s to finish",
        grace,
        extra=Event.STOPPING.of(),
    )


def processing(sequence: ChunkSequence) -> None:
    log.info(
        "Processing sequence: %s | %d chunks | ID: %s",
        local_time(sequence.start),
        len(sequence),
        short_id(sequence.original_id),
        extra=Event.PROCESSING.of(**_facts(sequence)),
    )


def completed(sequence: ChunkSequence, seconds: float, outcome: Outcome) -> None:
    log.info(
        "Completed sequence: %s | %d chunks | %.2fs | %s",
        local_time(sequence.start),
        len(sequence),
        seconds,
        outcome,
        extra=Event.COMPLETED.of(**_facts(sequence), seconds=round(seconds, 3), outcome=outcome),
    )


def failed(
    sequence: ChunkSequence, seconds: float, error: BaseException, chunk_id: object = None
) -> None:
    """Log a failure with its stack trace; `chunk_id` names the one chunk that is at fault."""
    kind = error.kind if isinstance(error, AttemptError) else FailureKind.INTERNAL
    log.error(
        "Error processing sequence at %s after %.2fs: %s",
        local_time(sequence.start),
        seconds,
        error,
        exc_info=error,
        extra=Event.FAILED.of(
            **_facts(sequence),
            seconds=round(seconds, 3),
            outcome=Outcome.ERROR,
            kind=kind,
            chunk=None if chunk_id is None else short_id(chunk_id),
            server=getattr(error, "server", None),
        ),
    )


def skipped(sequence: ChunkSequence, why: str) -> None:
    log.warning(
        "Skipped sequence: %s | %d chunks | %s",
        local_time(sequence.start),
        len(sequence),
        why,
        extra=Event.SKIPPED.of(**_facts(sequence), outcome=Outcome.SKIPPED),
    )


def retrying(sequence: ChunkSequence, attempt: int, error: AttemptError) -> None:
    """A request failed for the `attempt`th time and is sent once more."""
    log.warning(
        "Attempt %d at sequence %s failed, trying again: %s",
        attempt,
        local_time(sequence.start),
        error,
        extra=Event.RETRYING.of(
            **_facts(sequence), attempt=attempt, kind=error.kind, server=error.server
        ),
    )


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


def _facts(sequence: ChunkSequence) -> dict[str, object]:
    start = sequence.start
    return {
        "sequence": None if start is None else start.astimezone(UTC).isoformat(),
        "recording": short_id(sequence.original_id),
        "chunks": len(sequence),
    }

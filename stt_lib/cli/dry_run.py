"""`--dry-run`: what a run would do, in order, without touching anything."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Final

from stt_lib.cli.rendering import about, age, audio, counted
from stt_lib.config.settings import Settings
from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, ChunkSequence
from stt_lib.pipeline.sources import Source
from stt_lib.reports.status import Status, look
from stt_lib.store import Store

_HEAD: Final = f"{'#':>7}  {'start':<19}  {'chunks':>6}  {'audio':>6}  {'done in':>20}  recording"


def rehearse(store: Store, source: Source, settings: Settings) -> None:
    """Print the sequences that a run would take, and what they come to.

    They are printed as they are found: a long backlog needs no memory.
    """
    status = look(store)
    store.with_retries(lambda: _print(_lines(source, status, settings, store)))


def _print(lines: Iterator[str]) -> None:
    try:
        for line in lines:
            print(line)
    except BrokenPipeError:
        pass  # whoever reads, as head does, has seen enough


def _lines(source: Source, status: Status, settings: Settings, store: Store) -> Iterator[str]:
    chunks, seconds, number = 0, 0.0, 0
    planned = source.sequences(run_started=store.now(), excluding=frozenset())
    for number, sequence in enumerate(islice(planned, settings.limit), 1):
        if number == 1:
            yield _HEAD
        chunks += len(sequence)
        seconds += _seconds(sequence)
        yield _line(number, sequence, _needed(seconds, status))
    yield "" if number else "Nothing to do."
    if number:
        yield (
            f"{counted(number, 'sequence')}, {counted(chunks, 'chunk')}, {audio(seconds)} of audio"
            f"{_end(seconds, status)}. Nothing was touched."
        )


def _line(number: int, sequence: ChunkSequence, needed: timedelta | None) -> str:
    start = sequence.start
    columns = (
        f"{number:>7}",
        "unknown time".ljust(19) if start is None else f"{start.astimezone():%Y-%m-%d %H:%M:%S}",
        f"{len(sequence):>6}",
        f"{audio(_seconds(sequence)):>6}",
        f"{'unknown' if needed is None else age(needed):>20}",
        _plain(sequence.original_id),
    )
    will_fail = f"  (will fail: {sequence.problem.message})" if sequence.problem else ""
    return "  ".join(columns) + will_fail


def _seconds(sequence: ChunkSequence) -> float:
    """The audio itself is not read, so that its chunks count as long as an ingester cuts them."""
    return len(sequence) * NOMINAL_CHUNK_SECONDS


def _needed(seconds: float, status: Status) -> timedelta | None:
    return timedelta(seconds=seconds / status.speed) if status.speed else None


def _end(seconds: float, status: Status) -> str:
    needed = _needed(seconds, status)
    if needed is None:
        return "; how long that takes is unknown, for nothing was transcribed lately"
    return f"; done in {about(needed)} at the speed of the {status.speed_of}"


def _plain(recording: object) -> str:
    """An id may be any value; what is printed is one line."""
    return "".join(c if c.isprintable() else "?" for c in str(recording))[:100]

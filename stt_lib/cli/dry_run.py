"""`--dry-run`: what a run would do, in order, without changing anything."""

from datetime import timedelta
from itertools import islice
from typing import Final

from stt_lib.config.settings import Settings
from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, ChunkSequence
from stt_lib.domain.units import about, age, audio, counted
from stt_lib.pipeline.sources import Source
from stt_lib.reports.status import Status, look
from stt_lib.store import Store
from stt_lib.telemetry.formatters import local_time, short_id

_HEAD: Final = f"{'#':>7}  {'start':<19}  {'chunks':>6}  {'audio':>6}  {'done in':>20}  recording"


def rehearse(store: Store, source: Source, settings: Settings) -> None:
    """Print the sequences that a run would process, and their total."""
    status = look(store)
    store.with_retries(lambda: _print(source, status, settings, store))


def _print(source: Source, status: Status, settings: Settings, store: Store) -> None:
    """Print each sequence as it is found, so that a long backlog needs no memory."""
    chunks, seconds, number = 0, 0.0, 0
    needed: timedelta | None = None
    planned = source.sequences(run_started=store.now(), excluding=frozenset())
    for number, sequence in enumerate(islice(planned, settings.limit), 1):
        if number == 1:
            print(_HEAD)
        chunks += len(sequence)
        seconds += _seconds(sequence)
        needed = timedelta(seconds=seconds / status.speed) if status.speed else None
        print(_line(number, sequence, needed))
    if not number:
        print("Nothing to do.")
        return
    end = "no estimate: nothing was transcribed recently"
    if needed is not None:
        end = f"done in {about(needed)} at the speed of the {status.speed_of}"
    amount = f"{counted(number, 'sequence')}, {counted(chunks, 'chunk')}"
    print(f"\n{amount}, {audio(seconds)} of audio; {end}. Nothing was changed.")


def _line(number: int, sequence: ChunkSequence, needed: timedelta | None) -> str:
    columns = (
        f"{number:>7}",
        local_time(sequence.start).ljust(19),
        f"{len(sequence):>6}",
        f"{audio(_seconds(sequence)):>6}",
        f"{'unknown' if needed is None else age(needed):>20}",
        short_id(sequence.original_id),
    )
    will_fail = f"  (will fail: {sequence.problem.message})" if sequence.problem else ""
    return "  ".join(columns) + will_fail


def _seconds(sequence: ChunkSequence) -> float:
    """An estimate: the audio itself is not read."""
    return len(sequence) * NOMINAL_CHUNK_SECONDS

"""`python -m tests.benchmarks.phantoms`: text where nobody speaks, and words that are lost.

Real sounds and real speech go through `ingest`, the worker and the embedded server, with the
normal filter.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from stt_lib.local.mongod import Mongod
from stt_lib.local.transcriber import BUNDLED_MODEL
from tests.benchmarks import material, tables
from tests.benchmarks.lab import Table
from tests.benchmarks.material import Part
from tests.benchmarks.model import whisper_server
from tests.benchmarks.phantoms import measured
from tests.benchmarks.quality import recordings, ways
from tests.benchmarks.quality.conditions import CLEAN
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.ways import Bench

RESULTS = Path(__file__).parents[1] / "results"


def measure(part: Part, minutes: float, folder: Path) -> Iterator[Table]:
    """Yield the tables of a part, each once it is there."""
    if digits := material.digits(part):
        recording = measured.on_borders(digits, folder)
        [chunks] = ways.ingested([recording]).values()
        yield measured.borders(measured.counted(recording, chunks))
    with Mongod(folder / "mongod") as mongod:
        for model in models():
            with whisper_server(folder, model) as (url, _):
                yield from _heard(Path(model).name, Bench(mongod.uri, url, folder), part, minutes)


def models() -> list[str]:
    """The bundled weights, and multilingual ones if they are there."""
    return [BUNDLED_MODEL, *([str(material.WEIGHTS.folder)] if material.WEIGHTS.is_there else [])]


def _heard(model: str, bench: Bench, part: Part, minutes: float) -> Iterator[Table]:
    if clips := measured.alone(material.clips(part), bench.folder):
        chunks = ways.ingested(clips)
        heard = ways.by_worker("sounds", chunks, ways.as_it_is, bench)
        yield measured.phantoms(model, chunks, heard)
    if answers := measured.alone(material.digits(part), bench.folder):
        chunks = ways.ingested(answers)
        heard = ways.by_worker("answers", chunks, ways.as_it_is, bench)
        yield measured.answers(model, answers, chunks, heard)
    if spoken := list(_spoken(model, part, minutes, bench.folder)):
        heard = ways.by_worker("speech", ways.ingested(spoken), ways.as_it_is, bench)
        yield measured.lost_words(model, spoken, heard)


def _spoken(model: str, part: Part, minutes: float, folder: Path) -> Iterator[Recording]:
    """Real speech in the languages of a model, with pauses in which phantoms could be heard."""
    for voice in material.voices(part):
        if voice.language == "en" or model != BUNDLED_MODEL:
            yield from recordings.built(voice, part, CLEAN, 0, minutes, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.phantoms", description=__doc__
    )
    parser.add_argument("--held-out", action="store_true", help="the part to be measured once")
    parser.add_argument("--minutes", type=float, default=60.0, help="of speech of each voice")
    parser.add_argument("--out", type=Path, help="the JSON file")
    given = parser.parse_args(arguments)
    part = Part.HELD_OUT if given.held_out else Part.CHOOSE
    out = given.out or RESULTS / f"phantoms-{part}.json"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    before = os.getloadavg()[0]
    for line in material.missing():
        print(line)
    done: dict[str, Table] = {}
    with tempfile.TemporaryDirectory(prefix="stt-phantoms-") as name:
        for table in measure(part, given.minutes, Path(name)):
            done[table.title] = table
            print(tables.text(table), flush=True)
            about = {"part": part, "minutes": given.minutes}
            tables.save(out, done, about, (before, os.getloadavg()[0]))
    print(f"\nWritten to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

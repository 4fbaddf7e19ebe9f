"""`python -m tests.benchmarks.quality`: is our text as good as that of the whole recording?

Every recording is transcribed in five ways by the same model: whole; whole once more, but as it is
stored, so that what the coding of chunks costs is not taken for the cutting; by our worker as it
is; cut after 30 chunks without a neighbour's context; and chunk by chunk.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from stt_lib.domain.models import NewChunk
from stt_lib.local.ingest import CHUNK_SECONDS, SAMPLES
from stt_lib.local.mongod import Mongod
from tests.benchmarks import tables
from tests.benchmarks.lab import Table
from tests.benchmarks.model import whisper_server
from tests.benchmarks.quality import recordings, report, ways
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.ways import Bench, Texts

RESULTS = Path(__file__).parents[1] / "results" / "quality.json"


def chosen(folder: Path, *, quick: bool) -> list[Recording]:
    """The samples, and recordings joined of them and of LibriVox' sentences."""
    made = [recordings.sample(file.stem) for file in SAMPLES]
    if read := recordings.sentences():
        made.append(recordings.joined("librivox-5", read, 5, recordings.short, folder))
        if not quick:
            join = partial(recordings.joined, folder=folder)
            made += [
                join("librivox-15", read, 15, recordings.short),
                join("librivox-30", read, 30, recordings.short),
                join("librivox-pauses-15", read, 15, recordings.thinking),
            ]
    if not quick:
        spoken = recordings.all_samples()
        made.append(recordings.joined("samples-15", spoken, 15, recordings.short, folder))
    return made


def transcribe(
    found: Sequence[Recording],
    chunks: Mapping[str, Sequence[NewChunk]],
    bench: Bench,
    options: Sequence[str],
) -> dict[str, Texts]:
    """All recordings in all ways."""
    texts: dict[str, Texts] = {}
    for way, transcribed in (
        (report.WHOLE, partial(ways.whole, found, bench)),
        (report.STORED, partial(ways.whole_as_stored, chunks, bench)),
        (report.OURS, partial(ways.by_worker, "ours", chunks, ways.as_it_is, bench, options)),
        (report.CUT, partial(ways.by_worker, "cut", chunks, ways.in_thirties, bench)),
        (report.SINGLE, partial(ways.by_worker, "single", chunks, ways.one_by_one, bench)),
    ):
        print(f"transcribing: {way}", flush=True)
        texts[way] = transcribed()
    return texts


def compare(
    found: Sequence[Recording],
    chunks: Mapping[str, Sequence[NewChunk]],
    texts: Mapping[str, Texts],
) -> list[Table]:
    """The tables."""
    scores = report.scores(found, texts)
    minutes = {name: len(made) * CHUNK_SECONDS / 60 for name, made in chunks.items()}
    return [report.error_rates(scores, minutes), report.at_the_seams(scores)]


def save_texts(path: Path, texts: Mapping[str, Texts]) -> None:
    """Keep the texts, to see where they differ."""
    plain = {
        way: {name: [asdict(part) for part in parts] for name, parts in by_name.items()}
        for way, by_name in texts.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quality", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="RECORDING", help="only these recordings")
    parser.add_argument("--quick", action="store_true", help="the samples and five minutes more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    parser.add_argument(
        "--stt", action="append", default=[], metavar="OPTION", help="as --stt=--bridge=2, for ours"
    )
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="stt-quality-") as name:
        folder = Path(name)
        found = chosen(folder, quick=given.quick)
        if given.names:
            known = {recording.name: recording for recording in found}
            if unknown := set(given.names) - set(known):
                parser.error(f"there is no {min(unknown)}: choose from {', '.join(known)}")
            found = [known[name] for name in given.names]
        with Mongod(folder / "mongod") as mongod, whisper_server(folder) as (url, _):
            chunks = ways.ingested(found)
            texts = transcribe(found, chunks, Bench(mongod.uri, url, folder), given.stt)
    save_texts(given.out.with_suffix(".texts.json"), texts)
    done = compare(found, chunks, texts)
    for table in done:
        print(tables.text(table))
    if not recordings.LIBRIVOX.exists():
        print(f"\n{recordings.MISSING}")
    about = {"recordings": [recording.name for recording in found], "options": given.stt}
    load = (before, os.getloadavg()[0])
    tables.save(given.out, {table.title: table for table in done}, about, load)
    print(f"\nWritten to {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

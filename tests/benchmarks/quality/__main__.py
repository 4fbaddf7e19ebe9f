"""`python -m tests.benchmarks.quality`: is our text as good as that of the whole recording?

Real sentences are joined to recordings, and transcribed by the same model in at least two ways:
the whole file in one request, and by stt from `ingest` to the stitched transcript.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from stt_lib.local.mongod import Mongod
from stt_lib.local.transcriber import BUNDLED_MODEL
from tests.benchmarks import material, tables
from tests.benchmarks.material import Part, Voice
from tests.benchmarks.model import whisper_server
from tests.benchmarks.quality import recordings, report, ways
from tests.benchmarks.quality.conditions import CLEAN, CONDITIONS, Condition
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.report import Result
from tests.benchmarks.quality.ways import Bench, Texts

RESULTS = Path(__file__).parents[1] / "results"
BUILDS = 5
"""Count. Builds of the clean recordings; the other conditions are built once."""

EXTRA = (report.LIBRARY, report.STORED, report.CUT, report.SINGLE)


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    part: Part
    conditions: Sequence[Condition]
    builds: int
    minutes: float
    languages: Sequence[str] = ()
    extra: Sequence[str] = ()
    options: Sequence[str] = ()

    @property
    def turns(self) -> Iterator[tuple[Condition, int]]:
        for condition in self.conditions:
            for build in range(self.builds if condition is CLEAN else 1):
                yield condition, build


def model_of(language: str) -> str:
    """The weights for a language: the bundled ones speak English only."""
    return BUNDLED_MODEL if language == "en" else str(material.WEIGHTS.folder)


def speakers(plan: Plan) -> list[Voice]:
    """The voices whose language is wanted and has a model."""
    return [
        voice
        for voice in material.voices(plan.part)
        if voice.language in (plan.languages or [voice.language])
        and (voice.language == "en" or material.WEIGHTS.is_there)
    ]


def measure(plan: Plan, folder: Path) -> Iterator[Result]:
    """Transcribe everything; a language is done with one server."""
    by_language = groupby(sorted(speakers(plan), key=_language), key=_language)
    with Mongod(folder / "mongod") as mongod:
        for language, voices in by_language:
            spoken = list(voices)
            with whisper_server(folder, model_of(language)) as (url, _):
                bench = Bench(mongod.uri, url, folder)
                for condition, build in plan.turns:
                    found = list(_built(spoken, plan, condition, build, folder))
                    print(f"{language}: {condition.name}, build {build + 1}", flush=True)
                    texts = transcribed(found, model_of(language), plan, bench)
                    for recording in found:
                        yield report.result(recording, condition.name, build, texts)


def _language(voice: Voice) -> str:
    return voice.language


def _built(
    voices: Sequence[Voice], plan: Plan, condition: Condition, build: int, folder: Path
) -> Iterator[Recording]:
    for voice in voices:
        yield from recordings.built(voice, plan.part, condition, build, plan.minutes, folder)


def transcribed(
    found: Sequence[Recording], model: str, plan: Plan, bench: Bench
) -> dict[str, Texts]:
    """All recordings in all ways."""
    chunks = ways.ingested(found)
    by_worker = partial(ways.by_worker, chunks=chunks, bench=bench)
    texts = {
        report.WHOLE: ways.whole(found, bench),
        report.OURS: by_worker("ours", cutting=ways.as_it_is, options=plan.options),
    }
    if report.LIBRARY in plan.extra:
        texts[report.LIBRARY] = ways.by_library(found, model)
    if report.STORED in plan.extra:
        texts[report.STORED] = ways.whole_as_stored(chunks, bench)
    if report.CUT in plan.extra:
        texts[report.CUT] = by_worker("cut", cutting=ways.in_thirties)
    if report.SINGLE in plan.extra:
        texts[report.SINGLE] = by_worker("single", cutting=ways.one_by_one)
    return texts


def in_order(results: Sequence[Result]) -> list[Result]:
    """By condition, then by build."""
    names = [condition.name for condition in CONDITIONS]
    return sorted(results, key=lambda found: (names.index(found.condition), found.build))


def planned(arguments: Sequence[str] | None = None) -> tuple[Plan, Path]:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quality", description=__doc__)
    names = [condition.name for condition in CONDITIONS]
    parser.add_argument(
        "conditions", nargs="*", metavar="CONDITION", help=f"only these: {', '.join(names)}"
    )
    parser.add_argument("--held-out", action="store_true", help="the part to be measured once")
    parser.add_argument("--builds", type=int, default=BUILDS, help="of the clean recordings")
    parser.add_argument("--minutes", type=float, default=60.0, help="of speech of each voice")
    parser.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="as en: only this"
    )
    parser.add_argument("--way", action="append", default=[], choices=EXTRA, help="one more way")
    parser.add_argument(
        "--stt", action="append", default=[], metavar="OPTION", help="as --stt=--filter=off"
    )
    parser.add_argument("--out", type=Path, help="the JSON file")
    given = parser.parse_args(arguments)
    if unknown := set(given.conditions) - set(names):
        parser.error(f"there is no {min(unknown)}: choose from {', '.join(names)}")
    part = Part.HELD_OUT if given.held_out else Part.CHOOSE
    wanted = [c for c in CONDITIONS if c.name in (given.conditions or names)]
    able = [condition for condition in wanted if condition.is_available(part)]
    much = (given.builds, given.minutes, given.language)
    plan = Plan(part, able, *much, given.way, given.stt)
    return plan, given.out or RESULTS / f"quality-{part}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    plan, out = planned(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    before = os.getloadavg()[0]
    for line in material.missing():
        print(line)
    with tempfile.TemporaryDirectory(prefix="stt-quality-") as name:
        results = in_order(list(_kept(measure(plan, Path(name)), out)))
    if not results:
        print("There is no speech to measure: make bench-material")
        return 1
    done = [
        report.error_rates(results),
        report.builds(results),
        report.first_words(results),
        report.at_the_seams(results),
    ]
    for table in done:
        print(tables.text(table))
    about = {"part": plan.part, "builds": plan.builds, "minutes": plan.minutes, "stt": plan.options}
    load = (before, os.getloadavg()[0])
    tables.save(out, {table.title: table for table in done}, about, load)
    print(f"\nWritten to {out}")
    return 0


def _kept(results: Iterator[Result], out: Path) -> Iterator[Result]:
    """Write each result down once it is there, to see where texts differ."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".texts.jsonl").open("w") as file:
        for found in results:
            plain = asdict(found)
            for way, heard in found.scores.items():
                plain["scores"][way] = {
                    "percent": heard.percent,
                    "errors": heard.errors_by_sentence,
                    "words": heard.words_by_sentence,
                    "heard": " ".join(heard.heard),
                }
            file.write(json.dumps(plain) + "\n")
            file.flush()
            yield found


if __name__ == "__main__":
    sys.exit(main())

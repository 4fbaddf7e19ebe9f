"""The measurement of quality: its arithmetic, and one short recording all the way."""

import random
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from stt_lib.local.mongod import Mongod
from tests.benchmarks import tables
from tests.benchmarks.model import whisper_server
from tests.benchmarks.quality import recordings, report, ways
from tests.benchmarks.quality.scoring import Part, score, seams

SAID = "the heron took three slow steps looked into the water and caught a fish"
FIRST, SECOND = SAID.split(" looked ")


def judged(before: str, after: str) -> tuple[int, int, int]:
    """Extra, lost and misheard words where two parts meet; the whole recording was heard well."""
    ours = score(SAID, [Part(0, 29, before), Part(30, 35, after)])
    [seam] = seams(ours, score(SAID, [Part(0, 0, SAID)]))
    return seam.extra, seam.lost, seam.misheard


def test_a_clean_seam() -> None:
    assert judged(FIRST, f"Looked {SECOND}!") == (0, 0, 0)


def test_words_said_twice_are_extra() -> None:
    assert judged(f"{FIRST} looked into the", f"looked into the {SECOND[9:]}") == (3, 0, 0)


def test_words_that_no_part_has_are_lost() -> None:
    assert judged("the heron took three", f"looked {SECOND}") == (0, 2, 0)


def test_half_a_word_on_either_side_is_misheard_and_extra() -> None:
    assert judged(f"{FIRST} loo", f"ked {SECOND}") == (1, 0, 1)


def test_errors_that_the_whole_recording_has_too_are_not_the_seams() -> None:
    first, second = "the heron took three low looked", f"looked {SECOND}"
    ours = score(SAID, [Part(0, 29, first), Part(30, 35, second)])
    [seam] = seams(ours, score(SAID, [Part(0, 0, f"{first} {second}")]))
    assert seam.is_clean
    assert ours.errors == 2


def test_a_pause_is_no_seam() -> None:
    parted = score(SAID, [Part(0, 3, FIRST), Part(5, 6, f"looked {SECOND}")])
    assert parted.seams == ()
    assert parted.percent == 0


def test_nothing_heard_is_everything_lost() -> None:
    assert score(SAID, []).percent == 100


def test_a_name_makes_the_same_recording_again(tmp_path: Path) -> None:
    sound = np.ones(16_000, np.float32)
    spoken = [recordings.Utterance(sound, f"number {number}") for number in range(3)]
    made = [recordings.joined("again", spoken, 0.3, recordings.short, tmp_path) for _ in range(2)]
    assert made[0] == made[1]
    texts = made[0].reference.split("number ")[1:]
    assert 8 <= len(texts) <= 15
    assert all(a != b for a, b in pairwise(texts))
    assert any(recordings.thinking(random.Random(seed)) > 9 for seed in range(30))


def test_one_recording_in_four_ways(mongod: Mongod, tmp_path: Path) -> None:
    sample = recordings.sample("library")
    chunks = ways.ingested([sample])
    in_pairs = partial(ways.in_thirties, size=2)
    with whisper_server(tmp_path) as (url, _):
        bench = ways.Bench(mongod.uri, url, tmp_path)
        texts = {
            report.WHOLE: ways.whole([sample], bench),
            report.STORED: ways.whole_as_stored(chunks, bench),
            report.OURS: ways.by_worker("ours", chunks, ways.as_it_is, bench),
            report.CUT: ways.by_worker("cut", chunks, in_pairs, bench),
        }
    measured = report.scores([sample], texts)
    assert [(part.first, part.last) for part in texts[report.CUT]["library"]] == [(0, 1), (2, 3)]
    rates = report.error_rates(measured, {"library": 0.6})
    for way in (report.WHOLE, report.STORED, report.OURS):
        assert rates.rows[0][way] < 5, "nothing heard would be 100"
    seams_table = report.at_the_seams(measured)
    assert [(row["way"], row["seams"]) for row in seams_table.rows] == [("cut at 30", 1)]
    assert "recording" in tables.text(seams_table)

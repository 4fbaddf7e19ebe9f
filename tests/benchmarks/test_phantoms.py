"""The filter on what a real model heard, kept from the last measurement."""

import shutil
from pathlib import Path

import pytest

from tests.benchmarks.phantoms import hearing, noises
from tests.benchmarks.phantoms.__main__ import HERE, half, tables
from tests.benchmarks.phantoms.scoring import (
    ALL,
    CONDITIONS,
    FILTERS,
    TEXT,
    Confusion,
    Known,
    confusion,
)

HEARD = sorted(HERE.glob("heard-*.jsonl"))


def counted(file: Path, name: str, known: Known = ALL) -> Confusion:
    return confusion(half(hearing.read(file), 1), FILTERS[name], known)


@pytest.mark.parametrize("file", HEARD, ids=lambda file: file.stem)
def test_with_all_evidence_hardly_a_phantom_stays_and_hardly_a_word_is_lost(file: Path) -> None:
    for name in ("normal", "strict"):
        result = counted(file, name)
        assert result.recall >= 0.97
        assert result.words_lost <= 0.005 * result.words_kept
    assert counted(file, "normal").words_lost <= 0.001 * result.words_kept


@pytest.mark.parametrize("file", HEARD, ids=lambda file: file.stem)
def test_it_beats_the_first_filter_with_whatever_evidence(file: Path) -> None:
    for known in CONDITIONS:
        ours, first = counted(file, "normal", known), counted(file, "the first filter", known)
        assert ours.recall > first.recall
        if known is not TEXT:
            assert ours.true_lost < first.true_lost


def test_the_tables_of_the_readme_are_those_of_the_data() -> None:
    readme = (HERE / "README.md").read_text()
    for file in HEARD:
        for line in tables(file.stem.removeprefix("heard-"), hearing.read(file)):
            assert line.strip() in readme


def test_noise_is_the_same_each_time_and_as_loud_as_asked() -> None:
    for kind in noises.NOISES:
        sound = noises.noise(kind, 7, 4, -30.0)
        assert sound.size == 4 * noises.RATE
        level = float((sound**2).mean() ** 0.5)
        assert 0.02 < level < 0.04
        assert (sound == noises.noise(kind, 7, 4, -30.0)).all()


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="Debian's espeak-ng is not here")
def test_a_voice_speaks() -> None:
    from tests.benchmarks.phantoms.voices import say

    sound = say("espeak-ng en-us 160", "Yes.")
    assert 0.2 < sound.size / noises.RATE < 2
    assert abs(sound).max() == pytest.approx(1.0)

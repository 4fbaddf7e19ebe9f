"""The filter on what a real model heard of synthetic sounds, and how real sounds are measured."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode
from stt_lib.domain.models import NewChunk
from stt_lib.local.mongod import Mongod
from tests.benchmarks.material import Clip, Spoken
from tests.benchmarks.model import whisper_server
from tests.benchmarks.phantoms import hearing, measured, noises
from tests.benchmarks.phantoms.scoring import (
    ALL,
    CONDITIONS,
    FILTERS,
    TEXT,
    Confusion,
    Known,
    confusion,
)
from tests.benchmarks.phantoms.synthetic import HERE, half, tables
from tests.benchmarks.quality import recordings, ways
from tests.benchmarks.quality.recordings import Recording, Sentence
from tests.benchmarks.quality.scoring import Part
from tests.benchmarks.quality.times import Shown
from tests.benchmarks.quality.ways import Heard

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


# -- real sounds ----------------------------------------------------------------------------------


def spoken(seconds: float = 3.0) -> Spoken:
    """The beginning of a recording that comes with stt."""
    return Spoken(recordings.SAMPLES / "library.opus", "the library", (0.0, seconds))


def tone(folder: Path) -> Clip:
    time = np.arange(2 * WHISPER_RATE) / WHISPER_RATE
    sound = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    return Clip("a tone", recordings.saved(folder / "tone.wav", sound, "tone"))


def sound_of(recording: Recording) -> Samples:
    return decode(recording.path.read_bytes(), recording.name)


def heard(text: str, *dropped: Shown) -> Heard:
    return Heard((Part(0, 0, text),), dropped=dropped)


def chunks(*marks: bool) -> Sequence[NewChunk]:
    """Chunks of a recording that are speech or not."""
    [made] = ways.ingested([recordings.sample("library")]).values()
    return [replace(made[0], index=n, has_speech=mark) for n, mark in enumerate(marks)]


def test_a_sound_alone_is_in_whole_chunks_of_a_quiet_room(tmp_path: Path) -> None:
    [made] = measured.alone([spoken()], tmp_path)
    sound = sound_of(made)
    assert sound.size == 10 * WHISPER_RATE
    [said] = made.sentences
    assert abs(sound[: round(said.start * WHISPER_RATE)]).max() < 0.01
    assert abs(sound[round(said.start * WHISPER_RATE) :]).max() > 0.05


def test_words_are_centred_on_borders(tmp_path: Path) -> None:
    made = measured.on_borders([spoken(1.0), spoken(1.5)], tmp_path)
    assert [round((s.start + s.end) / 2, 2) for s in made.sentences] == [20.0, 60.0]
    assert sound_of(made).size == 80 * WHISPER_RATE


def test_borders_are_counted_by_the_chunks_on_either_side() -> None:
    said = tuple(Sentence(at - 0.2, at + 0.2, "two") for at in (10.0, 20.0, 50.0))
    made = Recording("borders", Path(), "en", said)
    found = measured.counted(made, chunks(True, True, False, False, False, False))
    assert (found.both, found.one, found.neither) == (1, 1, 1)
    assert [goal.met for goal in measured.borders(found).goals] == [False, False]


def test_text_of_a_sound_is_counted_before_and_after_the_filter() -> None:
    made = {"left": chunks(True), "dropped": chunks(True), "silent": chunks(False)}
    texts = {
        "left": heard("Thank you."),
        "dropped": heard("", Shown(0, 1, "Bye.")),
        "silent": heard(""),
    }
    [row] = measured.phantoms("tiny", made, texts).rows
    assert (row["sounds"], row["passed"]) == (3, 2)
    assert (row["text before the filter"], row["text left"]) == (2, 1)


def test_dropped_words_are_lost_if_they_were_said_then() -> None:
    said = (Sentence(0, 2, "thank you"), Sentence(20, 22, "see you again"))
    made = Recording("told", Path(), "en", said)
    drops = (Shown(0.1, 1.9, "Thank you."), Shown(10, 11, "Thank you."), Shown(22.5, 23, "Again?"))
    [row] = measured.lost_words("tiny", [made], {"told": heard("", *drops)}).rows
    assert (row["words said"], row["segments dropped"], row["true words lost"]) == (5, 3, 3)


def test_a_voice_and_a_tone_all_the_way(mongod: Mongod, tmp_path: Path) -> None:
    made = measured.alone([spoken(), tone(tmp_path)], tmp_path)
    stored = ways.ingested(made)
    with whisper_server(tmp_path) as (url, _):
        bench = ways.Bench(mongod.uri, url, tmp_path)
        texts = ways.by_worker("sounds", stored, ways.as_it_is, bench)
    [row] = measured.phantoms("tiny.en", stored, texts).rows
    assert (row["sounds"], row["passed"], row["text left"]) == (2, 1, 1)
    answers = measured.answers("tiny.en", made[:1], stored, texts)
    assert (answers.rows[0]["with text"], answers.rows[0]["several words"]) == (1, 1)

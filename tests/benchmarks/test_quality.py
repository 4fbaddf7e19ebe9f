"""The measurement of quality: its arithmetic, and one short recording all the way."""

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode
from stt_lib.local.mongod import Mongod
from tests.benchmarks import tables
from tests.benchmarks.material import Part as Share
from tests.benchmarks.material import Spoken, Voice
from tests.benchmarks.model import whisper_server
from tests.benchmarks.quality import conditions, intervals, recordings, report, times, ways
from tests.benchmarks.quality.conditions import CLEAN, CONDITIONS
from tests.benchmarks.quality.recordings import Sentence
from tests.benchmarks.quality.scoring import Part, score, seams, words
from tests.benchmarks.quality.times import Shown

SAID = "the heron took three slow steps looked into the water and caught a fish"
FIRST, SECOND = SAID.split(" looked ")


def judged(before: str, after: str) -> tuple[int, int, int]:
    """Extra, lost and misheard words where two parts meet; the whole recording was heard well."""
    ours = score([SAID], [Part(0, 29, before), Part(30, 35, after)])
    [seam] = seams(ours, score([SAID], [Part(0, 0, SAID)]))
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
    ours = score([SAID], [Part(0, 29, first), Part(30, 35, second)])
    [seam] = seams(ours, score([SAID], [Part(0, 0, f"{first} {second}")]))
    assert seam.is_clean
    assert ours.errors == 2


def test_a_pause_is_no_seam() -> None:
    parted = score([SAID], [Part(0, 3, FIRST), Part(5, 6, f"looked {SECOND}")])
    assert parted.seams == ()
    assert parted.percent == 0


def test_nothing_heard_is_everything_lost() -> None:
    assert score([SAID], []).percent == 100


def test_words_are_compared_in_whispers_normal_form() -> None:
    assert words("Mr. Smith's colour is twenty-two.") == [
        "mister",
        "smith",
        "is",
        "color",
        "is",
        "22",
    ]
    assert words("L'été, déjà !", "fr") == ["l", "été", "déjà"]


def test_errors_belong_to_the_sentence_in_which_they_are() -> None:
    said = ["one heron took", "three slow steps", "into the lake"]
    heard = score(said, [Part(0, 0, "a heron took three quite slow steps the lake lake")])
    assert heard.words_by_sentence == [3, 3, 3]
    assert heard.errors_by_sentence == [1, 1, 2]
    assert sum(heard.errors_by_sentence) == heard.errors


# -- intervals ------------------------------------------------------------------------------------


def test_an_interval_holds_the_rate_and_narrows_with_more_sentences() -> None:
    errors, said = [0, 1, 0, 2, 0, 0, 1, 0], [10] * 8
    low, high = intervals.interval(errors, said)
    assert low < intervals.points(errors, said) == 5 < high
    closer = intervals.interval(errors * 20, said * 20)
    assert high - low > 3 * (closer[1] - closer[0])
    assert intervals.interval(errors, said) == (low, high), "drawn from a fixed seed"


def test_an_interval_is_about_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(1)
    errors = (rng.random(400) < 0.3).astype(int).tolist()
    low, high = intervals.interval(errors, [1] * 400)
    assert high - low == pytest.approx(2 * 1.96 * 100 * (0.3 * 0.7 / 400) ** 0.5, rel=0.15)


def test_ways_without_a_difference_have_no_interval() -> None:
    assert intervals.interval([0] * 5, [8] * 5) == (0, 0)


# -- times ----------------------------------------------------------------------------------------

TOLD = (
    Sentence(1.0, 3.0, "The heron took three steps.", 1.0),
    Sentence(9.0, 11.0, "It looked into the water.", 6.0),
    Sentence(16.0, 18.0, "And caught a fish.", 5.0),
)


def test_times_of_first_words_are_compared_after_pauses() -> None:
    heard = [
        Shown(1.1, 3.0, "the heron took three steps"),
        Shown(9.25, 11.0, "It looked into the water."),
        Shown(15.0, 18.0, "and caught a fish"),
    ]
    found = times.judged(TOLD, heard, heard)
    assert found.errors == (0.25, -1.0)
    assert (found.unheard, found.subtitles, found.early) == (0, 3, 0)


def test_text_that_goes_on_over_a_pause_has_a_wrong_time_behind_it() -> None:
    heard = [Shown(1.0, 11.0, "The heron took three steps. It looked into the water.")]
    found = times.judged(TOLD, heard, heard)
    assert found.errors == (-8.0,)
    assert found.unheard == 1


def test_a_subtitle_that_is_over_before_its_first_word_is_early() -> None:
    heard = [Shown(3.0, 8.9, "It looked into the water")]
    assert times.judged(TOLD, heard, heard).early == 1
    assert times.judged(TOLD, [], []).errors == ()


# -- recordings -----------------------------------------------------------------------------------


def tone(seconds: float) -> Samples:
    time = np.arange(round(seconds * WHISPER_RATE)) / WHISPER_RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


@pytest.fixture
def voice(tmp_path: Path) -> Voice:
    """Three tones of one to three seconds, with silence around them."""
    said = []
    for number in (1, 2, 3):
        sound = np.pad(tone(number), WHISPER_RATE // 2)
        said.append(
            Spoken(recordings.written(tmp_path / f"{number}.wav", sound), f"number {number}")
        )
    return Voice("tones", "en", tuple(said))


def test_the_times_of_sentences_are_those_of_the_sound(voice: Voice, tmp_path: Path) -> None:
    [made] = recordings.built(voice, Share.CHOOSE, CLEAN, 0, 60, tmp_path)
    sound = decode(made.path.read_bytes(), "made")
    assert [s.end - s.start for s in made.sentences] == pytest.approx([1, 2, 3], abs=0.05)
    for sentence in made.sentences:
        start = round(sentence.start * WHISPER_RATE)
        assert abs(sound[start : start + 800]).max() > 0.1
        assert 0 < abs(sound[start - 800 : start - 320]).max() < 0.01, "quiet, not silent"


def test_sentences_are_repeated_in_a_row_with_their_own_times(voice: Voice) -> None:
    [repeated] = [condition for condition in CONDITIONS if condition.most_times > 1]
    sound, said = recordings.joined(voice.sentences, repeated, random.Random(1))
    texts = [sentence.text for sentence in said]
    assert texts == sorted(texts)
    assert {texts.count(text) for text in texts} <= {1, 2, 3}
    assert len(texts) > len(set(texts)) == 3
    for sentence in said:
        start = round(sentence.start * WHISPER_RATE)
        assert abs(sound[start : start + 800]).max() > 0.1
        assert not sound[start - 800 : start].any()


def test_builds_differ_in_what_nobody_hears_only(voice: Voice, tmp_path: Path) -> None:
    sounds = []
    for build in (0, 1, 0):
        [made] = recordings.built(voice, Share.CHOOSE, CLEAN, build, 60, tmp_path)
        sounds.append(decode(made.path.read_bytes(), "made"))
    assert (sounds[0] == sounds[2]).all()
    assert 0 < abs(sounds[0] - sounds[1]).max() < 10 * recordings.ROOM


def test_a_recording_is_as_long_as_asked(voice: Voice, tmp_path: Path) -> None:
    [made] = recordings.built(voice, Share.CHOOSE, CLEAN, 0, 0.06, tmp_path)
    assert made.texts == ["number 1", "number 2"]


def test_pauses_are_as_the_condition_says() -> None:
    rng = random.Random(1)
    pauses = [conditions.thinking(number, rng) for number in range(600)]
    assert 0.5 <= min(pauses) < max(pauses) <= 20
    assert 60 < sum(pause > 2 for pause in pauses) < 140
    assert conditions.absent(20, rng) == conditions.SILENCE_SECONDS


def test_treatments_change_the_band_and_the_level() -> None:
    quieter = {c.name: c.treat(tone(1), Share.CHOOSE, "tone") for c in CONDITIONS[-3:]}
    assert abs(quieter["-30 dB"]).max() == pytest.approx(0.3 / 31.6, rel=0.01)
    low = np.sin(2 * np.pi * 100 * np.arange(WHISPER_RATE) / WHISPER_RATE).astype(np.float32)
    assert abs(conditions.telephone(low, Share.CHOOSE, "low")).max() < 0.02
    assert abs(quieter["telephone"]).max() == pytest.approx(0.3, rel=0.05)


# -- all the way ----------------------------------------------------------------------------------


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
    cut, ours = texts[report.CUT]["library"], texts[report.OURS]["library"]
    assert [(part.first, part.last) for part in cut.parts] == [(0, 1), (2, 3)]
    assert ours.words[0].start < ours.words[-1].start
    assert 3 < len(ours.subtitles) < 30
    results = [report.result(sample, "clean", build, texts) for build in (0, 1)]
    rates = report.error_rates(results)
    for way in (report.WHOLE, report.STORED, report.OURS):
        assert rates.rows[0][way] < 5, "nothing heard would be 100"
    assert rates.rows[0]["builds"] == 2
    assert report.builds(results).rows[0]["stt s.d."] == 0
    assert report.first_words(results).rows == []
    seams_table = report.at_the_seams(results[:1])
    assert [(row["way"], row["seams"]) for row in seams_table.rows] == [("cut at 30", 1)]
    assert "recording" in tables.text(seams_table)

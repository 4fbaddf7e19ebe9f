"""What is taken for speech."""

import math

import numpy as np
import pytest
from faster_whisper.vad import get_vad_model

from stt_lib.audio.decoding import Samples, decode
from stt_lib.local import vad
from stt_lib.local.vad import has_speech, probabilities, spans
from tests.local.sounds import noise, sample, speech, tone


def speech_probability(sound: Samples) -> float:
    return vad.speech_probability(probabilities([sound]))


def test_hears_real_speech() -> None:
    for start in range(0, 30, 10):
        assert speech_probability(speech(33)[start * 16_000 :][:160_000]) > 0.9


@pytest.mark.parametrize("gain", [0.1, 0.01])
def test_hears_quiet_speech(gain: float) -> None:
    assert has_speech(speech_probability(speech(10) * np.float32(gain)))


def test_hears_one_short_word() -> None:
    sound = np.zeros(160_000, np.float32)
    sound[80_000:86_400] = speech(10)[20_000:26_400]
    assert has_speech(speech_probability(sound))


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(160_000, np.float32),
        np.zeros(10, np.float32),
        np.zeros(0, np.float32),
        noise(10, 1e-4),
        noise(10, 1e-3),
        noise(10, 1e-2),
        tone(10, hertz=50),
        tone(10, hertz=440),
        tone(10, hertz=3000),
    ],
    ids=["silence", "short", "nothing", "-80dB", "-60dB", "-40dB", "hum", "440Hz", "3kHz"],
)
def test_takes_nothing_else_for_speech(sound: Samples) -> None:
    assert not has_speech(speech_probability(sound))


def test_a_click_is_not_speech() -> None:
    sound = noise(10, 1e-3)
    sound[::16_000] = 0.9
    assert not has_speech(speech_probability(sound))


def test_leaves_the_sound_as_it_is() -> None:
    sound = decode(sample("library"), "x")[:160_000]
    before = sound.copy()
    speech_probability(sound)
    assert np.array_equal(sound, before)


def test_the_size_of_the_blocks_makes_no_difference() -> None:
    sound = decode(sample("birds"), "x")
    whole = probabilities([sound])
    blocks = [sound[at : at + 7_001] for at in range(0, sound.size, 7_001)]
    assert np.array_equal(probabilities(blocks), whole)
    assert whole.size == math.ceil(sound.size / vad.WINDOW)
    # Without the last window, in which the library's own call blanks the last samples.
    first = get_vad_model()(sound[: vad.BLOCK]).reshape(-1)[:-1]
    assert whole[: first.size] == pytest.approx(first, abs=1e-4)
    assert probabilities([]).size == 0


@pytest.mark.parametrize("quiet", [20, 60, 120])
def test_a_short_word_after_a_long_silence_is_found(quiet: int) -> None:
    word = decode(sample("phone"), "x")[6_800:16_000]
    sound = noise(quiet + 3, 0.0005)
    sound[quiet * 16_000 :][: word.size] += word
    [span] = spans(probabilities([sound]))
    assert span.start == pytest.approx(quiet, abs=0.3)


def test_finds_the_spans_of_speech() -> None:
    sound = np.zeros(20 * 16_000, np.float32)
    sound[32_000:64_000] = speech(10)[16_000:48_000]
    sound[160_000:166_400] = speech(10)[20_000:26_400]
    first, second = spans(probabilities([sound]))
    assert (first.start, first.end) == pytest.approx((2, 4), abs=0.25)
    assert (second.start, second.end) == pytest.approx((10, 10.4), abs=0.25)
    assert min(first.prob, second.prob) >= vad.THRESHOLD


@pytest.mark.parametrize(
    ("per_window", "expected"),
    [
        ([], []),
        ([0.9] * 20, [(0, 20)]),
        ([0.4] * 20, []),
        ([0.0] * 10 + [0.9] * 2 + [0.0] * 10, []),
        ([0.0] * 5 + [0.9] * 10 + [0.4] * 5 + [0.1] * 10, [(5, 20)]),
        ([0.9] * 10 + [0.1] * 5 + [0.9] * 10, [(0, 25)]),
        ([0.9] * 10 + [0.1] * 6 + [0.9] * 10, [(0, 10), (16, 26)]),
    ],
    ids=["nothing", "all", "below", "click", "fading", "breath", "pause"],
)
def test_a_span_ends_with_a_pause(per_window: list[float], expected: list[tuple[int, int]]) -> None:
    found = spans(np.array(per_window, np.float32))
    windows = [
        (round(s.start * 16_000 / vad.WINDOW), round(s.end * 16_000 / vad.WINDOW)) for s in found
    ]
    assert windows == expected

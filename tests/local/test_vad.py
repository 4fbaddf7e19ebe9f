import numpy as np
import pytest

from stt_lib.audio.decoding import Samples, decode
from stt_lib.local.vad import has_speech, speech_probability
from tests.local.sounds import noise, sample, speech, tone


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

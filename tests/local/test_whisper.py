import numpy as np
import pytest

from stt_lib.errors import ConfigurationError
from stt_lib.local.transcriber import HungUp, Transcriber
from tests.local.sounds import speech


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(parallel=1)


def test_answers_in_the_form_of_the_contract(transcriber: Transcriber) -> None:
    answer = transcriber.transcribe(speech(8), lambda: False)
    assert set(answer) == {"language", "top_language_probs", "segments", "model"}
    assert answer["model"] == "tiny.en"
    assert answer["language"] == "en"
    # An English-only model knows no probabilities.
    assert answer["top_language_probs"] == [["en", 1.0]]
    assert "library" in " ".join(segment["text"] for segment in answer["segments"])
    for segment in answer["segments"]:
        assert 0 <= segment["start"] <= segment["end"] <= 8
        assert 0 <= segment["no_speech_prob"] <= 1
        assert segment["avg_logprob"] < 0
        assert segment["compression_ratio"] > 0


@pytest.mark.parametrize("count", [0, 1, 1600])
def test_hardly_any_sound_is_no_failure(transcriber: Transcriber, count: int) -> None:
    answer = transcriber.transcribe(np.zeros(count, np.float32), lambda: False)
    assert all(segment["end"] <= count / 16_000 + 0.005 for segment in answer["segments"])


def test_stops_when_nobody_waits(transcriber: Transcriber) -> None:
    with pytest.raises(HungUp):
        transcriber.transcribe(speech(8), lambda: True)


def test_an_unknown_model_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="nonsense does not load: Invalid model") as caught:
        Transcriber("nonsense")
    assert "\n" not in str(caught.value)

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from stt_lib.audio.decoding import Samples
from stt_lib.errors import ConfigurationError
from stt_lib.local.batching import BatchedModel
from stt_lib.local.transcriber import HungUp, Transcriber
from tests.local.sounds import noise, speech


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
        assert segment["language"] == "en"
        assert "".join(word["word"] for word in segment["words"]) == segment["text"]
        for word in segment["words"]:
            assert segment["start"] <= word["start"] <= word["end"] <= segment["end"]
            assert 0 < word["probability"] <= 1


@pytest.mark.parametrize("count", [0, 1, 1600])
def test_hardly_any_sound_is_no_failure(transcriber: Transcriber, count: int) -> None:
    answer = transcriber.transcribe(np.zeros(count, np.float32), lambda: False)
    assert answer["segments"] == []
    assert answer["language"] == "en"


@pytest.mark.parametrize("pause", [0.9, 2.5, 9.0, 20.0])
def test_speech_after_a_pause_starts_when_it_is_spoken(
    transcriber: Transcriber, pause: float
) -> None:
    # The sample has a short pause at 4.5 s.
    first, second = speech(4.5), speech(13)[round(4.5 * 16_000) :]
    sound = np.concatenate([first, noise(pause, 0.001), second])
    segments = transcriber.transcribe(sound, lambda: False)["segments"]
    after = [segment for segment in segments if segment["start"] > 4.5]
    assert after[0]["start"] == pytest.approx(4.6 + pause, abs=0.5)
    assert all(segment["end"] < 4.8 for segment in segments if segment not in after)


def test_stops_when_nobody_waits(transcriber: Transcriber) -> None:
    with pytest.raises(HungUp):
        transcriber.transcribe(speech(8), lambda: True)


def test_an_unknown_model_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="nonsense does not load: Invalid model") as caught:
        Transcriber("nonsense")
    assert "\n" not in str(caught.value)


class Polyglot:
    """A model that hears another language in every window, and never says when it heard a word."""

    supported_languages = ("de", "fr")

    def __init__(self) -> None:
        self.heard: list[tuple[float, dict[str, Any]]] = []

    def transcribe(self, audio: Samples, **options: Any) -> tuple[Iterator[Any], Any]:
        self.heard.append((audio.size / 16_000, options))
        language, other = self.supported_languages[:: -1 if len(self.heard) == 2 else 1]
        info = SimpleNamespace(
            language=language,
            language_probability=0.8,
            all_language_probs=[(language, 0.8), (other, 0.2)],
        )
        scores = {"no_speech_prob": 0.0, "avg_logprob": float("nan"), "compression_ratio": 1.0}
        return self._segments(language, scores), info

    @staticmethod
    def _segments(language: str, scores: dict[str, float]) -> Iterator[Any]:
        yield SimpleNamespace(text=f" In {language}. And more.", words=None, **scores)
        raise AssertionError("the silence after the last word is not listened to")


def with_model(model: object, device: str, *, windows: int) -> Transcriber:
    """A transcriber of another model, with so many windows in progress."""
    transcriber = Transcriber.__new__(Transcriber)
    transcriber.model, transcriber.device = "a test's", device
    transcriber._whisper = cast(Any, model)
    transcriber._batched = BatchedModel(model, 1)
    transcriber._windows, transcriber._room = windows, threading.Semaphore(windows)
    return transcriber


@pytest.fixture
def polyglot() -> tuple[Polyglot, Transcriber]:
    model = Polyglot()
    return model, with_model(model, "cuda", windows=1)


def test_every_window_has_its_language(polyglot: tuple[Polyglot, Transcriber]) -> None:
    model, transcriber = polyglot
    sound = np.concatenate([speech(9), noise(4, 0.001), speech(5)])
    answer = transcriber.transcribe(sound, lambda: False, prompt="A hint")
    assert [s["language"] for s in answer["segments"]] == ["de", "de", "fr", "fr"]
    # Nine seconds of the one, five of the other.
    assert answer["language"] == "de"
    (first, german), (second, french) = answer["top_language_probs"]
    assert (first, second) == ("de", "fr")
    assert german == pytest.approx((9 * 0.8 + 5 * 0.2) / 14, abs=0.03)
    assert german + french == pytest.approx(1)
    for _, options in model.heard:
        assert options["initial_prompt"] == "A hint"
        assert options["language"] is None
        assert not options["condition_on_previous_text"]


def test_without_alignment_the_words_share_the_speech(
    polyglot: tuple[Polyglot, Transcriber],
) -> None:
    _, transcriber = polyglot
    sound = np.concatenate([noise(3, 0.001), speech(5)])
    first, second = transcriber.transcribe(sound, lambda: False)["segments"]
    assert (first["text"], second["text"]) == (" In de.", " And more.")
    # The sample begins with half a second of silence.
    assert first["start"] == pytest.approx(3.5, abs=0.3)
    assert first["end"] == second["start"] == pytest.approx(3.5 + 4.5 * 7 / 17, abs=0.5)
    assert second["end"] == pytest.approx(8, abs=0.3)
    assert first["avg_logprob"] is None
    assert set(first["words"][0]) == {"word", "start", "end"}


def test_requests_share_the_windows_that_may_be_in_progress() -> None:
    class Pair:
        """Hears two windows at a time, neither more nor fewer."""

        def __init__(self) -> None:
            self.both = threading.Barrier(2)
            self.counting = threading.Lock()
            self.in_progress = 0
            self.most = 0

        def transcribe(self, _sound: Samples, **_options: Any) -> tuple[Iterator[Any], Any]:
            with self.counting:
                self.in_progress += 1
                self.most = max(self.most, self.in_progress)
            self.both.wait(60)
            with self.counting:
                self.in_progress -= 1
            self.both.wait(60)
            return iter(()), None

    model = Pair()
    transcriber = with_model(model, "cpu", windows=2)
    sound = np.concatenate([speech(5), noise(4, 0.001), speech(5)])
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(transcriber.transcribe, sound, lambda: False) for _ in range(2)]
        assert [future.result(60)["segments"] for future in asked] == [[], []]
    assert model.most == 2

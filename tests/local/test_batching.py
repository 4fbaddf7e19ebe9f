"""Windows in one call of the model: faster, and nobody's text changes."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ctranslate2 import StorageView

from stt_lib.audio.decoding import Samples, decode
from stt_lib.local.batching import BatchedModel
from stt_lib.local.transcriber import HungUp, Transcriber
from tests.local.sounds import noise, sample, speech
from tests.support.waiting import eventually


def quick(_windows: int) -> None: ...


@pytest.fixture(scope="module")
def alone() -> Transcriber:
    return Transcriber(parallel=1, batch=1)


@pytest.fixture(scope="module")
def batched() -> Transcriber:
    return Transcriber(parallel=1, batch=4)


def at_once(transcriber: Transcriber, sounds: list[Samples]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(len(sounds)) as pool:
        return list(pool.map(lambda sound: transcriber.transcribe(sound, lambda: False), sounds))


def test_concurrent_requests_share_a_call_and_have_the_texts_and_times_of_single_ones(
    alone: Transcriber, batched: Transcriber
) -> None:
    sounds = [speech(12), decode(sample("phone"), "phone")[: 16_000 * 9], speech(5)]
    calls: list[int] = []
    batched.observe_batches(calls.append)
    together = at_once(batched, sounds)
    batched.observe_batches(quick)
    assert max(calls) > 1
    assert sum(calls) >= len(sounds)
    singly = [alone.transcribe(sound, lambda: False) for sound in sounds]
    assert [[s["text"] for s in answer["segments"]] for answer in together] == [
        [s["text"] for s in answer["segments"]] for answer in singly
    ]
    for one, other in zip(together, singly, strict=True):
        times = [(w["start"], w["end"]) for s in one["segments"] for w in s["words"]]
        expected = [(w["start"], w["end"]) for s in other["segments"] for w in s["words"]]
        assert np.allclose(times, expected, atol=0.1)


class Controlled:
    """The transcriber's own model; a test decides when calls are made and what they return."""

    def __init__(self, batched: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
        self._model = batched._batched._model
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.change: Callable[[list[Any]], list[Any]] = lambda results: results
        self.calls: list[tuple[int, float]] = []
        """The windows and the temperature of each call."""
        monkeypatch.setattr(batched._batched, "_model", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(
        self, features: StorageView, prompts: list[list[int]], **options: Any
    ) -> list[Any]:
        self.calls.append((len(prompts), options.get("sampling_temperature", 0.0)))
        assert self.may_go_on.wait(60)
        return self.change(self._model.generate(features, prompts, **options))


def texts(answer: dict[str, Any]) -> list[str]:
    return [segment["text"] for segment in answer["segments"]]


def in_one_call(
    transcriber: Transcriber, model: Controlled, sounds: list[Samples], *cancelled: bool
) -> list[Any]:
    """Return the answers, or the exceptions, of requests that meet while the model is busy."""
    model.may_go_on.clear()
    with ThreadPoolExecutor(len(sounds) + 1) as pool:
        first = pool.submit(transcriber.transcribe, speech(2), lambda: False)
        eventually(lambda: len(model.calls) == 1)
        gone = [*cancelled, *[False] * len(sounds)]
        asked = [
            pool.submit(transcriber.transcribe, sound, Hanging(up))
            for sound, up in zip(sounds, gone, strict=False)
        ]
        waiting = transcriber._batched
        eventually(lambda: len(waiting._calls) == len(sounds), what="all requests wait")
        model.may_go_on.set()
        first.result()
        return [one.exception() or one.result() for one in asked]


class Hanging:
    """A client that hangs up before its second window, or never."""

    def __init__(self, up: bool) -> None:
        self._up, self._asked = up, 0

    def __call__(self) -> bool:
        self._asked += 1
        return self._up and self._asked > 1


def test_the_halves_of_a_bad_window_are_heard_without_the_others(
    alone: Transcriber, batched: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Controlled(batched, monkeypatch)

    def one_is_bad(results: list[Any]) -> list[Any]:
        """The last of a shared call looks as if the model were guessing."""
        if len(results) == 1:
            return results
        *good, bad = results
        guessed = SimpleNamespace(
            sequences_ids=bad.sequences_ids, scores=[-5.0], no_speech_prob=bad.no_speech_prob
        )
        return [*good, guessed]

    model.change = one_is_bad
    sounds = [speech(5), speech(5)]
    found = in_one_call(batched, model, sounds)
    assert model.calls == [(1, 0.0), (2, 0.0), (1, 0.0), (1, 0.0)]
    expected = texts(alone.transcribe(sounds[0], lambda: False))
    assert expected in [texts(answer) for answer in found]
    assert sorted(segment["avg_logprob"] for one in found for segment in one["segments"])[0] > -5


def test_a_slow_model_is_waited_for_and_is_not_silence(
    alone: Transcriber, batched: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Controlled(batched, monkeypatch)
    model.may_go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(batched.transcribe, speech(5), lambda: False) for _ in range(2)]
        eventually(lambda: len(model.calls) == 1)
        # Nobody has given up meanwhile.
        done, _ = wait(asked, timeout=0.5)
        assert done == set()
        model.may_go_on.set()
        found = [texts(one.result()) for one in asked]
    assert found == [texts(alone.transcribe(speech(5), lambda: False))] * 2


def test_a_client_that_vanishes_leaves_the_texts_of_its_companions_unharmed(
    alone: Transcriber, batched: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Controlled(batched, monkeypatch)
    long = np.concatenate([speech(20), noise(3, 0.001), speech(20)])
    first, second = in_one_call(batched, model, [long, speech(5)], True)
    assert isinstance(first, HungUp)
    assert texts(second) == texts(alone.transcribe(speech(5), lambda: False))
    assert batched._batched._expected == set(), "nobody waits for its windows any more"


def test_sound_beyond_thirty_seconds_is_heard_to_its_end(
    alone: Transcriber, batched: Transcriber
) -> None:
    long = np.concatenate([decode(sample("library"), "library"), noise(3, 0.001), speech(20)])
    assert long.size > 35 * 16_000
    first, _ = at_once(batched, [long, speech(5)])
    expected = alone.transcribe(long, lambda: False)
    assert [s["text"] for s in first["segments"]] == [s["text"] for s in expected["segments"]]


class Model:
    """A model whose calls wait until they may go on, and fail for windows of this value."""

    def __init__(self, bad: float | None = None) -> None:
        self.detections: list[int] = []
        self.calls: list[tuple[list[float], dict[str, Any]]] = []
        self.began = threading.Event()
        self.may_go_on = threading.Event()
        self._bad = bad

    def generate(
        self, features: StorageView, prompts: list[list[int]], **options: Any
    ) -> list[Any]:
        values = [float(value) for value in np.asarray(features)[:, 0, 0]]
        assert len(prompts) == len(values)
        self.calls.append((values, options))
        self.began.set()
        assert self.may_go_on.wait(60)
        if self._bad in values:
            raise RuntimeError("out of memory")
        return [SimpleNamespace(value=value) for value in values]

    def detect_language(self, features: StorageView) -> list[list[tuple[str, float]]]:
        values = [float(value) for value in np.asarray(features)[:, 0, 0]]
        self.detections.append(len(values))
        return [[(f"<|{value:g}|>", 1.0)] for value in values]


def ask(model: BatchedModel, value: float, **options: Any) -> Callable[[], Any]:
    features = StorageView.from_array(np.full((1, 2, 3), value, np.float32))
    return lambda: model.generate(features, [[1, 2]], **options)[0].value


def answers(model: Model, batched: BatchedModel, *asked: Callable[[], Any]) -> list[Any]:
    """Ask while a first call keeps the model busy, so that all of these wait for it together."""
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        first = pool.submit(ask(batched, 0.0))
        assert model.began.wait(60)
        waiting = [pool.submit(question) for question in asked]
        eventually(lambda: len(batched._calls) == len(asked), what="all wait")
        model.may_go_on.set()
        first.result()
        return [future.exception() or future.result() for future in waiting]


def test_windows_that_wait_are_decoded_in_one_call_of_limited_size() -> None:
    model = Model()
    batched = BatchedModel(model, 3)
    found = answers(model, batched, *(ask(batched, value) for value in range(1, 6)))
    assert found == [1, 2, 3, 4, 5]
    assert sorted(len(values) for values, _ in model.calls) == [1, 2, 3]


def test_a_window_that_is_heard_again_at_a_higher_temperature_drags_no_other_along() -> None:
    model = Model()
    batched = BatchedModel(model, 8)
    hot = ask(batched, 2, sampling_temperature=0.4)
    found = answers(model, batched, ask(batched, 1, beam_size=5), hot, ask(batched, 3, beam_size=5))
    assert found == [1, 2, 3]
    options = {tuple(sorted(values)): given for values, given in model.calls[1:]}
    assert options == {(1, 3): {"beam_size": 5}, (2,): {"sampling_temperature": 0.4}}


def test_what_the_model_refuses_fails_its_own_request_only_and_is_not_silence() -> None:
    model = Model(bad=2)
    batched = BatchedModel(model, 8)
    first, second, third = answers(model, batched, *(ask(batched, value) for value in (1, 2, 3)))
    assert (first, third) == (1, 3)
    assert isinstance(second, RuntimeError)


def test_languages_are_detected_in_one_call_and_none_is_mixed_up() -> None:
    model = Model()
    batched = BatchedModel(model, 8)

    def detect(value: float) -> Callable[[], Any]:
        features = StorageView.from_array(np.full((1, 2, 3), value, np.float32))
        return lambda: batched.detect_language(features)[0][0][0]

    found = answers(model, batched, detect(1), ask(batched, 2), detect(3))
    assert found == ["<|1|>", 2, "<|3|>"]
    assert model.detections == [2]


def test_a_call_waits_for_windows_in_progress_but_not_for_one_that_fails() -> None:
    model = Model()
    model.may_go_on.set()
    batched = BatchedModel(model, 8)
    with ThreadPoolExecutor(2) as pool:
        with suppress(ZeroDivisionError), batched.window():
            asked = [pool.submit(ask(batched, value)) for value in (1, 2)]
            eventually(lambda: len(batched._calls) == 2)
            done, _ = wait(asked, timeout=0.1)
            assert done == set()
            raise ZeroDivisionError
        assert [future.result(60) for future in asked] == [1, 2]
    assert [len(values) for values, _ in model.calls] == [2]


def test_on_a_cpu_the_windows_are_shared_evenly_among_the_calls() -> None:
    model = Model()
    batched = BatchedModel(model, 8, device="cpu", parallel=2)
    ready = threading.Barrier(4)

    def window(value: float) -> Any:
        with batched.window():
            ready.wait(60)
            return ask(batched, value)()

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(window, value) for value in range(4)]
        eventually(lambda: len(model.calls) == 2, what="both calls are made")
        model.may_go_on.set()
        assert [future.result(60) for future in asked] == [0, 1, 2, 3]
    assert [len(values) for values, _ in model.calls] == [2, 2]


def test_on_a_cpu_a_window_whose_language_was_detected_is_not_encoded_again() -> None:
    class Encoder:
        encoded = 0

        def encode(self, features: StorageView, to_cpu: bool) -> StorageView:
            self.encoded += 1
            return features

        def detect_language(self, features: StorageView) -> list[Any]:
            return [[("<|fr|>", 1.0)]]

    model = Encoder()
    batched = BatchedModel(model, 4, device="cpu")
    features = StorageView.from_array(np.zeros((1, 2, 3), np.float32))
    detected = batched.encode(features)
    assert batched.detect_language(detected) == [[("<|fr|>", 1.0)]]
    assert batched.encode(features) is detected
    assert model.encoded == 1
    batched.encode(features)
    assert model.encoded == 2, "the next window"

"""Windows of concurrent requests in one call of the model: faster, and nobody's text changes."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ctranslate2 import StorageView

from stt_lib.audio.decoding import Samples, decode
from stt_lib.local.batching import BatchedModel
from stt_lib.local.transcriber import Transcriber
from tests.local.sounds import noise, sample, speech


def quick(_windows: int) -> None: ...


@pytest.fixture(scope="module")
def alone() -> Transcriber:
    return Transcriber(parallel=1)


@pytest.fixture(scope="module")
def batched() -> Transcriber:
    return Transcriber(parallel=4, batch=4)


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


def ask(model: BatchedModel, value: float, **options: Any) -> Callable[[], Any]:
    features = StorageView.from_array(np.full((1, 2, 3), value, np.float32))
    return lambda: model.generate(features, [[1, 2]], **options)[0].value


def answers(model: Model, batched: BatchedModel, *asked: Callable[[], Any]) -> list[Any]:
    """Ask while a first call keeps the model busy, so that all of these wait for it together."""
    with ThreadPoolExecutor(len(asked) + 1) as pool:
        first = pool.submit(ask(batched, 0.0))
        assert model.began.wait(60)
        waiting = [pool.submit(question) for question in asked]
        while batched._calls.qsize() < len(asked):
            threading.Event().wait(0.001)
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

"""Batching: windows that are transcribed at the same time share calls of the model.

On a CPU, the common calls cost less; a GPU needs them to be busy. Everything else stays with the
thread of each window: features, times, and the decision to hear it again. So a bad window costs the
others nothing.
"""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ctranslate2 import StorageView

MOST = {"cpu": 4, "cuda": 16}
"""Windows. Default maximum per call. On a CPU, to decode four at a time takes a quarter less than
one by one, and eight are hardly better."""


@dataclass(slots=True, eq=False)
class Call:
    """What the model is to do with a window, and the result to come.

    Without a prompt, it is to detect the language.
    """

    features: Any
    prompt: list[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    result: "Future[Any]" = field(default_factory=Future)
    thread: int = field(default_factory=threading.get_ident)
    was_expected: bool = False

    def is_like(self, other: "Call") -> bool:
        """Whether the model can do both in one call."""
        return self.options == other.options and len(self.prompt or ()) == len(other.prompt or ())


class BatchedModel:
    """Takes the place of a model of CTranslate2 inside of faster-whisper's.

    A CPU makes `parallel` calls at a time, and each waits for its share of the windows in progress.
    A GPU makes one, which encodes them as well. No call has more than `most` windows.
    """

    def __init__(self, model: Any, most: int, *, device: str = "cuda", parallel: int = 1) -> None:
        self.observe: Callable[[int], object] = lambda _windows: None
        """Receives the number of windows of each call that decodes."""
        self._model = model
        self._most = most
        self._is_cpu = device == "cpu"
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._expected: set[int] = set()
        """The threads of windows in progress that have yet to be decoded."""
        self._idle = parallel if self._is_cpu else 1
        self._detected = threading.local()
        for _ in range(self._idle):
            threading.Thread(target=self._serve, name="whisper-batches", daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @contextmanager
    def window(self) -> Iterator[None]:
        """Other windows wait for this one, which its thread is about to have decoded."""
        with self._changed:
            self._expected.add(threading.get_ident())
        try:
            yield
        finally:
            self._detected.__dict__.clear()
            with self._changed:
                self._expected.discard(threading.get_ident())
                self._changed.notify_all()

    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        """Encode one window, unless the call that decodes it will."""
        if not self._is_cpu:
            return features
        # faster-whisper encodes a window once to detect its language and again to decode it.
        detected = self._detected.__dict__.pop("window", None)
        return detected or self._model.encode(features, to_cpu=to_cpu)

    def generate(
        self, features: StorageView, prompts: list[list[int]], **options: Any
    ) -> list[Any]:
        """Decode one window, with whichever others are there; raises what the model raises."""
        return [self._result(Call(np.asarray(features), prompts[0], options))]

    def detect_language(self, features: StorageView) -> list[Any]:
        """Detect the language of one window."""
        if not self._is_cpu:
            return [self._result(Call(np.asarray(features)))]
        self._detected.window = features
        return list(self._model.detect_language(features))

    def _result(self, call: Call) -> Any:
        with self._changed:
            call.was_expected = call.thread in self._expected
            self._expected.discard(call.thread)
            self._calls.append(call)
            self._changed.notify_all()
        return call.result.result()

    def _serve(self) -> None:
        while True:
            batch = self._batch()
            if batch[0].prompt is not None:
                self.observe(len(batch))
            self._compute(batch)
            with self._changed:
                self._idle += 1

    def _batch(self) -> list[Call]:
        """The oldest call and those like it, once there are enough or no more are expected."""
        with self._changed:
            self._changed.wait_for(self._is_complete)
            batch = self._alike()[: self._share()]
            self._calls = [call for call in self._calls if call not in batch]
            self._idle -= 1
        return batch

    def _is_complete(self) -> bool:
        if not self._calls:
            return False
        return not self._expected or len(self._alike()) >= self._share()

    def _alike(self) -> list[Call]:
        return [call for call in self._calls if call.is_like(self._calls[0])]

    def _share(self) -> int:
        """What one of the idle threads takes, so that the others have as much to do."""
        windows = len(self._calls) + len(self._expected)
        return min(self._most, math.ceil(windows / self._idle))

    def _compute(self, batch: list[Call]) -> None:
        """Give each call its own result; if the model refuses a batch, each has its own call."""
        try:
            results = self._results(batch)
        except Exception as error:  # noqa: BLE001 - whoever waits for a result learns of it
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for call in batch:
                self._compute([call])
            return
        with self._changed:
            for call in batch:
                if call.prompt is None and call.was_expected:
                    # Its language is known now, and it is about to be decoded.
                    self._expected.add(call.thread)
        for call, result in zip(batch, results, strict=True):
            call.result.set_result(result)

    def _results(self, batch: list[Call]) -> list[Any]:
        features = StorageView.from_array(np.concatenate([call.features for call in batch]))
        if batch[0].prompt is None:
            return list(self._model.detect_language(features))
        prompts = [call.prompt for call in batch]
        return list(self._model.generate(features, prompts, **batch[0].options))

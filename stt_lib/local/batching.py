"""Batching: windows of concurrent requests share calls of the model, which a GPU needs to be busy.

Everything else stays with the thread of each request: detection of speech, features, times, and the
decision to hear a window again at a higher temperature. So a bad window costs the others nothing.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ctranslate2 import StorageView

MOST = 16
"""Windows. Default maximum per call on a GPU."""

WAIT_SECONDS = 0.05
"""Seconds. How long a window waits at most for those of other requests in progress."""


@dataclass(slots=True)
class Call:
    """What the model is to do with a window, and the result to come.

    Without a prompt, it is to detect the language.
    """

    features: Any
    prompt: list[int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    result: "Future[Any]" = field(default_factory=Future)
    waits_until: float = field(default_factory=lambda: time.monotonic() + WAIT_SECONDS)

    def is_like(self, other: "Call") -> bool:
        """Whether the model can do both in one call."""
        return self.options == other.options and len(self.prompt or ()) == len(other.prompt or ())


class BatchedModel:
    """Takes the place of a model of CTranslate2 inside of faster-whisper's.

    Each call decodes up to `most` windows. It waits for others only while more requests are in
    progress than windows are waiting.
    """

    def __init__(self, model: Any, most: int) -> None:
        self.observe: Callable[[int], object] = lambda _windows: None
        """Receives the number of windows of each call that decodes."""
        self._model = model
        self._most = most
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._left: list[Call] = []  # unlike those of the last batch, or too many
        self._requests = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="whisper-batches", daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Others wait for the windows of this request while it is in progress."""
        with self._lock:
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    def encode(self, features: StorageView, to_cpu: bool = False) -> StorageView:
        """Leave encoding to the call that decodes, which encodes the whole batch."""
        return features

    def generate(
        self, features: StorageView, prompts: list[list[int]], **options: Any
    ) -> list[Any]:
        """Decode one window, with whichever others are there; raises what the model raises."""
        return [self._result(Call(np.asarray(features), prompts[0], options))]

    def detect_language(self, features: StorageView) -> list[Any]:
        """Detect the language of one window, as `generate` decodes it."""
        return [self._result(Call(np.asarray(features)))]

    def _result(self, call: Call) -> Any:
        self._calls.put(call)
        return call.result.result()

    def _serve(self) -> None:
        while True:
            batch = self._batch()
            if batch[0].prompt is not None:
                self.observe(len(batch))
            self._compute(batch)

    def _batch(self) -> list[Call]:
        """The oldest call and those like it, waiting a moment for more."""
        first, *others = self._left or [self._calls.get()]
        batch, self._left = [first], []
        for call in others:
            self._sort_in(call, batch)
        while len(batch) < self._most:
            # What is there is taken in any case; beyond that, it is worth waiting for.
            is_expected = len(batch) + len(self._left) < self._requests
            seconds = first.waits_until - time.monotonic() if is_expected else 0
            try:
                self._sort_in(self._calls.get(timeout=max(0.0, seconds)), batch)
            except queue.Empty:
                break
        return batch

    def _sort_in(self, call: Call, batch: list[Call]) -> None:
        fits = len(batch) < self._most and call.is_like(batch[0])
        (batch if fits else self._left).append(call)

    def _compute(self, batch: list[Call]) -> None:
        """Give each call its own result; if the model refuses a batch, each has its own call."""
        try:
            for call, result in zip(batch, self._results(batch), strict=True):
                call.result.set_result(result)
        except Exception as error:  # noqa: BLE001 - whoever waits for a result learns of it
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for call in batch:
                self._compute([call])

    def _results(self, batch: list[Call]) -> list[Any]:
        features = StorageView.from_array(np.concatenate([call.features for call in batch]))
        if batch[0].prompt is None:
            return list(self._model.detect_language(features))
        prompts = [call.prompt for call in batch]
        return list(self._model.generate(features, prompts, **batch[0].options))

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
    """A window's features, the prompt and the options of its decoding, and the result to come."""

    features: Any
    prompt: list[int]
    options: dict[str, Any]
    result: "Future[Any]" = field(default_factory=Future)

    def is_like(self, other: "Call") -> bool:
        """Whether the model can decode both windows in one call."""
        return self.options == other.options and len(self.prompt) == len(other.prompt)


class BatchedModel:
    """Takes the place of a model of CTranslate2 inside of faster-whisper's.

    Each call decodes up to `most` windows. It waits for others only while more requests are in
    progress than windows are waiting.
    """

    def __init__(self, model: Any, most: int) -> None:
        self.observe: Callable[[int], object] = lambda _windows: None
        """Receives the number of windows of each call."""
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
        call = Call(np.asarray(features), prompts[0], options)
        self._calls.put(call)
        return [call.result.result()]

    def _serve(self) -> None:
        while True:
            batch = self._batch()
            self.observe(len(batch))
            self._decode(batch)

    def _batch(self) -> list[Call]:
        """The oldest call and those like it, waiting a moment for more."""
        first, *others = self._left or [self._calls.get()]
        batch, self._left = [first], []
        for call in others:
            self._sort_in(call, batch)
        end = time.monotonic() + WAIT_SECONDS
        while len(batch) < self._most:
            # What is there is taken in any case; beyond that, it is worth waiting for.
            is_expected = len(batch) + len(self._left) < self._requests
            seconds = end - time.monotonic() if is_expected else 0
            try:
                self._sort_in(self._calls.get(timeout=max(0.0, seconds)), batch)
            except queue.Empty:
                break
        return batch

    def _sort_in(self, call: Call, batch: list[Call]) -> None:
        fits = len(batch) < self._most and call.is_like(batch[0])
        (batch if fits else self._left).append(call)

    def _decode(self, batch: list[Call]) -> None:
        """Give each call its own result; if the model refuses a batch, each has its own call."""
        try:
            features = StorageView.from_array(np.concatenate([call.features for call in batch]))
            prompts = [call.prompt for call in batch]
            results = self._model.generate(features, prompts, **batch[0].options)
            for call, result in zip(batch, results, strict=True):
                call.result.set_result(result)
        except Exception as error:  # noqa: BLE001 - whoever waits for a result learns of it
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for call in batch:
                self._decode([call])

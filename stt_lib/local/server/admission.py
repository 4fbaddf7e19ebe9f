"""Admission of requests (a few are computed, some wait, the others are refused) and metrics."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from stt_lib.local.transcriber import HungUp

REMEMBERED = 20
"""Requests whose mean duration predicts how long a new one would have to wait."""

PATHS = frozenset({"/transcribe", "/v1/audio/transcriptions", "/health", "/metrics"})
"""Paths with a label of their own; anything else that a client asks for is `other`."""


class Turns:
    """At most `parallel` requests in progress and `queue` waiting, first come, first served.

    Used on one event loop only, so its counts need no lock.
    """

    def __init__(self, parallel: int, queue: int) -> None:
        self.in_progress = 0
        self.waiting = 0
        self._parallel = parallel
        self._queue = queue
        self._places = asyncio.Semaphore(parallel)
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def full(self) -> bool:
        """Whether the queue has no room for another request."""
        return self._places.locked() and self.waiting >= self._queue

    def retry_after(self) -> int:
        """Return the seconds until a place in the queue is likely to be free."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return max(1, math.ceil(mean * (self.waiting + 1) / self._parallel))

    @asynccontextmanager
    async def turn(self, hung_up: "asyncio.Task[None]") -> AsyncIterator[None]:
        """Wait for a place and hold it; raises HungUp when the client leaves the queue."""
        await self._place(hung_up)
        began = time.monotonic()
        self.in_progress += 1
        try:
            yield
            self._seconds.append(time.monotonic() - began)
        finally:
            self.in_progress -= 1
            self._places.release()

    async def _place(self, hung_up: "asyncio.Task[None]") -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        place = asyncio.ensure_future(self._places.acquire())
        self.waiting += 1
        try:
            await asyncio.wait({place, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting -= 1
            if not place.done():
                place.cancel()
        if not place.done():
            raise HungUp


class Metrics:
    """Counts since the start of the server, and the queue at this moment."""

    def __init__(self, turns: Turns) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "stt_server_requests",
            "Requests answered, by path and status; 499: the client left.",
            ["path", "status"],
            registry=self._registry,
        )
        self.audio = Counter(
            "stt_server_audio_seconds", "Audio transcribed.", registry=self._registry
        )
        self.computing = Counter(
            "stt_server_computing_seconds",
            "Time spent on decoding and transcribing, summed over concurrent requests.",
            registry=self._registry,
        )
        self.windows = Histogram(
            "stt_server_batch_windows",
            "Windows of speech decoded in one call of the model, where it batches them.",
            buckets=[1, 2, 4, 8, 16],
            registry=self._registry,
        )
        for name, documentation in (
            ("in_progress", "Requests being computed."),
            ("waiting", "Requests waiting for their turn."),
        ):
            gauge = Gauge(f"stt_server_{name}", documentation, registry=self._registry)
            gauge.set_function(partial(getattr, turns, name))

    def count(self, path: str, status: int) -> None:
        """Count an answered request."""
        self._requests.labels(path if path in PATHS else "other", status).inc()

    async def page(self, _request: Request) -> Response:
        """Answer `GET /metrics` in Prometheus' text format."""
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

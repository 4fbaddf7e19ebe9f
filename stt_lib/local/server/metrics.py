"""What the Whisper server has done and is doing, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from stt_lib.local.server.admission import Turns

PATHS = frozenset({"/transcribe", "/v1/audio/transcriptions", "/health", "/metrics"})
"""Paths with a label of their own; anything else that a client asks for is `other`."""


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
        self._gauge("stt_server_in_progress", "Requests being computed.", lambda: turns.in_progress)
        self._gauge("stt_server_waiting", "Requests waiting for their turn.", lambda: turns.waiting)

    def _gauge(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        Gauge(name, documentation, registry=self._registry).set_function(value)

    def count(self, path: str, status: int) -> None:
        """Count an answered request."""
        self._requests.labels(path if path in PATHS else "other", status).inc()

    async def page(self, _request: Request) -> Response:
        """Answer `GET /metrics` in Prometheus' text format."""
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")

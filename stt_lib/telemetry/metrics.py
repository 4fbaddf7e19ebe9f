"""The figures of a run for Prometheus: on a port while it runs, in a file for cron.

Names and units follow Prometheus' conventions: base units, `_total` for what only grows, and
timestamps instead of ages (`time() - stt_oldest_pending_timestamp_seconds` is the age). Each run
counts from 0. Where runs come and go, ask the gauges, which say what is in the database.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from stt_lib import __version__
from stt_lib.domain.models import Outcome
from stt_lib.errors import ConfigurationError
from stt_lib.files import write_whole
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.stats import Distribution, Figures, ServerFigures, Stats

log = logging.getLogger("stt")

INTERVAL_SECONDS: Final = 15.0
"""How often the file is written and the database asked; Prometheus' own default is a minute."""

LARGEST_SHARE: Final = 0.02
"""Counting millions of chunks takes a second: then it is done so seldom that it takes no more."""

_DURATIONS: Final = range(-6, 10)
"""Powers of two, in seconds: 16 ms to 8 minutes."""
_RATIOS: Final = range(-10, 4)
"""Powers of two, in seconds per second of audio: from 1000 times real time to 8 times slower."""

_ENDS: Final = (Outcome.TRANSCRIBED, Outcome.EMPTY, Outcome.ERROR)


@dataclass(frozen=True, slots=True)
class ServerState:
    """One STT server right now."""

    name: str
    in_flight: int
    limit: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class BacklogState:
    """What the database holds, whoever worked on it; `failed` counts chunks by kind."""

    pending: int
    parked: int
    failed: Mapping[str, int] = field(default_factory=dict)
    oldest: datetime | None = None
    last_done: datetime | None = None


class RunCollector(Collector):
    """Turns the figures into Prometheus' metrics whenever somebody asks."""

    def __init__(self, stats: Stats, servers: Callable[[], Iterable[ServerState]]) -> None:
        self._stats = stats
        self._servers = servers
        self._started = time.time()
        self.backlog: BacklogState | None = None
        self.is_mongodb_up = True

    def collect(self) -> Iterator[Metric]:
        figures = self._stats.figures()
        states = list(self._servers())
        yield from _of_work(figures)
        yield from _of_requests(figures, dict.fromkeys(state.name for state in states))
        yield from _of_servers(states)
        yield _gauge("stt_mongodb_up", "Whether MongoDB answered.", float(self.is_mongodb_up))
        if self.backlog is not None:
            yield from _of_backlog(self.backlog)
        yield _gauge("stt_run_start_timestamp_seconds", "When this run began.", self._started)
        info = GaugeMetricFamily("stt_build_info", "The version of stt.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info


def _of_work(figures: Figures) -> Iterator[Metric]:
    sequences = _counter("stt_sequences", "Sequences that ended in this run.", "outcome")
    for outcome in Outcome:
        sequences.add_metric([outcome], figures.sequences[outcome])
    chunks = _counter("stt_chunks", "Chunks that ended in this run.", "outcome")
    audio = _counter("stt_audio_seconds", "Audio of these chunks.", "outcome")
    for outcome in _ENDS:
        chunks.add_metric([outcome], figures.chunks[outcome])
        audio.add_metric([outcome], figures.audio.get(outcome, 0.0))
    yield from (sequences, chunks, audio)
    saves = HistogramMetricFamily(
        "stt_save_duration_seconds", "Filtering, saving and marking one result."
    )
    saves.add_metric([], *_histogram(figures.saves, _DURATIONS))
    yield saves


def _of_requests(figures: Figures, names: Iterable[str]) -> Iterator[Metric]:
    requests = _counter("stt_requests", "Requests that ended.", "server", "result")
    errors = _counter("stt_request_errors", "Requests that failed.", "server", "kind")
    retries = _counter("stt_retries", "Requests sent again.", "server")
    times = HistogramMetricFamily(
        "stt_request_duration_seconds", "Time of answered requests.", labels=["server"]
    )
    ratios = HistogramMetricFamily(
        "stt_request_realtime_ratio", "Their time per second of audio.", labels=["server"]
    )
    for name in names:
        server = figures.servers.get(name, ServerFigures())
        requests.add_metric([name, "answered"], server.answered)
        requests.add_metric([name, "failed"], server.failed)
        for kind, count in server.errors.items():
            errors.add_metric([name, kind], count)
        retries.add_metric([name], server.retries)
        times.add_metric([name], *_histogram(server.times, _DURATIONS))
        ratios.add_metric([name], *_histogram(server.ratios, _RATIOS))
    yield from (requests, errors, retries, times, ratios)


def _of_servers(states: Iterable[ServerState]) -> Iterator[Metric]:
    in_flight = _gauges("stt_requests_in_flight", "Requests under way.", "server")
    limit = _gauges("stt_server_limit", "Requests that a server may get at once.", "server")
    is_open = _gauges("stt_server_breaker_open", "1 while a server gets no requests.", "server")
    for state in states:
        in_flight.add_metric([state.name], state.in_flight)
        limit.add_metric([state.name], state.limit)
        is_open.add_metric([state.name], float(state.is_open))
    yield from (in_flight, limit, is_open)


def _of_backlog(state: BacklogState) -> Iterator[Metric]:
    yield _gauge("stt_pending_chunks", "Chunks to transcribe, in the database.", state.pending)
    yield _gauge("stt_parked_chunks", "Chunks that wait for a person.", state.parked)
    failed = _gauges("stt_failed_chunks", "Chunks that failed, parked ones too.", "kind")
    for kind, chunks in state.failed.items():
        failed.add_metric([kind], chunks)
    yield failed
    if state.oldest is not None:
        yield _gauge(
            "stt_oldest_pending_timestamp_seconds",
            "When the oldest pending chunk was recorded.",
            state.oldest.timestamp(),
        )
    if state.last_done is not None:
        yield _gauge(
            "stt_last_transcribed_timestamp_seconds",
            "When a chunk was last transcribed or found empty, by any worker.",
            state.last_done.timestamp(),
        )


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _gauges(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _histogram(known: Distribution, powers: range) -> tuple[list[tuple[str, float]], float]:
    bounds = [(str(float(2**power)), float(known.up_to(power))) for power in powers]
    return [*bounds, ("+Inf", float(known.count))], known.total


class Exporter:
    """Shows a run's metrics: at `port`, in `file`, or both; asks the database now and then."""

    def __init__(
        self,
        collector: RunCollector,
        look: Callable[[], BacklogState],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        file: Path | None = None,
    ) -> None:
        """Begin; `look` asks the database.

        Raises:
            ConfigurationError: nobody can listen at that port.
        """
        self._collector = collector
        self._look = look
        self._file = file
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        if port is not None:
            _listen(self._registry, host, port)
        self._has_warned = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stt-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the file for the last time."""
        self._over.set()
        self._thread.join()
        self._refresh()

    def _keep(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            began = time.monotonic()
            self._refresh()
            pause = max(INTERVAL_SECONDS, (time.monotonic() - began) / LARGEST_SHARE)

    def _refresh(self) -> None:
        try:
            self._collector.backlog = self._look()
            self._collector.is_mongodb_up = True
        except Exception as error:  # noqa: BLE001 - to look on must not disturb the work
            self._collector.is_mongodb_up = False
            log.debug("Not looked at the backlog: %s", error, extra=Event.METRICS.of())
        if self._file is not None:
            self._write(self._file)

    def _write(self, file: Path) -> None:
        try:
            write_whole(file, generate_latest(self._registry).decode())
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "No metrics: %s cannot be written (%s)",
                    file,
                    error.strerror or error,
                    extra=Event.LOG_TROUBLE.of(),
                )


def _listen(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer in a thread that ends with the process."""
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"--metrics-port: nobody can listen at {host}:{port} ({error.strerror or error});"
            " choose another port, or --metrics-file where several runs overlap"
        ) from None
    log.info("Metrics at http://%s:%d/metrics", host, server.server_port, extra=Event.METRICS.of())

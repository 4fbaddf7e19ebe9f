"""Metrics for Prometheus: on a port while a run lasts, or in a file for cron.

Names and units follow the conventions of Prometheus: base units, `_total` for counters, and
timestamps instead of ages (`time() - stt_oldest_pending_timestamp_seconds` is the age). Each run
counts from 0. Where runs come and go, use the gauges, which describe the database.
"""

import itertools
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
from stt_lib.telemetry.logs import cannot_write
from stt_lib.telemetry.stats import Figures, Observations, ServerFigures, Stats

log = logging.getLogger("stt")

INTERVAL_SECONDS: Final = 15.0
"""Seconds. Pause between two queries of the database, and two writes of the file."""

LARGEST_SHARE: Final = 0.02
"""Share of the time that these queries may take: on millions of chunks one takes a second."""

_ENDS: Final = (Outcome.TRANSCRIBED, Outcome.EMPTY, Outcome.ERROR)


@dataclass(frozen=True, slots=True)
class ServerState:
    """The present state of an STT server."""

    name: str
    in_flight: int
    limit: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class BacklogState:
    """The contents of the database, whoever worked on it; `failed` counts chunks by kind."""

    pending: int
    parked: int
    failed: Mapping[str, int] = field(default_factory=dict)
    oldest: datetime | None = None
    last_done: datetime | None = None


class RunCollector(Collector):
    """Turns the figures into metrics whenever Prometheus asks."""

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
    saves.add_metric([], *_histogram(figures.saves))
    yield saves


def _of_requests(figures: Figures, names: Iterable[str]) -> Iterator[Metric]:
    requests = _counter("stt_requests", "Requests that ended.", "server", "result")
    errors = _counter("stt_request_errors", "Requests that failed.", "server", "kind")
    retries = _counter("stt_retries", "Requests sent again.", "server")
    times = HistogramMetricFamily(
        "stt_request_duration_seconds", "Duration of answered requests.", labels=["server"]
    )
    ratios = HistogramMetricFamily(
        "stt_request_realtime_ratio", "Their duration per second of audio.", labels=["server"]
    )
    for name in names:
        server = figures.servers.get(name, ServerFigures())
        requests.add_metric([name, "answered"], server.answered)
        requests.add_metric([name, "failed"], server.failed)
        for kind, count in server.errors.items():
            errors.add_metric([name, kind], count)
        retries.add_metric([name], server.retries)
        times.add_metric([name], *_histogram(server.times))
        ratios.add_metric([name], *_histogram(server.ratios))
    yield from (requests, errors, retries, times, ratios)


def _of_servers(states: Iterable[ServerState]) -> Iterator[Metric]:
    in_flight = _gauges("stt_requests_in_flight", "Requests in flight.", "server")
    limit = _gauges(
        "stt_server_limit", "Maximum number of concurrent requests to a server.", "server"
    )
    is_open = _gauges("stt_server_breaker_open", "1 while a server gets no requests.", "server")
    for state in states:
        in_flight.add_metric([state.name], state.in_flight)
        limit.add_metric([state.name], state.limit)
        is_open.add_metric([state.name], float(state.is_open))
    yield from (in_flight, limit, is_open)


def _of_backlog(state: BacklogState) -> Iterator[Metric]:
    yield _gauge("stt_pending_chunks", "Pending chunks in the database.", state.pending)
    yield _gauge(
        "stt_parked_chunks",
        "Chunks that failed too often to be retried automatically.",
        state.parked,
    )
    failed = _gauges(
        "stt_failed_chunks",
        "Chunks that failed and are not transcribed, including parked ones.",
        "kind",
    )
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


def _histogram(seen: Observations) -> tuple[list[tuple[str, float]], float]:
    bounds = (*map(str, seen.bounds), "+Inf")
    counts = map(float, itertools.accumulate(seen.buckets))
    return list(zip(bounds, counts, strict=True)), seen.total


class Exporter:
    """Serves a run's metrics at an address, writes them to a file, or both."""

    def __init__(
        self,
        collector: RunCollector,
        look: Callable[[], BacklogState],
        *,
        address: tuple[str, int] | None = None,
        file: Path | None = None,
    ) -> None:
        """Start; `look` queries the database from time to time.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        self._collector = collector
        self._look = look
        self._file = file
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        if address is not None:
            _listen(self._registry, *address)
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
        except Exception as error:  # noqa: BLE001 - monitoring must not disturb the work
            self._collector.is_mongodb_up = False
            log.debug("The backlog is unknown: %s", error, extra=Event.METRICS.of())
        if self._file is not None:
            self._write(self._file)

    def _write(self, file: Path) -> None:
        try:
            write_whole(file, generate_latest(self._registry).decode())
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                cannot_write("metrics", file, error)


def _listen(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serve in a thread that ends with the process."""
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"--metrics-port: cannot listen on {host}:{port} ({error.strerror or error});"
            " choose another port, or --metrics-file where several runs overlap"
        ) from None
    url = f"http://{host}:{server.server_port}/metrics"
    log.info("Metrics at %s", url, extra=Event.METRICS.of())

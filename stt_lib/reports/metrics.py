"""Metrics for Prometheus: on a port while a run lasts, or in a file for cron.

Names and units follow the conventions of Prometheus: base units, `_total` for counters, and
timestamps instead of ages (`time() - stt_oldest_pending_timestamp_seconds` is the age). Each run
counts from 0. Where runs come and go, use the gauges, which describe the database.
"""

import contextlib
import functools
import itertools
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, MetricsHandler, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from stt_lib import __version__
from stt_lib.config.settings import Settings
from stt_lib.domain.models import Outcome
from stt_lib.errors import ConfigurationError
from stt_lib.files import write_whole
from stt_lib.servers.health import Server
from stt_lib.servers.pool import ServerPool
from stt_lib.store import Store
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.logs import cannot_write
from stt_lib.telemetry.stats import ENDS, Figures, Observations

INTERVAL_SECONDS: Final = 15.0
"""Seconds. Pause between two queries of the database, and two writes of the file."""

LARGEST_SHARE: Final = 0.02
"""Share of the time that these queries may take: on millions of chunks one takes a second."""

SEVERAL: Final = 20
"""Chunks. The oldest of this many last ones is taken, because some may have no usable start."""

CLIENT_SECONDS: Final = 10.0
"""Seconds. How long a client of the port may send or take nothing."""

MOST_CLIENTS: Final = 10
"""Connections. Each has a thread; any more are closed at once."""

log = logging.getLogger("stt")


class Exporter(Collector):
    """Serves a run's metrics at an address, writes them to a file, or both, within a block.

    Has a connection of its own, because the run's may wait for MongoDB without a limit.

    Raises:
        ConfigurationError: on entry, if the address cannot be listened on.
    """

    def __init__(self, settings: Settings, pool: ServerPool) -> None:
        self._settings = settings
        self._address = settings.metrics_port
        self._file = settings.metrics_file
        self._opened = contextlib.ExitStack()
        self._pool = pool
        self._started = time.time()
        self._backlog: list[Metric] = []
        self._is_mongodb_up = True
        self._has_warned = False
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stt-metrics", daemon=True)

    def __enter__(self) -> None:
        if self._address is not None:
            _listen(self._registry, *self._address)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        with self._opened:
            self.refresh()

    def collect(self) -> Iterator[Metric]:
        """Turn the figures into metrics, whenever Prometheus asks."""
        figures, servers = self._pool.stats.figures(), list(self._pool.servers)
        yield from _of_work(figures)
        yield from _of_requests(figures, dict.fromkeys(server.name for server in servers))
        yield from _of_servers(servers)
        is_up = float(self._is_mongodb_up)
        yield GaugeMetricFamily("stt_mongodb_up", "Whether MongoDB answered.", is_up)
        yield from self._backlog
        yield GaugeMetricFamily(
            "stt_run_start_timestamp_seconds", "When this run began.", self._started
        )
        yield _gauge("stt_build_info", "The version of stt.", {__version__: 1}, "version")

    @functools.cached_property
    def _store(self) -> Store:
        """Opened by the first query that finds MongoDB; each one fails at once while it is away."""
        uri, database = self._settings.mongodb_uri, self._settings.mongodb_database
        return self._opened.enter_context(Store(uri, database, mongo_wait=0.0, stop=self._over))

    def refresh(self) -> None:
        """Query the database and write the file."""
        try:
            self._backlog = list(_of_backlog(self._store))
            self._is_mongodb_up = True
        except Exception as error:  # noqa: BLE001 - monitoring must not disturb the work
            self._is_mongodb_up = False
            log.debug("The backlog is unknown: %s", error, extra=Event.METRICS.of())
        if self._file is not None:
            self._write(self._file)

    def _keep(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            began = time.monotonic()
            self.refresh()
            took = time.monotonic() - began if self._is_mongodb_up else 0.0
            pause = max(INTERVAL_SECONDS, took / LARGEST_SHARE)

    def _write(self, file: Path) -> None:
        try:
            write_whole(file, generate_latest(self._registry).decode())
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                cannot_write("metrics", file, error)


class _Port(ThreadingHTTPServer):
    """Serves metrics to a limited number of clients at once, and drops those that are too slow."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self.address_family = socket.getaddrinfo(host, port)[0][0]
        self._free = threading.BoundedSemaphore(MOST_CLIENTS)
        attributes = {"registry": registry, "timeout": CLIENT_SECONDS}
        super().__init__((host, port), type("Handler", (MetricsHandler,), attributes))

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no concern of the run."""


def _listen(registry: CollectorRegistry, host: str, port: int) -> _Port:
    """Serve in a thread that ends with the process."""
    try:
        server = _Port(registry, host, port)
    except OSError as error:
        raise ConfigurationError(
            f"--metrics-port: cannot listen on {host}:{port} ({error.strerror or error});"
            " choose another port, or --metrics-file where several runs overlap"
        ) from None
    threading.Thread(target=server.serve_forever, name="stt-metrics-port", daemon=True).start()
    url = f"http://{host}:{server.server_port}/metrics"
    log.info("Metrics at %s", url, extra=Event.METRICS.of())
    return server


def _of_work(figures: Figures) -> Iterator[Metric]:
    ended = {outcome: figures.sequences[outcome] for outcome in Outcome}
    yield _counter("stt_sequences", "Sequences that ended in this run.", ended, "outcome")
    chunks = {outcome: figures.chunks[outcome] for outcome in ENDS}
    yield _counter("stt_chunks", "Chunks that ended in this run.", chunks, "outcome")
    audio = {outcome: figures.audio[outcome] for outcome in ENDS}
    yield _counter("stt_audio_seconds", "Audio of these chunks.", audio, "outcome")
    text = "Filtering, saving and marking one result."
    yield _histogram("stt_save_duration_seconds", text, {(): figures.saves})


def _of_requests(figures: Figures, names: Iterable[str]) -> Iterator[Metric]:
    servers = {name: figures.servers[name] for name in names}
    ended = {(name, "answered"): server.answered for name, server in servers.items()}
    ended |= {(name, "failed"): server.failed for name, server in servers.items()}
    yield _counter("stt_requests", "Requests that ended.", ended, "server", "result")
    errors = {
        (name, kind): count
        for name, server in servers.items()
        for kind, count in server.errors.items()
    }
    yield _counter("stt_request_errors", "Requests that failed.", errors, "server", "kind")
    retries = {name: server.retries for name, server in servers.items()}
    yield _counter("stt_retries", "Requests sent again.", retries, "server")
    times = {name: server.times for name, server in servers.items()}
    text = "Duration of answered requests."
    yield _histogram("stt_request_duration_seconds", text, times, "server")
    ratios = {name: server.ratios for name, server in servers.items()}
    text = "Their duration per second of audio."
    yield _histogram("stt_request_realtime_ratio", text, ratios, "server")


def _of_servers(servers: Iterable[Server]) -> Iterator[Metric]:
    """Addresses of one name count as one server, which is open when all of them are."""
    in_flight, limit, is_open = Counter[str](), Counter[str](), dict[str, float]()
    for server in servers:
        in_flight[server.name] += server.in_flight
        limit[server.name] += server.limit.value
        is_open[server.name] = min(is_open.get(server.name, 1.0), float(server.is_out))
    yield _gauge("stt_requests_in_flight", "Requests in flight.", in_flight, "server")
    text = "Maximum number of concurrent requests to a server."
    yield _gauge("stt_server_limit", text, limit, "server")
    text = "1 while a server gets no requests."
    yield _gauge("stt_server_breaker_open", text, is_open, "server")


def _of_backlog(store: Store) -> Iterator[Metric]:
    """The contents of the database, whoever worked on it."""
    kinds = store.failures.kinds()
    pending, parked = store.chunks.count_pending(), sum(kind.parked for kind in kinds)
    yield GaugeMetricFamily("stt_pending_chunks", "Pending chunks in the database.", pending)
    text = "Chunks that failed too often to be retried automatically."
    yield GaugeMetricFamily("stt_parked_chunks", text, parked)
    failed = {kind.kind: kind.chunks for kind in kinds}
    text = "Chunks that failed and are not transcribed, including parked ones."
    yield _gauge("stt_failed_chunks", text, failed, "kind")
    _, last = store.chunks.first_and_last_pending(SEVERAL)
    oldest = min((chunk.start for chunk in last if chunk.start is not None), default=None)
    if oldest is not None:
        name = "stt_oldest_pending_timestamp_seconds"
        text = "When the oldest pending chunk was recorded."
        yield GaugeMetricFamily(name, text, oldest.timestamp())
    done = store.statistics.last_done()
    if done is not None:
        name = "stt_last_transcribed_timestamp_seconds"
        text = "When a transcript was last saved, by any worker."
        yield GaugeMetricFamily(name, text, done.timestamp())


def _family(
    make: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    values: Mapping[Any, float],
    *labels: str,
) -> Metric:
    family = make(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_labels(key), value)
    return family


_counter = functools.partial(_family, CounterMetricFamily)
_gauge = functools.partial(_family, GaugeMetricFamily)


def _histogram(
    name: str, text: str, values: Mapping[Any, Observations], *labels: str
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, seen in values.items():
        bounds = (*map(str, seen.bounds), "+Inf")
        counts = map(float, itertools.accumulate(seen.buckets))
        family.add_metric(_labels(key), list(zip(bounds, counts, strict=True)), seen.total)
    return family


def _labels(key: str | tuple[str, ...]) -> Sequence[str]:
    return (key,) if isinstance(key, str) else key

"""Exposes the metrics of a run to Prometheus, if requested."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from stt_lib.config.settings import Settings
from stt_lib.servers.pool import ServerPool
from stt_lib.store import Store

SEVERAL: Final = 20
"""Chunks. The oldest of this many last ones is taken, because some may have no usable start."""


@contextmanager
def exposed(settings: Settings, store: Store, pool: ServerPool) -> Iterator[None]:
    """Expose the metrics of the run within the block.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    if settings.metrics_port is None and settings.metrics_file is None:
        yield  # without importing anything for it
        return
    from stt_lib.telemetry.metrics import BacklogState, Exporter, RunCollector, ServerState

    def look() -> BacklogState:
        _, last = store.chunks.first_and_last_pending(SEVERAL)
        starts = [chunk.start for chunk in last if chunk.start is not None]
        kinds = store.failures.kinds()
        return BacklogState(
            pending=store.chunks.count_pending(),
            parked=sum(kind.parked for kind in kinds),
            failed={kind.kind: kind.chunks for kind in kinds},
            oldest=min(starts, default=None),
            last_done=store.statistics.last_done(),
        )

    def servers() -> Iterator[ServerState]:
        for name in {server.name: None for server in pool.servers}:
            alike = [server for server in pool.servers if server.name == name]
            yield ServerState(
                name,
                in_flight=sum(server.in_flight for server in alike),
                limit=sum(server.limit.value for server in alike),
                is_open=all(server.is_out for server in alike),
            )

    exporter = Exporter(
        RunCollector(pool.stats, servers),
        look,
        address=settings.metrics_port,
        file=settings.metrics_file,
    )
    try:
        yield
    finally:
        exporter.close()

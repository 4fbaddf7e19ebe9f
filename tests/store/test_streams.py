"""Streams that nobody reads to their end, as after an error in between."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stt_lib.domain.models import Selection
from stt_lib.store import Store, mapping
from tests.store.conftest import LONG_AGO, plan, transcript
from tests.support.world import World

STREAMS: dict[str, Callable[[Store], Iterator[Any]]] = {
    "pending": lambda store: store.chunks.pending(run_started=store.now()),
    "to_retranscribe": lambda store: store.transcripts.to_retranscribe(Selection()),
}


@pytest.mark.parametrize("name", STREAMS)
def test_one_that_the_garbage_collector_ends_takes_no_lock_of_the_driver(
    world: World, store: Store, name: str
) -> None:
    """The collector runs anywhere, also where the driver holds its lock and would wait for it."""
    for _ in range(1001):  # more than a batch, so that the cursor stays open
        world.record(range(1))
    documents = [mapping.transcript(transcript(sequence), LONG_AGO) for sequence in plan(store)]
    world.transcriptions.insert_many(documents)
    streams = [STREAMS[name](store)]
    next(streams[0])
    dropping = threading.Thread(target=streams.clear, daemon=True)
    with store._db._client._topology._lock:
        dropping.start()
        dropping.join(10)
        has_waited = dropping.is_alive()
    assert not has_waited

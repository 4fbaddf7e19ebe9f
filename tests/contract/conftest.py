"""The stores that have to keep the contract, each with a way to look at its documents."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

import pymongo.errors
import pytest

from stt_lib.domain.models import ChunkRef, ChunkSequence, Segment, Transcript, identity
from stt_lib.store import Store
from tests.support.manual_time import START, ManualTiming
from tests.support.memory_database import Document
from tests.support.memory_store import Away, MemoryStore, Network
from tests.support.world import World

LEASE = 0.5
"""Seconds. The real store has to wait for its end."""


class Bench(Protocol):
    """A store with an empty database behind it."""

    store: MemoryStore

    def insert(self, document: Document) -> None:
        """Insert a chunk as an ingester does."""

    def chunk(self, chunk_id: Any) -> Document:
        """A chunk as it is stored."""

    def wait(self, seconds: float) -> None: ...

    def lose_answer(self, meanwhile: Callable[[], object]) -> None:
        """Lose the answer to the next replacement; `meanwhile` happens before it is repeated."""


class Lossy(Network):
    """Loses the answers to replacements, once each."""

    def __init__(self) -> None:
        self.losses: list[Callable[[], object]] = []

    def after(self, command: str) -> None:
        if command == "replace" and self.losses:
            self.losses.pop()()
            raise Away("the answer was lost")


class MemoryBench:
    def __init__(self) -> None:
        self.timing = ManualTiming()
        self._network = Lossy()
        self.store = MemoryStore(
            lease=LEASE, mongo_wait=1, timing=self.timing, network=self._network
        )
        self.store.database.guard = threading.RLock()

    def insert(self, document: Document) -> None:
        self.store.database.chunks.insert(document)

    def chunk(self, chunk_id: Any) -> Document:
        found = self.store.database.chunks.get(chunk_id)
        assert found is not None
        return found

    def wait(self, seconds: float) -> None:
        self.timing.sleep(seconds)

    def lose_answer(self, meanwhile: Callable[[], object]) -> None:
        self._network.losses.append(meanwhile)


class MongoBench:
    def __init__(self, world: World, store: Store) -> None:
        self.store = cast(MemoryStore, store)
        self._real = store
        self._world = world

    def insert(self, document: Document) -> None:
        self._world.chunks.insert_one(document)

    def chunk(self, chunk_id: Any) -> Document:
        found = self._world.chunks.find_one({"_id": chunk_id})
        assert found is not None
        return found

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def lose_answer(self, meanwhile: Callable[[], object]) -> None:
        transcriptions = self._real._db.transcriptions
        replace_one = transcriptions.replace_one

        def replaced(*arguments: Any) -> None:
            transcriptions.replace_one = replace_one  # type: ignore[method-assign]
            replace_one(*arguments)
            meanwhile()
            raise pymongo.errors.AutoReconnect("the answer was lost")

        transcriptions.replace_one = replaced  # type: ignore[method-assign, assignment]


@pytest.fixture(params=["memory", "mongo"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield MemoryBench()
        return
    world: World = request.getfixturevalue("world")
    with Store(world.uri, world.database, lease=LEASE, mongo_wait=5) as store:
        store.indexes.ensure()
        yield MongoBench(world, store)


def document(index: int, *, recording: Any = "rec", **fields: Any) -> Document:
    """A pending chunk of ten seconds."""
    return {
        "_id": f"{recording}-{index}",
        "original_id": recording,
        "index": index,
        "start": START + timedelta(seconds=10 * index),
        "data": b"audio",
        "format": "opus",
        "ingested_at": START,
        "vad": {"prob": 0.9, "has_speech": True},
        "transcribed_at": None,
        **fields,
    }


def reference(index: int, recording: Any = "rec") -> ChunkRef:
    start = START + timedelta(seconds=10 * index)
    return ChunkRef(f"{recording}-{index}", recording, identity(recording), index, start)


def sequence(*indexes: int, recording: Any = "rec") -> ChunkSequence:
    return ChunkSequence(tuple(reference(index, recording) for index in indexes))


def transcript(bench: Bench, *indexes: int, recording: Any = "rec", **fields: Any) -> Transcript:
    def at(seconds: float) -> datetime:
        return START + timedelta(seconds=seconds)

    made: dict[str, Any] = {
        "id": bench.store.transcripts.new_id(),
        "original_id": recording,
        "start": at(10 * indexes[0]),
        "end": at(10 * indexes[-1] + 10),
        "chunk_ids": tuple(f"{recording}-{index}" for index in indexes),
        "segments": (Segment(0.0, 2.0, " hello there"),),
        "language": "en",
        "top_language_probs": (("en", 0.99),),
        "model": "tiny",
        "server": "http://stt:8000",
    }
    return Transcript(**{**made, **fields})

"""Group commit: overlapping calls share a command, and every caller learns its own fate."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stt_lib.domain.models import ChunkSequence, Segment
from stt_lib.errors import StoreError, StoreUnavailable, WriteRefused
from stt_lib.local.mongod import Mongod
from stt_lib.store import Store
from stt_lib.store.group_commit import LARGEST_GROUP, GroupCommit
from stt_lib.timing import REAL
from tests.store.conftest import plan, transcript
from tests.support.lossy import lossy
from tests.support.world import START, World

GROUP = 8


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Groups:
    """A write that can be held up, and the groups that it was called with."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = threading.Event()
        self.failure: BaseException | None = None
        self.commit: GroupCommit[int, int] = GroupCommit(self.write, REAL)

    def write(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append(list(items))
        assert self.gate.wait(10)
        if self.failure is not None and len(self.groups) == 1:
            raise self.failure
        return [ValueError(item) if item < 0 else item * 2 for item in items]

    def waiting(self) -> int:
        return len(self.commit._waiting)


@contextmanager
def overlapping(groups: Groups, items: Sequence[int]) -> Iterator[list[Future[int]]]:
    """The first item is being written when the others arrive."""
    with ThreadPoolExecutor(len(items)) as threads:
        futures = [threads.submit(groups.commit.submit, items[0])]
        until(lambda: groups.groups)
        futures += [threads.submit(groups.commit.submit, item) for item in items[1:]]
        until(lambda: groups.waiting() == len(items) - 1)
        groups.gate.set()
        yield futures


def test_a_lone_caller_is_served_alone_and_at_once() -> None:
    groups = Groups()
    groups.gate.set()
    assert [groups.commit.submit(item) for item in (1, 2, 3)] == [2, 4, 6]
    assert groups.groups == [[1], [2], [3]]


def test_callers_that_arrive_during_a_command_share_the_next() -> None:
    groups = Groups()
    with overlapping(groups, range(1, 10)) as futures:
        assert [future.result(10) for future in futures] == [2 * n for n in range(1, 10)]
    assert [len(group) for group in groups.groups] == [1, 8]


def test_each_caller_sees_its_own_exception() -> None:
    groups = Groups()
    with overlapping(groups, [1, 2, -3, 4]) as futures:
        assert [f.result(10) for f in futures if not f.exception(10)] == [2, 4, 8]
    assert [str(e) for f in futures if (e := f.exception())] == ["-3"]


def test_a_failure_of_the_command_is_everybodys() -> None:
    groups = Groups()
    groups.failure = StoreUnavailable("away")
    with overlapping(groups, [1, 2, 3]) as futures:
        with pytest.raises(StoreUnavailable):
            futures[0].result(10)
        assert [future.result(10) for future in futures[1:]] == [4, 6]


def test_when_a_leader_is_torn_away_another_takes_over() -> None:
    groups = Groups()
    groups.failure = KeyboardInterrupt()
    with overlapping(groups, [1, 2, 3]) as futures:
        assert [future.result(10) for future in futures[1:]] == [4, 6]
    assert isinstance(futures[0].exception(), KeyboardInterrupt)


def test_a_group_has_a_largest_size() -> None:
    groups = Groups()
    with overlapping(groups, range(LARGEST_GROUP + 11)) as futures:
        assert all(future.result(10) == 2 * n for n, future in enumerate(futures))
    assert [len(group) for group in groups.groups] == [1, LARGEST_GROUP, 10]


# -- against MongoDB: one of eight goes wrong, the other seven are unharmed -------------------


class Held:
    """Holds up the first bulk write of a store until the others stand in line."""

    def __init__(self, store: Store, group: GroupCommit[Any, Any], size: int) -> None:
        self.commands: list[int] = []
        self._bulk = store._db.bulk
        self._group = group
        self._size = size
        store._db.bulk = self._held  # type: ignore[method-assign]

    def _held(self, collection: Any, operations: Sequence[Any]) -> Any:
        self.commands.append(len(operations))
        if len(self.commands) == 1:
            until(lambda: len(self._group._waiting) == self._size)
        return self._bulk(collection, operations)


def together(
    store: Store,
    group: GroupCommit[Any, Any],
    first: Callable[[], Any],
    calls: Sequence[Callable[[], Any]],
) -> list[Any]:
    """Results or exceptions of calls that share one command, which `first` made wait."""
    held = Held(store, group, len(calls))
    with ThreadPoolExecutor(len(calls) + 1) as threads:
        leader = threads.submit(first)
        until(lambda: held.commands)
        futures = [threads.submit(call) for call in calls]
        leader.result(20)
        outcomes = [future.exception(20) or future.result() for future in futures]
    assert held.commands[:2] == [1, len(calls)]
    return outcomes


@pytest.fixture
def sequences(world: World, store: Store) -> list[ChunkSequence]:
    for number in range(GROUP + 2):
        world.record(range(2), original_id=number)
    return plan(store)


def saves(store: Store, sequences: list[ChunkSequence], **odd: Any) -> list[Any]:
    """Save `GROUP` transcripts together; the fields `odd` are those of the fourth one."""
    transcripts = [transcript(sequence) for sequence in sequences[:GROUP]]
    transcripts[3] = transcript(sequences[3], **odd)
    extra = transcript(sequences[GROUP])
    calls = [partial(store.transcripts.save, t) for t in transcripts]
    return together(store, store.transcripts._saving, lambda: store.transcripts.save(extra), calls)


def assert_others_saved(world: World, outcomes: list[Any]) -> None:
    assert [outcome for at, outcome in enumerate(outcomes) if at != 3] == [True] * (GROUP - 1)
    assert world.transcriptions.count_documents({}) == GROUP


@pytest.mark.parametrize("bad", [2**64, 2**70, "\ud800", object()])
def test_a_document_that_cannot_be_encoded(
    world: World, store: Store, sequences: list[ChunkSequence], bad: Any
) -> None:
    """It does not even join the group."""
    odd = transcript(sequences[3], parameters={"n": bad})
    with pytest.raises(StoreError):
        store.transcripts.save(odd)
    assert world.transcriptions.count_documents({}) == 0


def test_a_document_beyond_the_limit(
    world: World, store: Store, sequences: list[ChunkSequence]
) -> None:
    huge = (Segment(0.0, 1.0, "x" * (16 * 1024 * 1024)),)
    with pytest.raises(StoreError, match="too large"):
        store.transcripts.save(transcript(sequences[3], segments=huge))
    assert world.transcriptions.count_documents({}) == 0


def test_a_document_that_the_server_refuses(
    world: World, store: Store, sequences: list[ChunkSequence]
) -> None:
    world.db.command("collMod", "transcriptions", validator={"model": {"$ne": "odd"}})
    outcomes = saves(store, sequences, model="odd")
    assert isinstance(outcomes[3], WriteRefused)
    assert "validator" in str(outcomes[3])
    assert_others_saved(world, outcomes)


def test_a_duplicate_key(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    world.transcriptions.insert_one(
        {
            "original": sequences[3].original_id,
            "chunk_ids": [sequences[3].newest.id],
            "start": START,
        }
    )
    outcomes = saves(store, sequences)
    assert outcomes[3] is False
    assert world.transcriptions.count_documents({}) == GROUP + 1
    assert outcomes.count(True) == GROUP - 1


def test_its_own_first_try(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    mine = transcript(sequences[3])
    assert store.transcripts.save(mine)
    outcomes = saves(store, sequences, id=mine.id)
    assert outcomes == [True] * GROUP
    assert world.transcriptions.count_documents({}) == GROUP + 1


def test_a_foreign_unique_index(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    """It is not taken for another worker's transcript."""
    world.transcriptions.create_index([("model", 1), ("server", 1)], unique=True)
    transcripts = [transcript(s, model=str(n)) for n, s in enumerate(sequences)]
    assert store.transcripts.save(transcripts[0])
    with pytest.raises(WriteRefused, match=r"unique index on \(model, server\)") as caught:
        store.transcripts.save(transcript(sequences[1], model="0"))
    assert caught.value.ids == tuple(chunk.id for chunk in sequences[1].chunks)
    assert store.transcripts.save(transcripts[1])


def test_refused_claims(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    assert store.claims.acquire(sequences[3], "other", "w")
    calls = [partial(store.claims.acquire, s, str(n), "w") for n, s in enumerate(sequences[:GROUP])]
    extra = sequences[GROUP]
    outcomes = together(
        store, store.claims._acquiring, lambda: store.claims.acquire(extra, "x", "w"), calls
    )
    assert outcomes == [True] * 3 + [False] + [True] * 4


def test_refused_marks(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    bad = sequences[3].chunks[0].id
    world.chunks.update_one({"_id": bad}, {"$set": {"is_frozen": True}})
    rule = {"$or": [{"is_frozen": None}, {"transcribed_at": None}]}
    world.db.command("collMod", "audio_chunks", validator=rule)

    def mark(sequence: ChunkSequence) -> None:
        store.chunks.mark([chunk.id for chunk in sequence.chunks], is_backed=True)

    calls = [partial(mark, s) for s in sequences[:GROUP]]
    extra = sequences[GROUP]
    outcomes = together(store, store.chunks._backed, lambda: mark(extra), calls)
    assert [at for at, outcome in enumerate(outcomes) if outcome is not None] == [3]
    assert outcomes[3].ids == (bad,)
    assert world.chunks.count_documents({"transcribed_at": None}) == 1 + 2


def test_releases(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    for number, sequence in enumerate(sequences):
        assert store.claims.acquire(sequence, str(number), "w")
    with ThreadPoolExecutor(GROUP) as threads:
        list(threads.map(store.claims.release, map(str, range(GROUP))))
    assert {claim["_id"] for claim in world.claims.find()} == {"8", "9"}


# -- answers that get lost, and failovers -----------------------------------------------------


@pytest.fixture(scope="module")
def faulty_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    arguments = ["--setParameter", "enableTestCommands=1"]
    with Mongod(tmp_path_factory.mktemp("faulty"), extra_args=arguments) as running:
        yield running


@pytest.fixture
def unsteady(faulty_mongod: Mongod, tmp_path: Path) -> Iterator[World]:
    """A database on a mongod that can be told to fail."""
    world = World(faulty_mongod.uri + "/?heartbeatFrequencyMS=500", tmp_path)
    for number in range(GROUP + 2):
        world.record(range(2), original_id=number)
    yield world
    world.client.admin.command("configureFailPoint", "failCommand", mode="off")
    world.close()


FAILOVERS: list[dict[str, Any]] = [
    {"errorCode": 10107},  # NotWritablePrimary: nothing was written
    {"errorCode": 189},  # PrimarySteppedDown
    {"closeConnection": True},
    {"writeConcernError": {"code": 91, "errmsg": "shutting down"}},  # written, by one member
    {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
]


@pytest.mark.parametrize("how", FAILOVERS)
def test_a_failover_in_the_middle_of_a_group(unsteady: World, how: dict[str, Any]) -> None:
    with Store(unsteady.uri, unsteady.database, mongo_wait=20) as store:
        store.indexes.ensure()
        sequences = plan(store)
        taken = transcript(sequences[3])
        assert store.transcripts.save(taken)
        unsteady.client.admin.command(
            "configureFailPoint",
            "failCommand",
            mode={"times": 1},
            data={"failCommands": ["insert"], **how},
        )
        outcomes = saves(store, sequences)
        assert outcomes == [True] * 3 + [False] + [True] * 4
        assert unsteady.transcriptions.count_documents({}) == GROUP + 1


@pytest.mark.parametrize("how", FAILOVERS)
def test_a_failover_while_claims_are_acquired(unsteady: World, how: dict[str, Any]) -> None:
    with Store(unsteady.uri, unsteady.database, mongo_wait=20) as store:
        store.indexes.ensure()
        sequences = plan(store)
        assert store.claims.acquire(sequences[3], "other", "w")
        unsteady.client.admin.command(
            "configureFailPoint",
            "failCommand",
            mode={"times": 1},
            data={"failCommands": ["update"], **how},
        )
        calls = [
            partial(store.claims.acquire, s, str(n), "w") for n, s in enumerate(sequences[:GROUP])
        ]
        extra = sequences[GROUP]
        with ThreadPoolExecutor(GROUP + 1) as threads:
            futures = [threads.submit(call) for call in calls]
            futures.append(threads.submit(store.claims.acquire, extra, "x", "w"))
            outcomes = [future.result(20) for future in futures]
        assert outcomes == [True] * 3 + [False] + [True] * 5
        assert unsteady.claims.count_documents({}) == GROUP + 1


def test_a_write_concern_that_cannot_be_met_is_said(unsteady: World) -> None:
    with Store(unsteady.uri, unsteady.database, mongo_wait=1) as store:
        store.indexes.ensure()
        unsteady.client.admin.command(
            "configureFailPoint",
            "failCommand",
            mode={"times": 1},
            data={
                "failCommands": ["insert"],
                "writeConcernError": {"code": 100, "errmsg": "not enough members"},
            },
        )
        with pytest.raises(StoreError):
            store.transcripts.save(transcript(plan(store)[0]))


def test_a_lost_answer(world: World, store: Store, sequences: list[ChunkSequence]) -> None:
    """Everything was done, and is done once."""
    port = int(world.uri.rpartition(":")[2])
    with lossy(port) as proxy, Store(proxy.uri, world.database, mongo_wait=20) as remote:
        taken = transcript(sequences[3])
        assert store.transcripts.save(taken)
        outcomes = saves(remote, sequences)
        assert proxy.lost["insert"] == 2
    assert outcomes == [True] * 3 + [False] + [True] * 4
    assert world.transcriptions.count_documents({}) == GROUP + 1

"""The indexes, the rights to create them, and the connection."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from stt_lib.errors import ConfigurationError, StoreUnavailable
from stt_lib.local.mongod import Mongod
from stt_lib.store import Store
from stt_lib.store.indexes import CLAIM, INDEXES, OBSOLETE, OWNER, Indexes
from tests.store.conftest import plan
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper
from tests.support.world import START, World

# -- indexes and plans ------------------------------------------------------------------------


def test_indexes_are_made_when_missing_and_only_then(world: World, store: Store) -> None:
    collections = {index.collection for index in INDEXES}
    names = {name for c in collections for name in world.db[c].index_information()}
    assert names == {"_id_", *(index.name for index in INDEXES)}
    assert len(world.chunks.index_information()) <= 5 + 1
    world.db.command("profile", 2)
    with Store(world.uri, world.database) as again:
        again.indexes.ensure()
        again.indexes.ensure_unique()
    world.db.command("profile", 0)
    assert (
        world.db["system.profile"].count_documents({"command.createIndexes": {"$exists": 1}}) == 0
    )


def test_without_patience_an_index_that_was_dropped_is_not_missed(
    world: World, store: Store
) -> None:
    world.record(range(3))
    with Store(world.uri, world.database, mongo_wait=0) as hasty:
        assert hasty.chunks.count_pending() == 3
        world.chunks.drop_index("stt_pending")
        assert hasty.chunks.count_pending() == 3


def test_an_index_that_is_listed_but_not_built_yet_is_waited_for(world: World) -> None:
    world.record(range(3))
    with (
        Store(world.uri, world.database, mongo_wait=10) as early,
        Store(world.uri, world.database) as builder,
    ):
        early.indexes._known = {"stt_pending": "stt_pending"}
        early._db.when_hint_fails = lambda: None
        later = threading.Timer(0.5, builder.indexes.ensure)
        later.start()
        assert early.chunks.count_pending() == 3
        assert [len(sequence) for sequence in early.with_retries(lambda: plan(early))] == [3]
        later.join()


@pytest.fixture
def building(tmp_path: Path) -> Iterator[World]:
    """A database whose indexes another run builds, until `hangs(world, False)`."""
    options = ["--setParameter", "enableTestCommands=1"]
    with Mongod(tmp_path / "mongod", extra_args=options) as mongod:
        world = World(mongod.uri, tmp_path, "http://127.0.0.1:1")
        world.record(range(3))
        hangs(world, True)
        with Store(world.uri, world.database) as builder:
            thread = threading.Thread(target=builder.indexes.ensure)
            thread.start()
            eventually(lambda: "stt_pending" in world.chunks.index_information())
            yield world
            hangs(world, False)
            thread.join(30)
        world.close()


def hangs(world: World, does: bool) -> None:
    mode = "alwaysOn" if does else "off"
    world.client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode=mode)


def waiting(world: World) -> int:
    """The number of those who wait for a build, whoever began it."""
    operations = world.client.admin.aggregate([{"$currentOp": {}}])
    return sum("createIndexes" in operation.get("command", {}) for operation in operations)


def test_the_build_of_another_run_is_waited_for_however_long_it_takes(building: World) -> None:
    counted: list[int] = []
    with Store(building.uri, building.database, mongo_wait=0) as early:
        counting = threading.Thread(
            target=lambda: counted.append(early.chunks.count_pending()), daemon=True
        )
        counting.start()
        eventually(lambda: waiting(building) == 2 or not counting.is_alive())
        hangs(building, False)
        counting.join(30)
    assert counted == [3]


def test_a_stop_ends_the_wait_for_the_build_of_another_run(
    building: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_lib.store.database.STOPPING_SECONDS", 0.5)
    stop = threading.Event()
    with Store(building.uri, building.database, stop=stop) as early:

        def count() -> None:
            with suppress(StoreUnavailable):
                early.chunks.count_pending()

        counting = threading.Thread(target=count, daemon=True)
        counting.start()
        eventually(lambda: waiting(building) == 2)
        stop.set()
        counting.join(30)
        assert not counting.is_alive()


def test_an_index_may_be_doubted_while_another_thread_asks_for_it(
    store: Store,
) -> None:
    class Doubted(Indexes):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, None if name == "_known" else value)

    indexes = Doubted(store._db)
    assert indexes.has("stt_owner")


def test_planning_reads_the_index_and_no_document(world: World, store: Store) -> None:
    for number in range(50):
        world.record(range(40), original_id=number, data=b"x" * 2000)
    world.chunks.update_many({"index": {"$lt": 10}}, {"$set": {"transcribed_at": START}})
    world.db.command("profile", 2)
    sequences = plan(store)
    assert store.chunks.count_pending() == 1500
    world.db.command("profile", 0)
    assert sum(map(len, sequences)) == 1500
    reads = list(
        world.db["system.profile"].find(
            {"op": {"$in": ["query", "command", "getmore"]}, "ns": f"{world.database}.audio_chunks"}
        )
    )
    assert reads
    for read in reads:
        assert read.get("docsExamined", 0) == 0, read
        assert not read.get("hasSortStage", False)


@pytest.fixture
def poor(auth_mongod: Mongod, tmp_path: Path, whisper: FakeWhisper) -> Iterator[tuple[World, str]]:
    """A world, and the URI of a user who may not create indexes in it."""
    world = World(f"mongodb://root:r00t-pw@127.0.0.1:{auth_mongod.port}/", tmp_path, whisper.url)
    actions = ["find", "insert", "update", "remove", "listIndexes"]
    privileges = [{"resource": {"db": world.database, "collection": ""}, "actions": actions}]
    world.db.command("createRole", "poor", privileges=privileges, roles=[])
    world.db.command("createUser", "joe", pwd="hunter2", roles=["poor"])
    yield world, f"mongodb://joe:hunter2@127.0.0.1:{auth_mongod.port}/{world.database}"
    world.db.command("dropUser", "joe")
    world.db.command("dropRole", "poor")
    world.close()


def test_without_a_unique_index_a_run_ends_with_the_command_to_paste(
    poor: tuple[World, str],
) -> None:
    world, uri = poor
    world.record(range(5))
    for index in (OWNER, CLAIM):
        with Store(uri) as store, pytest.raises(ConfigurationError) as caught:
            store.indexes.ensure()
        message = str(caught.value)
        assert f"Index {index.name} on {index.collection} is missing" in message
        assert index.command in message
        assert "hunter2" not in message
        paste(world, message)
    with Store(uri) as store:
        store.indexes.ensure()
    assert set(world.chunks.index_information()) == {"_id_"}, "the others cost only speed"


def paste(world: World, message: str) -> None:
    """Do what the message says; JSON is what mongosh understands, too."""
    command = message[message.index("createIndex(") :].removeprefix("createIndex(")
    collection = message[: message.index(".createIndex(")].rpartition("db.")[2]
    keys, options = json.loads("[" + command.rstrip(")") + "]")
    world.db[collection].create_index(list(keys.items()), **options)


def test_duplicates_are_named_with_the_query_that_lists_all(world: World) -> None:
    shared = [ObjectId() for _ in range(5)]
    for number in range(2):
        for chunk_id in shared:
            world.transcriptions.insert_one({"original": 1, "chunk_ids": [chunk_id, number]})
    duplicates = pytest.raises(ConfigurationError, match="There are duplicates")
    with Store(world.uri, world.database) as store, duplicates as caught:
        store.indexes.ensure()
    message = str(caught.value)
    named = {str(d["_id"]) for d in world.transcriptions.find() if str(d["_id"]) in message}
    assert len(named) >= 3
    query = message[message.index("aggregate(") + len("aggregate(") : message.rindex("). Remove")]
    listed = list(world.transcriptions.aggregate(json.loads(query)))
    assert len(listed) == 5 + 2
    assert all(len(row["documents"]) > 1 for row in listed)


def test_a_transcript_that_names_a_chunk_twice_is_no_duplicate(world: World) -> None:
    world.transcriptions.insert_one({"original": 1, "chunk_ids": [7, 7]})
    with Store(world.uri, world.database) as store:
        store.indexes.ensure()


@pytest.mark.parametrize(
    "options", [{}, {"unique": True, "partialFilterExpression": {"model": "x"}}]
)
def test_an_index_that_forbids_less_does_not_count(world: World, options: dict[str, Any]) -> None:
    world.transcriptions.create_index(OWNER.keys, name="stt_owner", **options)
    with Store(world.uri, world.database) as store, pytest.raises(ConfigurationError):
        store.indexes.ensure()


def test_a_dropped_collection_gets_its_indexes_again(world: World, store: Store) -> None:
    """As after `mongorestore --drop`, in the middle of a run."""
    world.record(range(3))
    assert len(plan(store)) == 1
    for name in ("audio_chunks", "transcriptions", "stt_claims"):
        world.db[name].drop()
    world.record(range(4))
    assert [len(s) for s in store.with_retries(lambda: plan(store))] == [4]
    store.indexes.ensure_unique()
    assert store.indexes.missing() == []
    [sequence] = plan(store)
    assert store.claims.acquire(sequence, "one", "w")
    assert not store.claims.acquire(sequence, "two", "w")


def test_indexes_that_nothing_needs_any_more_are_dropped(world: World) -> None:
    for name in OBSOLETE:
        world.chunks.create_index([(name, 1)], name=name)
    with Store(world.uri, world.database) as store:
        store.indexes.ensure()
    assert not set(OBSOLETE) & set(world.chunks.index_information())


def test_a_wrong_password_is_a_matter_of_configuration(auth_mongod: Mongod) -> None:
    with pytest.raises(ConfigurationError, match="user and password") as caught:
        Store(f"mongodb://root:wr0ng@127.0.0.1:{auth_mongod.port}/")
    assert "wr0ng" not in str(caught.value)


def test_the_database_is_the_named_one_else_that_of_the_uri_else_stt(world: World) -> None:
    for uri, name, expected in [
        (world.uri, None, "stt"),
        (world.uri + "/other", None, "other"),
        (world.uri + "/other", "mine", "mine"),
    ]:
        with Store(uri, name) as store:
            assert store.name == expected


def test_an_absent_mongodb_is_told_within_its_time() -> None:
    began = datetime.now(UTC)
    with pytest.raises(StoreUnavailable, match="is it running"):
        Store(f"mongodb://127.0.0.1:{free_port()}")
    assert datetime.now(UTC) - began < timedelta(seconds=8)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://x", None),
        ("mongodb://h:999999", None),
        ("mongodb://[::1", None),
        ("mongodb://h", "a b"),
        ("mongodb://h", "a/b"),
        ("mongodb://h", "x\x00y"),
    ],
)
def test_what_the_driver_cannot_use_is_a_matter_of_configuration(
    uri: str, name: str | None
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Store(uri, name)
    assert "\n" not in str(caught.value)


def test_a_name_that_mongodb_refuses_is_a_matter_of_configuration(world: World) -> None:
    with (
        pytest.raises(ConfigurationError, match="MONGODB_DATABASE"),
        Store(world.uri, "x" * 99) as s,
    ):
        s.indexes.ensure()

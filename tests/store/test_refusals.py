"""What MongoDB refuses in the middle of a run is said, costs only itself, and is not repeated."""

import time
from collections.abc import Callable
from typing import Any

import bson
import pytest
from pymongo.errors import OperationFailure

from stt_lib.store import Store
from stt_lib.store.database import LARGEST_DOCUMENT
from tests.support.whisper import FakeWhisper, echo, status
from tests.support.world import World, chunk


def test_a_foreign_unique_index_on_transcriptions_is_named_and_no_work_is_repeated(
    world: World, whisper: FakeWhisper
) -> None:
    """It is not taken for another worker's transcript, which would repeat the work for ever."""
    world.transcriptions.create_index("language", unique=True, name="theirs")
    for number in range(3):
        world.record(range(2), original_id=number)
    done = world.run()
    assert done.returncode == 1, done.stderr
    assert "a unique index on (language) of transcriptions" in done.stderr
    assert "internal" not in done.stderr
    assert world.transcriptions.count_documents({}) == 1
    assert len(whisper.sequences) == 3
    assert world.claims.count_documents({}) == 0
    again = world.run()
    assert again.returncode in (0, 1)
    world.transcriptions.drop_index("theirs")
    world.chunks.update_many({}, {"$unset": {"stt.retry_at": 1, "stt.parked_at": 1}})
    assert world.run().returncode == 0
    world.assert_all_done()


def test_a_validator_on_transcriptions_is_named(world: World, whisper: FakeWhisper) -> None:
    world.db.create_collection("transcriptions", validator={"model": "another"})
    world.record(range(2))
    done = world.run()
    assert done.returncode == 1, done.stderr
    assert "a validator of the collection forbids the document" in done.stderr
    assert "internal" not in done.stderr
    [kind] = world.chunks.distinct("stt.error.kind")
    assert kind != "internal"


def test_a_chunk_that_cannot_be_changed_does_not_stop_the_run(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(5))
    world.chunks.update_one({"index": 2}, {"$set": {"is_frozen": True}})
    rule = {"$or": [{"is_frozen": None}, {"transcribed_at": None, "stt": None}]}
    world.db.command("collMod", "audio_chunks", validator=rule)
    done = world.run()
    assert done.returncode == 1, done.stderr
    assert "validator" in done.stderr
    assert [chunk["index"] for chunk in world.pending()] == [2]
    assert set(world.owners().values()) == {1}
    assert world.claims.count_documents({}) == 0


def test_a_chunk_just_below_the_largest_size_costs_only_itself(
    world: World, whisper: FakeWhisper
) -> None:
    """Its error does not fit into the document, so it is in the log."""
    recording = world.record([0, 2])
    full = chunk(recording, 1, data=b"")
    full["data"] = bytes(LARGEST_DOCUMENT - len(bson.encode(full)) - 40)
    world.chunks.insert_one(full)
    whisper.script = lambda r: status(400) if full["data"] in r.audio else echo(r)
    done = world.run()
    assert done.returncode == 1, done.stderr
    assert "the document would be too large" in done.stderr
    assert [left["index"] for left in world.pending()] == [1]
    assert world.claims.count_documents({}) == 0


def drop_indexes(world: World) -> None:
    for name in ("audio_chunks", "transcriptions", "stt_claims"):
        world.db[name].drop_indexes()


def drop_transcripts_and_claims(world: World) -> None:
    world.transcriptions.drop()
    world.claims.drop()


DROPS: dict[str, Callable[[World], object]] = {
    "the index of the backlog": lambda world: world.chunks.drop_index("stt_pending"),
    "all indexes": drop_indexes,
    "the chunks": lambda world: world.chunks.drop(),
    "transcripts and claims": drop_transcripts_and_claims,
    "the database": lambda world: world.client.drop_database(world.database),
}


@pytest.mark.parametrize("dropped", DROPS)
def test_a_watching_run_goes_on_after_something_was_dropped(
    world: World, whisper: FakeWhisper, dropped: str
) -> None:
    """As by `mongorestore --drop`: the indexes are built again, and new chunks transcribed."""
    world.record(range(2))
    process = world.start("--watch", "0.2")
    try:
        wait_for(lambda: not world.pending(), world)
        DROPS[dropped](world)
        world.record(range(3), original_id="new")
        wait_for(lambda: not world.pending(), world)
        wait_for(lambda: "stt_owner" in world.transcriptions.index_information(), world)
        assert "stt_claim" in world.claims.index_information()
        world.record([0], original_id="later")
        wait_for(lambda: "stt_pending" in world.chunks.index_information(), world)
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "MongoDB is not available" not in world.log
    assert set(world.owners().values()) == {1}


def wait_for(condition: Any, world: World, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, world.log
        time.sleep(0.05)


def test_a_single_mongod_that_comes_back_is_not_blamed_on_the_audio(store: Store) -> None:
    """The driver sometimes sends it what only members of a replica set accept, once."""
    refusals = [OperationFailure("it does not support retryable writes: add retryWrites=false", 20)]

    def operation() -> str:
        if refusals:
            raise refusals.pop()
        return "done"

    assert store._db.run(operation) == "done"

"""`--watch`: new chunks are picked up within seconds, for as long as the service runs."""

import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from stt_lib.config.loader import load
from stt_lib.local.mongod import Mongod
from stt_lib.pipeline.watcher import IDLE_SECONDS, Idleness
from tests.support.crew import Crew, Hand, eventually
from tests.support.replicas import ReplicaSet
from tests.support.whisper import FakeWhisper, Reply, Request, echo
from tests.support.world import START, World

SECONDS = 5.0


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew() as crew:
        yield crew


def is_done(world: World, recordings: int) -> bool:
    return world.transcriptions.count_documents({}) == recordings and not world.pending()


def eventually_done(world: World, recordings: int, hand: Hand, seconds: float = 20.0) -> None:
    eventually(lambda: is_done(world, recordings), seconds, f"all transcribed\n{hand.log}")


# -- news -------------------------------------------------------------------------------------


def test_new_chunks_are_picked_up_within_seconds_on_a_standalone(
    world: World, whisper: FakeWhisper, crew: Crew
) -> None:
    world.record(range(3), original_id="first")
    hand = crew.start(world, "--watch", "0.5")
    eventually_done(world, 1, hand)
    for number in range(2):
        world.record(range(2), original_id=number, start=START + timedelta(days=number))
        inserted = time.monotonic()
        eventually_done(world, 2 + number, hand)
        assert time.monotonic() - inserted < SECONDS
    assert "MongoDB reports no changes" in hand.log
    hand.signal(signal.SIGTERM)
    asked = time.monotonic()
    assert hand.end(10) == 143
    assert time.monotonic() - asked < 2, "idle, it ends at once"
    assert "Finished: 3 sequences" in hand.log
    world.assert_all_done()


@pytest.fixture
def watching(tmp_path: Path, whisper: FakeWhisper, crew: Crew) -> Iterator[tuple[World, Hand]]:
    """A worker on a replica set; looking by itself every ten minutes, it would see nothing."""
    with ReplicaSet(tmp_path / "set", members=1) as replicas:
        world = World(replicas.uri, tmp_path, whisper.url)
        world.record([0], original_id="first")
        hand = crew.start(world, "--watch", "600")
        eventually_done(world, 1, hand)
        eventually(lambda: has_change_stream(world), 20, "a change stream")
        yield world, hand
        world.close()


def test_a_replica_set_tells_at_once(watching: tuple[World, Hand]) -> None:
    world, hand = watching
    world.record([0], original_id="second")
    eventually_done(world, 2, hand, SECONDS)
    world.record([0], original_id="third", silent=[0])
    ran = {"vad.has_speech": True, "vad.prob": 0.8}
    world.chunks.update_one({"original_id": "third"}, {"$set": ran})
    eventually_done(world, 3, hand, SECONDS)


def test_a_restored_collection_is_watched_as_the_old_one(watching: tuple[World, Hand]) -> None:
    """`mongorestore --drop` ends every change stream of a collection."""
    world, hand = watching
    world.chunks.drop()
    world.record([0], original_id="second")
    eventually_done(world, 2, hand)
    eventually(lambda: has_change_stream(world), 20, "another change stream")
    world.client.drop_database(world.database)
    world.record([0], original_id="third")
    eventually_done(world, 1, hand)
    assert "MongoDB reports no changes" not in hand.log


def has_change_stream(world: World) -> bool:
    current = world.client.admin.aggregate([{"$currentOp": {"idleCursors": True}}])
    return any("$changeStream" in str(operation.get("cursor")) for operation in current)


def test_new_speech_never_waits_behind_old(world: World, whisper: FakeWhisper, crew: Crew) -> None:
    for number in range(60):
        world.record([0], original_id=number, start=START + timedelta(hours=number))
    asked: list[bytes] = []

    def slow(request: Request) -> Reply:
        asked.append(request.audio[0])
        time.sleep(0.2)
        return echo(request)

    whisper.script = slow
    crew.start(world, "--watch", "0.5")
    whisper.wait_for(lambda: len(asked) > 3)
    world.record([0], original_id="new", start=START + timedelta(days=30))
    whisper.wait_for(lambda: any(audio.startswith(b"new") for audio in asked))
    assert len(asked) < 30


# -- what becomes due --------------------------------------------------------------------------


def test_what_failed_is_tried_again_when_it_is_due_and_claims_when_they_expire(
    world: World, whisper: FakeWhisper, crew: Crew
) -> None:
    world.record([0], original_id="held")
    held = world.chunks.find_one({"original_id": "held"})
    assert held is not None
    now = world.client.admin.command("hello")["localTime"]
    until = now + timedelta(seconds=2.5)
    claim = {"_id": "dead", "chunk_ids": [held["_id"]], "until": until, "lease_ms": 2500}
    world.claims.insert_one(claim)
    world.record([0], original_id="failed")
    world.chunks.update_one(
        {"original_id": "failed"},
        [
            {
                "$set": {
                    "stt.error": {"kind": "connection", "at": "$$NOW"},
                    "stt.retry_at": {"$add": ["$$NOW", 2500]},
                }
            }
        ],
    )
    hand = crew.start(world, "--watch", "0.5")
    eventually(lambda: "Using 1 parallel" in hand.log, 20, "a start")
    assert not whisper.requests
    eventually_done(world, 2, hand)
    eventually(lambda: not world.claims.count_documents({}), 5, "the claims released")
    world.assert_all_done()


def test_what_fails_waits_before_it_is_tried_again(
    world: World, whisper: FakeWhisper, crew: Crew
) -> None:
    world.record([0], original_id="bad", start=START + timedelta(hours=1))
    whisper.script = lambda r: Reply(raw=b"") if r.audio[0].startswith(b"bad") else echo(r)
    hand = crew.start(world, "--watch", "0.5", "--retries", "0")
    eventually(lambda: "Error processing" in hand.log, 20, "a failure")
    for number in range(2):
        world.record([0], original_id=number)
        eventually_transcribed(world, number + 1)
    tries = [r for r in whisper.sequences if r.audio[0].startswith(b"bad")]
    assert len(tries) == 1
    [left] = (chunk for chunk in world.pending() if chunk["original_id"] == "bad")
    waits = left["stt"]["retry_at"] - left["stt"]["error"]["at"]
    assert timedelta(seconds=15) <= waits <= timedelta(seconds=30)


def eventually_transcribed(world: World, recordings: int) -> None:
    eventually(
        lambda: world.transcriptions.count_documents({}) == recordings, 15, "the transcripts"
    )


def test_after_a_kill_the_next_one_goes_on(world: World, whisper: FakeWhisper, crew: Crew) -> None:
    world.record(range(3))
    whisper.script = lambda r: Reply(raw=b"") if whisper.released.wait(20) else echo(r)
    hand = crew.start(world, "--watch", "0.5", "--lease", "3")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    assert hand.kill()
    whisper.script = echo
    again = crew.start(world, "--watch", "0.5", "--lease", "3")
    eventually_done(world, 1, again)
    world.assert_all_done()


# -- what it depends on ------------------------------------------------------------------------


def test_it_outlives_a_server_that_is_away(world: World, whisper: FakeWhisper, crew: Crew) -> None:
    whisper.stop()
    world.record([0])
    hand = crew.start(world, "--watch", "0.5")
    eventually(lambda: "rests until" in hand.log, 20, "trouble")
    back = FakeWhisper(port=whisper.port)
    try:
        eventually_done(world, 1, hand)
    finally:
        back.stop()
    assert hand.runs


def test_it_outlives_a_mongodb_that_is_away(
    tmp_path: Path, whisper: FakeWhisper, crew: Crew
) -> None:
    with Mongod(tmp_path / "mongod") as mongod:
        world = World(mongod.uri, tmp_path, whisper.url)
        world.record([0], original_id="before")
        hand = crew.start(world, "--watch", "0.5")
        eventually_done(world, 1, hand)
        mongod.kill()
        time.sleep(2)  # it looks in vain meanwhile, and must not rest for long because of that
        mongod.start()
        world.record([0], original_id="after")
        eventually_transcribed(world, 2)  # a mark may be lost, and is made again, see the soak
        world.close()


def test_waiting_for_ever_is_the_default_of_watching_alone() -> None:
    assert load({}, {}).server_wait == 60
    watching = load({"watch": "5"}, {"STT_MONGO_WAIT": "10"})
    assert watching.server_wait == float("inf")
    assert watching.mongo_wait == 10
    assert load({"watch": "off"}, {"STT_WATCH": "5"}).watch is None


# -- its end, its log --------------------------------------------------------------------------


def test_limit_and_max_runtime_end_it(world: World, whisper: FakeWhisper) -> None:
    world.record([0], original_id="a")
    done = world.run("--watch", "--limit", "1")
    assert done.returncode == 0
    began = time.monotonic()
    done = world.run("--watch", "--max-runtime", "2", seconds=20)
    assert done.returncode == 0
    assert time.monotonic() - began < 10


def test_idleness_is_told_once_until_there_is_work_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    idleness = Idleness()
    with caplog.at_level("INFO", "stt"):
        for second in range(100):
            idleness.lasts(float(second))
        assert len(caplog.records) == 1
        idleness.ends()
        idleness.lasts(100.0)
        assert len(caplog.records) == 1
        idleness.lasts(101.0 + IDLE_SECONDS)
        assert len(caplog.records) == 2

"""The worker as its user runs it: a process, a real MongoDB, real HTTP."""

from datetime import UTC, datetime, timedelta

from tests.support.whisper import FakeWhisper
from tests.support.world import World


def test_pending_chunks_become_transcripts(world: World, whisper: FakeWhisper) -> None:
    recording = world.record(range(5))
    done = world.run()
    assert done.returncode == 0, done.stderr
    world.assert_all_done()
    [document] = world.transcriptions.find()
    assert document["original"] == recording
    assert [s["text"].strip() for s in document["segments"]] == [
        f"{recording}/{i}" for i in range(5)
    ]
    assert document["duration"] == 50.0


def test_a_hundred_recordings_of_sixty_chunks_are_five_hundred_requests(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(100):
        world.record(range(60), original_id=number, silent=range(12, 60, 13))
    done = world.run("--max-workers", "4")
    assert done.returncode == 0, done.stderr
    assert len(whisper.requests) == 500
    world.assert_all_done()


def test_a_recording_that_is_growing_is_left_alone_until_it_settles(
    world: World, whisper: FakeWhisper
) -> None:
    now = world.client.admin.command("hello")["localTime"]
    world.record([*range(3), *range(4, 6)], original_id="grows", start=now - timedelta(seconds=60))
    world.record(range(2), original_id="done", start=now - timedelta(seconds=600))
    assert world.run("--settle", "300").returncode == 0
    assert {c["index"] for c in world.pending()} == {4, 5}
    assert world.transcriptions.count_documents({}) == 2
    assert world.run().returncode == 0, "by hand everything is done at once"
    world.assert_all_done()


def test_a_clock_in_the_future_does_not_keep_a_recording_from_settling(
    world: World, whisper: FakeWhisper
) -> None:
    now = datetime.now(UTC)
    world.record(range(2), original_id="future", start=now + timedelta(days=3650))
    world.record(range(2), original_id="past", start=now - timedelta(days=1))
    assert world.run("--settle", "300").returncode == 0
    world.assert_all_done()

"""Priority: what has one comes first, in the plan, in the index and in a run that is under way."""

from datetime import timedelta

from stt_lib.domain.sequences import group
from stt_lib.store import Store
from tests.support.whisper import FakeWhisper
from tests.support.world import START, World

HOUR = timedelta(hours=1)


def test_higher_comes_first_and_newest_first_within_by_the_index_alone(
    world: World, store: Store
) -> None:
    for number in range(6):
        world.record(range(2), original_id=number, start=START + number * HOUR)
    for number, priority in ((0, 2), (1, 2.0), (3, 7), (4, None)):
        world.chunks.update_many({"original_id": number}, {"$set": {"priority": priority}})
    world.db.command("profile", 2)
    order = [s.original_id for s in group(store.chunks.pending(run_started=store.now()))]
    world.db.command("profile", 0)
    assert order == [3, 1, 0, 5, 4, 2]
    [read] = world.db["system.profile"].find(
        {"ns": f"{world.database}.audio_chunks", "command.aggregate": {"$exists": True}}
    )
    assert read["planSummary"].startswith("IXSCAN")
    assert read["docsExamined"] == 0
    assert not read.get("hasSortStage", False)


def test_prioritize_says_how_many_and_a_run_begins_with_them(
    world: World, whisper: FakeWhisper
) -> None:
    for name in ("old", "middle", "new"):
        world.record(range(3), original_id=name, start=START)
    world.record([7], original_id="old", stt={"parked_at": START, "error": {"at": START}})
    world.record([9], original_id="old", transcribed_at=START)
    done = world.run("prioritize", "old")
    assert done.stdout == "4 pending chunks of recording old now have priority 1.\n"
    assert world.chunks.count_documents({"priority": 1}) == 4
    world.run("prioritize", "middle", "--level", "3")
    assert world.run().returncode == 0
    order = [request.audio[0].partition(b"/")[0] for request in whisper.requests]
    assert order == [b"middle", b"old", b"new"]


def test_level_0_takes_it_away(world: World) -> None:
    recording = world.record(range(3))
    world.run("prioritize", str(recording), "--level", "9")
    done = world.run("prioritize", str(recording), "--level", "0")
    assert "3 pending chunks" in done.stdout
    assert "no longer have a priority" in done.stdout
    assert world.chunks.count_documents({"priority": {"$exists": True}}) == 0


def test_an_id_with_nothing_pending_is_told(world: World) -> None:
    done = world.run("prioritize", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("stt: no recording nobody has pending chunks: give")
    world.record([0], original_id="done")
    world.run()
    assert "it is transcribed" in world.run("prioritize", "done").stderr
    done = world.run("prioritize", "done", "--level", "-1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1

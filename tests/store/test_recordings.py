"""Listing recordings: what is shown of each, and that no audio is read for it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from stt_lib.domain.models import RecordingSummary
from stt_lib.store import Store
from tests.support.world import START, World

HOUR = timedelta(hours=1)
PARKED = {"error": {"kind": "timeout", "at": START}, "parked_at": START}
FAILED = {"error": {"kind": "timeout", "at": START}, "retry_at": START + 1000 * HOUR}


def transcribe(world: World, recording: Any, *texts: str) -> None:
    segments = [{"start": 0.0, "end": 1.0, "text": text} for text in texts]
    document = {"original": recording, "start": START, "segments": segments}
    world.transcriptions.insert_one({**document, "chunk_ids": [f"{recording} {texts}"]})
    world.chunks.update_many({"original_id": recording}, {"$set": {"transcribed_at": START}})


def fill(world: World) -> None:
    """One recording in each state, an hour apart; those that are unfinished begin done."""
    done: dict[str, Any] = {"transcribed_at": START}
    world.record(range(6), original_id="done", file="talk.mp3")
    transcribe(world, "done", "one two three", " four")
    transcribe(world, "done", "five")
    world.record([0, 1], original_id="silent", start=START + HOUR, silent=[0, 1])
    for number, (name, stt) in enumerate((("failed", FAILED), ("parked", PARKED)), start=2):
        world.record([0], original_id=name, start=START + number * HOUR, **done)
        world.record([1], original_id=name, start=START + number * HOUR, stt=stt)
        world.record([1], original_id=f"{name} in part", start=START + number * HOUR)
        world.record([0], original_id=f"{name} in part", start=START + number * HOUR, stt=stt)
    world.record(range(3), original_id=7, start=START + 4 * HOUR)
    world.record([0], original_id="urgent", start=START + 5 * HOUR, priority=2)


def states(found: list[RecordingSummary]) -> dict[str, str]:
    return {recording.id: recording.state for recording in found}


EXPECTED = {
    "urgent": "pending",
    "7": "pending",
    "parked": "parked",
    "parked in part": "pending",
    "failed": "failed",
    "failed in part": "pending",
    "silent": "done",
    "done": "done",
}


def test_a_recording_is_in_the_state_of_what_is_left_of_it(world: World, store: Store) -> None:
    fill(world)
    found = store.recordings.newest(20)
    assert states(found) == EXPECTED
    assert [r.start for r in found] == sorted((r.start for r in found), reverse=True)
    assert found[-1] == RecordingSummary("done", "talk.mp3", START, 60.0, "done", 5)  # type: ignore[arg-type]
    assert (found[1].id, found[1].name, found[1].seconds, found[1].words) == ("7", None, 30.0, 0)


def test_the_newest_of_a_period_are_listed(world: World, store: Store) -> None:
    fill(world)
    assert list(states(store.recordings.newest(2))) == ["urgent", "7"]
    period = store.recordings.newest(20, START + HOUR, START + 3 * HOUR)
    assert states(period) == {n: EXPECTED[n] for n in ("failed", "failed in part", "silent")}
    assert store.recordings.newest(20, START + 9 * HOUR) == []


def test_a_date_beyond_the_calendar_costs_only_its_recording(world: World, store: Store) -> None:
    fill(world)
    world.record([0, 1], original_id="odd", start=START)
    year_10000 = DatetimeMS(253_402_300_800_000)
    for odd, index in (("odd", 0), ("7", 2)):
        query = {"original_id": 7 if odd == "7" else odd, "index": index}
        world.chunks.update_one(query, {"$set": {"start": year_10000}})
    assert states(store.recordings.newest(20)) == EXPECTED
    assert list(states(store.recordings.newest(1))) == ["urgent"]


def test_a_recording_that_is_deleted_meanwhile_is_still_listed(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world)
    begun = store.recordings._begun

    def then_deleted(*arguments: Any) -> list[dict[str, Any]]:
        found = begun(*arguments)
        world.chunks.delete_many({"original_id": {"$in": ["silent", "done"]}})
        return found

    monkeypatch.setattr(store.recordings, "_begun", then_deleted)
    found = {recording.id: recording for recording in store.recordings.newest(20)}
    assert found["silent"].seconds == 10.0


def test_no_chunk_is_read_for_it(world: World, store: Store) -> None:
    fill(world)
    store.recordings.newest(20)
    world.db.command("profile", 2)
    assert len(store.recordings.newest(20)) == len(EXPECTED)
    assert (store.recordings.name("done"), store.recordings.name("7")) == ("talk.mp3", None)
    assert store.recordings.beginning("done") == START
    world.db.command("profile", 0)
    queries = list(world.db["system.profile"].find({"ns": f"{world.database}.audio_chunks"}))
    queries = [q for q in queries if q["op"] in ("query", "command") and "planSummary" in q]
    assert len(queries) >= 6
    assert [q["docsExamined"] for q in queries] == [0] * len(queries)


def test_without_indexes_the_list_is_the_same(world: World) -> None:
    fill(world)
    with Store(world.uri, world.database) as bare:
        assert states(bare.recordings.newest(20)) == EXPECTED
        assert bare.recordings.name("done") is None


def test_an_index_of_another_program_serves_as_well(world: World) -> None:
    keys = ["original_id", "index", "vad.has_speech", "start", "file"]
    world.chunks.create_index([(key, 1) for key in keys], name="theirs")
    fill(world)
    with Store(world.uri, world.database, mongo_wait=1) as other:
        other.indexes.ensure()
        assert "stt_recordings" not in world.chunks.index_information()
        assert states(other.recordings.newest(20)) == EXPECTED


def test_an_index_that_is_dropped_meanwhile_is_done_without(world: World, store: Store) -> None:
    fill(world)
    store.recordings.newest(20)
    for name in ("stt_recordings", "stt_failed"):
        world.chunks.drop_index(name)
        assert states(store.recordings.newest(20)) == EXPECTED


@pytest.mark.parametrize("index", [0, 1])
def test_a_date_that_no_calendar_holds_does_not_spoil_the_list(
    world: World, store: Store, index: int
) -> None:
    fill(world)
    odd = {"$set": {"start": DatetimeMS(9_000_000_000_000_000)}}
    world.chunks.update_one({"original_id": "done", "index": index}, odd)
    others = {name: state for name, state in EXPECTED.items() if name != "done"}
    found = states(store.recordings.newest(20))
    assert {name: state for name, state in found.items() if name != "done"} == others


@pytest.mark.parametrize("original", [None, 1.5, datetime(2026, 1, 1, tzinfo=UTC), {"a": 1}])
def test_any_id_may_be_listed(world: World, store: Store, original: Any) -> None:
    world.chunks.insert_many(
        {"original_id": original, "index": i, "start": START, "vad": {"has_speech": True}}
        for i in range(2)
    )
    [found] = store.recordings.newest(20)
    assert found.state == "pending"


def test_the_command_prints_a_table_or_json(world: World, store: Store) -> None:
    assert world.run("recordings").stdout == "There are no recordings.\n"
    fill(world)
    done = world.run("recordings", "--until", "2026-03-01T08:30Z")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split() == ["recording", "start", "length", "state", "words", "name"]
    assert row.split()[-5:] == ["1", "min", "done", "5", "talk.mp3"]
    listed = json.loads(world.run("recordings", "--json", "--limit", "1").stdout)
    assert listed == [
        {
            "id": "urgent",
            "name": None,
            "start": (START + 5 * HOUR).isoformat(),
            "seconds": 10.0,
            "state": "pending",
            "words": 0,
        }
    ]


def test_an_id_cannot_steer_the_terminal(world: World) -> None:
    world.record(range(2), original_id="bell\x07\x1b[2J\nx")
    [_, row] = world.run("recordings").stdout.splitlines()
    assert row.startswith("bell[2J x  2026-03-01")

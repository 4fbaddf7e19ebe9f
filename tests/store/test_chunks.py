"""Planning, loading and marking chunks against a real MongoDB."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stt_lib.domain.models import ChunkRef, ChunkSequence, Failure
from stt_lib.errors import FailureKind, WriteRefused
from stt_lib.store import Store
from tests.store.conftest import LONG_AGO, indexes, load, plan, transcript
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper
from tests.support.world import START, World, chunk

# -- planning ---------------------------------------------------------------------------------


def test_no_page_of_the_backlog_is_lost(world: World, store: Store) -> None:
    """The cursor hands out a thousand at a time."""
    for count in (3, 999, 1000, 1001, 2003):
        world.chunks.delete_many({})
        world.record(range(count))
        assert sum(map(len, plan(store))) == count


def test_planning_leaves_out_what_is_delayed_parked_done_or_silent(
    world: World, store: Store
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    cases: dict[str, dict[str, Any]] = {
        "delayed": {"stt": {"retry_at": later, "error": {"at": LONG_AGO}}},
        "parked": {"stt": {"parked_at": LONG_AGO, "error": {"at": LONG_AGO}}},
        "done": {"transcribed_at": LONG_AGO},
        "silent": {"vad": {"has_speech": False}},
        "unheard": {"vad": None},
        "pending": {},
        "due": {"stt": {"retry_at": LONG_AGO, "error": {"at": LONG_AGO}}},
        "foreign": {"stt": "something else"},
    }
    for name, fields in cases.items():
        world.chunks.insert_one({**chunk(name, 0), **fields})
    absent = chunk("absent", 0)
    del absent["transcribed_at"]
    world.chunks.insert_one(absent)
    found = {sequence.original_id for sequence in plan(store)}
    assert found == {"pending", "due", "foreign", "absent"}
    failed = {sequence.original_id for sequence in plan(store, only_failed=True)}
    assert failed == {"delayed", "parked", "due"}


def test_what_fails_in_a_run_is_not_planned_again_in_it_but_in_the_next(
    world: World, store: Store
) -> None:
    world.record(range(2))
    started = store.now()
    eventually(lambda: store.now() > started)  # the clock of MongoDB has milliseconds
    record(store, [chunk["_id"] for chunk in world.chunks.find()], due_in=0.0)
    assert list(store.chunks.pending(run_started=started)) == []
    assert len(list(store.chunks.pending(run_started=store.now()))) == 2
    assert list(store.chunks.pending(run_started=started, only_failed=True)) == []


def test_dates_that_no_calendar_holds_cost_only_their_own_chunk(world: World, store: Store) -> None:
    world.record(range(3))
    world.db.command(
        "update",
        "audio_chunks",
        updates=[{"q": {"index": 1}, "u": [{"$set": {"start": {"$toDate": 2**60}}}]}],
    )
    refs = list(store.chunks.pending(run_started=store.now()))
    assert sorted(ref.problem is not None for ref in refs) == [False, False, True]


# -- neighbours -------------------------------------------------------------------------------


def beside(store: Store, number: int = 0) -> list[int]:
    return sorted(chunk.index for chunk in load(store, plan(store)[number]).neighbours)


def test_neighbours_are_the_chunks_with_speech_beside_a_sequence(
    world: World, store: Store
) -> None:
    world.record(range(95), silent=[95 - 61])
    assert [beside(store, number) for number in range(4)] == [[64], [65], [3], [4]]


def test_a_chunk_that_is_done_meanwhile_is_a_neighbour_of_both_parts(
    world: World, store: Store
) -> None:
    world.record(range(8))
    [sequence] = plan(store)
    world.chunks.update_one({"index": 3}, {"$set": {"transcribed_at": START}})
    loaded = load(store, sequence)
    assert indexes(loaded.chunks) == [0, 1, 2, 4, 5, 6, 7]
    [neighbour] = loaded.neighbours
    assert (neighbour.index, neighbour.is_done) == (3, True)


def test_without_an_index_nobody_searches_for_neighbours(world: World) -> None:
    world.record(range(40))
    with Store(world.uri, world.database) as store:
        assert beside(store) == []


def test_the_index_of_the_ingester_is_left_alone(world: World) -> None:
    world.record(range(40))
    world.chunks.create_index([("original_id", 1), ("index", 1)], unique=True, name="theirs")
    with Store(world.uri, world.database) as store:
        store.indexes.ensure()
        assert beside(store) == [9]
    assert {"theirs", "stt_recordings"} <= world.chunks.index_information().keys()


def test_a_twin_is_known_once_a_transcript_owns_it(world: World, store: Store) -> None:
    recording = world.record([0, 1])
    world.record([0], original_id=recording)
    world.record([0], original_id="other")
    first, twin = (c["_id"] for c in world.chunks.find({"original_id": recording, "index": 0}))
    [chunk] = store.chunks.audio([twin])
    assert not store.chunks.has_transcribed_twin(recording, chunk)
    whole = ChunkSequence((ChunkRef(first, recording, recording, 0, START),))
    assert store.transcripts.save(transcript(whole))
    assert store.chunks.has_transcribed_twin(recording, chunk)
    [itself] = store.chunks.audio([first])
    assert not store.chunks.has_transcribed_twin(recording, itself)


# -- marking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_backed", [True, False])
def test_the_mark_removes_everything_of_ours(world: World, store: Store, is_backed: bool) -> None:
    """What older versions left as well."""
    claim = {"by": "dead", "at": LONG_AGO, "until": LONG_AGO}
    world.record(range(2), stt={"claim": claim, "failures": 2, "error": {"at": LONG_AGO}})
    ids = [chunk["_id"] for chunk in world.chunks.find()]
    before = store.now()
    store.chunks.mark(ids, is_backed=is_backed)
    for document in world.chunks.find():
        assert before <= document["transcribed_at"] <= store.now()
        assert "stt" not in document


def test_marking_twice_is_marking_once(world: World, store: Store) -> None:
    world.record(range(2))
    ids = [chunk["_id"] for chunk in world.chunks.find()]
    store.chunks.mark(ids, is_backed=True)
    before = [chunk["transcribed_at"] for chunk in world.chunks.find()]
    store.chunks.mark(ids, is_backed=False)
    assert [chunk["transcribed_at"] for chunk in world.chunks.find()] == before


def test_a_chunk_with_an_empty_list_for_our_fields_is_found_by_its_neighbours(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(3))
    world.chunks.update_one({"index": 1}, {"$set": {"stt": []}})
    assert world.run().returncode == 0
    world.assert_all_done()


def test_a_chunk_that_cannot_be_changed_costs_only_itself(world: World, store: Store) -> None:
    world.record(range(5))
    world.chunks.update_one({"index": 2}, {"$set": {"is_frozen": True}})
    rule = {"$or": [{"is_frozen": None}, {"transcribed_at": None, "stt": None}]}
    world.db.command("collMod", "audio_chunks", validator=rule)
    ids = [chunk["_id"] for chunk in world.chunks.find({}, sort=[("index", 1)])]
    with pytest.raises(WriteRefused, match="validator") as caught:
        record(store, ids)
    assert caught.value.ids == (ids[2],)
    assert world.chunks.count_documents({"stt.failures": 1}) == 4
    with pytest.raises(WriteRefused, match="validator") as caught:
        store.chunks.mark(ids, is_backed=True)
    assert caught.value.ids == (ids[2],)
    assert [chunk["index"] for chunk in world.pending()] == [2]


def record(store: Store, ids: list[Any], due_in: float = 60.0, attempt: str = "attempt") -> None:
    failure = Failure(FailureKind.INVALID_AUDIO, "$x")
    store.failures.record(
        ids, failure, attempt=attempt, audio_at_fault=True, due_in=due_in, max_failures=99
    )


# -- failures ---------------------------------------------------------------------------------


def test_recording_twice_after_a_lost_answer_counts_once(world: World, store: Store) -> None:
    world.record([0])
    [chunk_id] = [chunk["_id"] for chunk in world.chunks.find()]
    for _ in range(2):
        record(store, [chunk_id])
    [document] = world.chunks.find()
    assert document["stt"]["failures"] == 1
    assert document["stt"]["error"]["message"] == "$x"
    assert document["stt"]["retry_at"] > datetime.now(UTC) + timedelta(seconds=50)


def test_history_is_kept_but_does_not_grow_for_ever(world: World, store: Store) -> None:
    world.record([0])
    [chunk_id] = [chunk["_id"] for chunk in world.chunks.find()]
    for number in range(15):
        failure = Failure(FailureKind.REJECTED, str(number))
        store.failures.record(
            [chunk_id],
            failure,
            attempt=str(number),
            audio_at_fault=number % 2 == 0,
            due_in=60,
            max_failures=99,
        )
    [document] = world.chunks.find()
    assert [e["message"] for e in document["stt"]["history"]] == [str(n) for n in range(5, 15)]
    assert (document["stt"]["failures"], document["stt"]["excuses"]) == (8, 7)


@pytest.mark.parametrize("stt", [[], [{}], "text", 5, None, {"history": 5, "failures": "x"}])
def test_a_failure_can_be_recorded_whatever_stt_is(world: World, store: Store, stt: Any) -> None:
    world.record([0], stt=stt)
    [chunk_id] = [chunk["_id"] for chunk in world.chunks.find()]
    record(store, [chunk_id])
    [document] = world.chunks.find()
    assert document["stt"]["failures"] == 1
    assert len(document["stt"]["history"]) == 1
    assert plan(store) == []


def test_a_failure_can_be_recorded_whatever_the_message(world: World, store: Store) -> None:
    world.record([0])
    failure = Failure(FailureKind.INVALID_ANSWER, "half a pair: \ud800", "$server")
    store.failures.record(
        [chunk["_id"] for chunk in world.chunks.find()],
        failure,
        attempt="$x",
        audio_at_fault=False,
        due_in=1.0,
        max_failures=3,
    )
    [document] = world.chunks.find()
    assert document["stt"]["error"]["message"] == "half a pair: ?"
    assert document["stt"]["error"]["server"] == "$server"


def test_what_is_marked_does_not_fail(world: World, store: Store) -> None:
    world.record([0], transcribed_at=START)
    record(store, [chunk["_id"] for chunk in world.chunks.find()])
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0


def test_a_story_names_the_claim_on_the_chunk(world: World, store: Store) -> None:
    world.record(range(2))
    [sequence] = plan(store)
    store.claims.acquire(sequence, "token", "night/7")
    [story] = store.failures.stories(str(sequence.newest.id))
    assert story.claimed_by == "night/7"
    assert story.claimed_until == store.claims.live()["token"]

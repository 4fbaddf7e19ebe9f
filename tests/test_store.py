"""The store against a real MongoDB: indexes, planning, claims, and what each write refuses."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest
from bson import ObjectId
from pymongo import monitoring

from stt_lib.domain import models
from stt_lib.domain.sequences import group
from stt_lib.errors import ClaimLost, ConfigurationError, FailureKind, StoreUnavailable
from stt_lib.local.mongod import Mongod, free_port
from stt_lib.store import Store
from stt_lib.store.indexes import INDEXES
from tests.support.whisper import FakeWhisper
from tests.support.world import START, World, chunk

NEVER = datetime(2000, 1, 1, tzinfo=UTC)


def plan(store: Store, **more: Any) -> list[models.ChunkSequence]:
    return list(group(store.pending(since=store.now(), **more)))


def claimed(store: Store, token: str = "me") -> models.Claim:
    claim = store.claim(plan(store)[0], token)
    assert claim is not None
    return claim


def ids(claim: models.Claim) -> list[Any]:
    return [chunk.id for chunk in claim.chunks]


def transcript(store: Store, claim: models.Claim, count: int | None = None) -> models.Transcript:
    chunks = claim.chunks[:count]
    return models.Transcript(
        id=ObjectId(),
        original_id=claim.original_id,
        start=chunks[0].start,
        end=chunks[-1].end,
        chunk_ids=tuple(c.id for c in chunks),
        segments=(models.Segment(0.0, 1.0, "words"),),
        language="en",
        top_language_probs=None,
        model=None,
        server="s",
    )


def expire(world: World) -> None:
    """Let all leases end, without waiting for it."""
    world.chunks.update_many({"stt.claim": {"$exists": True}}, {"$set": {"stt.claim.until": NEVER}})


# -- indexes and plans ------------------------------------------------------------------------


def test_indexes_are_made_when_missing_and_only_then(world: World, store: Store) -> None:
    names = set(world.chunks.index_information()) | set(world.transcriptions.index_information())
    assert names == {"_id_", *(index.name for index in INDEXES)}
    world.db.command("profile", 2)
    with Store(world.uri, world.database) as again:
        again.ensure_indexes()
    world.db.command("profile", 0)
    assert (
        world.db["system.profile"].count_documents({"command.createIndexes": {"$exists": 1}}) == 0
    )


def test_an_index_that_is_listed_but_not_built_yet_is_waited_for(world: World) -> None:
    world.record(range(3))
    with (
        Store(world.uri, world.database, mongo_wait=10) as early,
        Store(world.uri, world.database) as builder,
    ):
        early.__dict__["_indexed"] = {"stt_pending"}
        later = threading.Timer(0.5, builder.ensure_indexes)
        later.start()
        assert early.count_pending() == 3
        assert [len(sequence) for sequence in early.patiently(lambda: plan(early))] == [3]
        later.join()


def test_planning_reads_the_index_and_no_document(world: World, store: Store) -> None:
    for number in range(50):
        world.record(range(40), original_id=number, data=b"x" * 2000)
    world.chunks.update_many({"index": {"$lt": 10}}, {"$set": {"transcribed_at": START}})
    world.db.command("profile", 2)
    sequences = plan(store)
    assert store.count_pending() == 1500
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


def test_a_user_without_the_right_to_make_indexes_gets_a_warning_and_a_slower_run(
    tmp_path: Path, whisper: FakeWhisper, auth_mongod: Mongod
) -> None:
    admin: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        auth_mongod.uri, username="root", password="r00t-pw"
    )
    actions = ["find", "insert", "update"]
    world = World(f"mongodb://root:r00t-pw@127.0.0.1:{auth_mongod.port}/", tmp_path, whisper.url)
    privileges = [{"resource": {"db": world.database, "collection": ""}, "actions": actions}]
    admin[world.database].command("createRole", "poor", privileges=privileges, roles=[])
    admin[world.database].command("createUser", "joe", pwd="hunter2", roles=["poor"])
    world.record(range(5))
    poor = f"mongodb://joe:hunter2@127.0.0.1:{auth_mongod.port}/{world.database}"
    done = world.run(env={"MONGODB_URI": poor})
    assert done.returncode == 0, done.stderr
    assert "WARNING - Index stt_pending on audio_chunks could not be made" in done.stderr
    assert "hunter2" not in done.stderr + world.log
    assert set(world.chunks.index_information()) == {"_id_"}
    world.assert_all_done()
    assert world.run(env={"MONGODB_URI": poor}).returncode == 0
    world.close()
    admin.close()


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
            assert store._db.name == expected


def test_an_absent_mongodb_is_told_within_its_time() -> None:
    began = datetime.now(UTC)
    with pytest.raises(StoreUnavailable, match="is it running"):
        Store(f"mongodb://127.0.0.1:{free_port()}")
    assert datetime.now(UTC) - began < timedelta(seconds=8)


# -- planning ---------------------------------------------------------------------------------


def test_no_page_of_the_backlog_is_lost(world: World, store: Store) -> None:
    """The cursor hands out a thousand at a time."""
    for count in (3, 999, 1000, 1001, 2003):
        world.chunks.delete_many({})
        world.record(range(count))
        assert sum(map(len, plan(store))) == count


def test_planning_leaves_out_what_is_claimed_delayed_parked_done_or_silent(
    world: World, store: Store
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    cases: dict[str, dict[str, Any]] = {
        "claimed": {"stt": {"claim": {"by": "x", "until": later}}},
        "delayed": {"stt": {"retry_at": later, "error": {"at": NEVER}}},
        "parked": {"stt": {"parked_at": NEVER, "retry_at": NEVER, "error": {"at": NEVER}}},
        "done": {"transcribed_at": NEVER},
        "silent": {"vad": {"has_speech": False}},
        "unheard": {"vad": None},
        "pending": {},
        "expired": {"stt": {"claim": {"by": "x", "until": NEVER}}},
        "due": {"stt": {"retry_at": NEVER, "error": {"at": NEVER}}},
        "foreign": {"stt": "something else"},
    }
    for name, fields in cases.items():
        world.chunks.insert_one({**chunk(name, 0), **fields})
    absent = chunk("absent", 0)
    del absent["transcribed_at"]
    world.chunks.insert_one(absent)
    found = {sequence.original_id for sequence in plan(store)}
    assert found == {"pending", "expired", "due", "foreign", "absent"}
    failed = {sequence.original_id for sequence in plan(store, only_failed=True)}
    assert failed == {"delayed", "parked", "due"}


def test_what_fails_in_a_run_is_not_planned_again_in_it_but_in_the_next(
    world: World, store: Store
) -> None:
    world.record(range(2))
    since = store.now()
    claim = claimed(store)
    store.excuse(ids(claim), "me", models.Failure(FailureKind.CONNECTION, "gone"))
    assert list(store.pending(since=since)) == []
    assert len(list(store.pending(since=store.now()))) == 2
    assert list(store.pending(since=since, only_failed=True)) == []


def test_dates_that_no_calendar_holds_cost_only_their_own_chunk(world: World, store: Store) -> None:
    world.record(range(3))
    world.db.command(
        "update",
        "audio_chunks",
        updates=[{"q": {"index": 1}, "u": [{"$set": {"start": {"$toDate": 2**60}}}]}],
    )
    refs = list(store.pending(since=store.now()))
    assert sorted(ref.problem is not None for ref in refs) == [False, False, True]


# -- claims -----------------------------------------------------------------------------------


def test_only_one_of_two_workers_gets_a_sequence(world: World, store: Store) -> None:
    world.record(range(3))
    [sequence] = plan(store)
    assert store.claim(sequence, "one") is not None
    assert store.claim(sequence, "two") is None
    assert world.chunks.count_documents({"stt.claim.by": "two"}) == 0


def test_a_claim_may_be_repeated_when_its_answer_was_lost(world: World, store: Store) -> None:
    world.record(range(3))
    [sequence] = plan(store)
    first = store.claim(sequence, "one")
    assert store.claim(sequence, "one") == first


def test_a_worker_goes_on_with_the_consecutive_part_that_it_won(world: World, store: Store) -> None:
    world.record(range(8))
    [whole] = plan(store)
    assert store.claim(models.ChunkSequence(whole.chunks[3:4]), "other") is not None
    claim = store.claim(whole, "me")
    assert claim is not None
    assert [c.index for c in claim.chunks] == [4, 5, 6, 7]
    assert world.chunks.count_documents({"stt.claim.by": "me"}) == 4
    assert [c["index"] for c in world.chunks.find({"stt": {"$exists": False}})] == [0, 1, 2]


def test_an_expired_claim_is_free_and_its_token_can_write_nothing_any_more(
    world: World, store: Store
) -> None:
    world.record(range(3))
    late = claimed(store, "late")
    expire(world)
    new = claimed(store, "new")
    failure = models.Failure(FailureKind.INTERNAL, "x")
    writes: list[Callable[[], object]] = [
        lambda: store.renew(ids(late), "late"),
        lambda: store.mark(ids(late), "late"),
        lambda: store.excuse(ids(late), "late", failure),
        lambda: store.blame(ids(late)[0], "late", failure, due_in=1, max_failures=5),
    ]
    for write in writes:
        with pytest.raises(ClaimLost):
            write()
    store.release(ids(late), "late")
    assert world.chunks.count_documents({"stt.claim.by": "new"}) == 3
    assert store.save(transcript(store, new))
    store.mark(ids(new), "new")
    world.assert_all_done()


def test_the_database_itself_forbids_a_second_transcript_for_a_chunk(
    world: World, store: Store
) -> None:
    world.record(range(4))
    claim = claimed(store)
    assert store.save(transcript(store, claim, 2))
    assert not store.save(transcript(store, claim))
    assert len(store.owned(claim.original_id, ids(claim))) == 2
    assert world.transcriptions.count_documents({}) == 1


def test_saving_twice_under_the_same_id_is_one_transcript(world: World, store: Store) -> None:
    world.record(range(2))
    claim = claimed(store)
    one = transcript(store, claim)
    assert store.save(one)
    assert store.save(one), "an insert whose answer was lost is recognised"
    assert world.transcriptions.count_documents({}) == 1


def test_marking_twice_is_marking_once(world: World, store: Store) -> None:
    world.record(range(2))
    claim = claimed(store)
    store.mark(ids(claim), "me")
    before = [c["transcribed_at"] for c in world.chunks.find()]
    store.mark(ids(claim), "me")
    assert [c["transcribed_at"] for c in world.chunks.find()] == before


class Concerns(monitoring.CommandListener):
    """The write concern of the last command of each name."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent[event.command_name] = event.command.get("writeConcern")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


def test_what_cannot_be_made_again_is_safe_on_a_majority_before_anything_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.record(range(6), original_id="newer")
    world.record([0], original_id="older", start=START - timedelta(days=1))
    concerns = Concerns()
    monkeypatch.setattr(
        pymongo, "MongoClient", partial(pymongo.MongoClient, event_listeners=[concerns])
    )
    with Store(world.uri, world.database) as store:
        claim = claimed(store)
        assert concerns.sent["findAndModify"] == {"w": 1}
        assert concerns.sent["update"] == {"w": "majority"}, "and it comes later in the log"
        store.save(transcript(store, claim, 2))
        assert concerns.sent["insert"] == {"w": "majority", "j": True}
        store.mark(ids(claim)[:2], "me")
        assert concerns.sent["update"] == {"w": 1}, "100 ms on a replica set of one, else"
        store.mark(ids(claim)[2:], "me", unsaved=transcript(store, claim))
        assert concerns.sent["update"] == {"w": "majority"}, "nothing else knows of it"
        assert len(claimed(store).chunks) == 1
        assert concerns.sent["findAndModify"] == {"w": "majority"}


def test_blaming_twice_after_a_lost_answer_counts_once(world: World, store: Store) -> None:
    world.record([0])
    claim = claimed(store)
    for _ in range(2):
        store.blame(
            ids(claim)[0],
            "me",
            models.Failure(FailureKind.INVALID_AUDIO, "$x"),
            due_in=60,
            max_failures=5,
        )
    [document] = world.chunks.find()
    assert document["stt"]["failures"] == 1
    assert document["stt"]["error"]["message"] == "$x"
    assert document["stt"]["retry_at"] > datetime.now(UTC) + timedelta(seconds=50)


def test_history_is_kept_but_does_not_grow_for_ever(world: World, store: Store) -> None:
    world.record([0])
    for number in range(15):
        world.chunks.update_many({}, {"$set": {"stt.retry_at": NEVER}})
        claim = claimed(store)
        store.blame(
            ids(claim)[0],
            "me",
            models.Failure(FailureKind.REJECTED, str(number)),
            due_in=60,
            max_failures=99,
        )
    [document] = world.chunks.find()
    assert [e["message"] for e in document["stt"]["history"]] == [str(n) for n in range(5, 15)]
    assert document["stt"]["failures"] == 15


def test_releasing_leaves_no_trace_but_what_failed_before(world: World, store: Store) -> None:
    world.record(range(2))
    claim = claimed(store)
    store.release(ids(claim), "me")
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0
    claim = claimed(store)
    store.excuse(ids(claim), "me", models.Failure(FailureKind.TIMEOUT, "x"))
    claim = claimed(store)
    store.release(ids(claim), "me")
    assert world.chunks.count_documents({"stt.error.kind": "timeout"}) == 2
    assert world.chunks.count_documents({"stt.claim": {"$exists": True}}) == 0

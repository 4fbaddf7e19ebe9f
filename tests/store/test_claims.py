"""Claims against a real MongoDB: every race that the design describes."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pymongo
import pytest
from pymongo import monitoring

from stt_lib.domain.models import ChunkSequence, identity
from stt_lib.store import Store
from tests.store.conftest import LONG_AGO, indexes, load, plan, transcript
from tests.support.lossy import lossy
from tests.support.world import START, World


def expire(world: World, **query: Any) -> None:
    world.claims.update_many(query, {"$set": {"until": LONG_AGO}})


def part(sequence: ChunkSequence, first: int, last: int) -> ChunkSequence:
    return ChunkSequence(sequence.chunks[first : last + 1])


class Commands(monitoring.CommandListener):
    """The commands that were sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append((event.command_name, event.command.get("writeConcern")))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    listener = Commands()
    client = partial(pymongo.MongoClient, event_listeners=[listener])
    monkeypatch.setattr(pymongo, "MongoClient", client)
    return listener


# -- acquiring --------------------------------------------------------------------------------


def test_a_claim_is_one_small_document_and_the_chunks_stay_as_they_are(
    world: World, store: Store
) -> None:
    world.record(range(3), data=b"x" * 20_000)
    before = list(world.chunks.find())
    [sequence] = plan(store)
    assert store.claims.acquire(sequence, "token", "host/1")
    [claim] = world.claims.find()
    assert claim["_id"] == "token"
    assert claim["chunk_ids"] == [chunk.id for chunk in sequence.chunks]
    assert (claim["original"], claim["worker"]) == (sequence.original_id, "host/1")
    assert (claim["start"], claim["end"]) == (START, START + timedelta(seconds=20))
    assert claim["until"] - claim["at"] == timedelta(milliseconds=claim["lease_ms"])
    assert list(world.chunks.find()) == before


def test_all_or_nothing(world: World, store: Store) -> None:
    world.record(range(6))
    [whole] = plan(store)
    assert store.claims.acquire(part(whole, 2, 3), "one", "w")
    assert not store.claims.acquire(part(whole, 3, 5), "two", "w")
    assert not store.claims.acquire(part(whole, 0, 2), "three", "w")
    assert store.claims.acquire(part(whole, 4, 5), "four", "w")
    assert world.claims.count_documents({}) == 2


@pytest.mark.parametrize("original_id", [[1, 2], {"$gt": 1}, "$name", None])
def test_any_original_id_can_be_claimed(world: World, store: Store, original_id: Any) -> None:
    world.chunks.insert_one({"original_id": original_id, **_document()})
    [sequence] = plan(store)
    assert store.claims.acquire(sequence, "token", "w")
    [claim] = world.claims.find()
    assert claim["original"] == original_id


def _document() -> dict[str, Any]:
    return {"index": 0, "start": START, "vad": {"has_speech": True}, "transcribed_at": None}


def test_any_chunk_id_can_be_claimed(world: World, store: Store) -> None:
    ids: list[Any] = ["$x", {"a": {"gt": 1}}, 5, b"bytes", START, None]
    for chunk_id in ids:
        world.chunks.insert_one({"_id": chunk_id, "original_id": str(chunk_id), **_document()})
    for number, sequence in enumerate(plan(store)):
        assert store.claims.acquire(sequence, str(number), "w")
        assert indexes(load(store, sequence).chunks) == [0]
    assert store.claims.held(ids) == set(map(identity, ids))


def test_only_acquiring_waits_for_a_majority_and_its_journal(
    world: World, commands: Commands
) -> None:
    world.record(range(2))
    with Store(world.uri, world.database) as store:
        [sequence] = plan(store)
        commands.sent.clear()
        store.claims.acquire(sequence, "token", "w")
        store.claims.renew(["token"])
        store.claims.release("token")
    durable, quick = {"w": "majority", "j": True}, {"w": 1}
    assert commands.sent[:3] == [("update", durable), ("update", quick), ("delete", quick)]


def test_a_first_try_that_succeeded_without_an_answer_is_recognised(
    world: World, store: Store
) -> None:
    world.record(range(3))
    [sequence] = plan(store)
    assert store.claims.acquire(sequence, "one", "w")
    assert store.claims.acquire(sequence, "one", "w")
    assert not store.claims.acquire(sequence, "two", "w")
    port = int(world.uri.rpartition(":")[2])
    world.claims.delete_many({})
    with lossy(port) as proxy, Store(proxy.uri, world.database, mongo_wait=20) as remote:
        assert remote.claims.acquire(sequence, "three", "w")
        assert proxy.lost["update"] == 1
    assert [claim["_id"] for claim in world.claims.find()] == ["three"]


def test_twelve_threads_on_overlapping_sequences(world: World, store: Store) -> None:
    """Two thousand acquisitions: no chunk is held twice, and none fails but by being refused."""
    world.record(range(60))
    whole = ChunkSequence(tuple(c for s in reversed(plan(store)) for c in s.chunks))
    holders, lock = Counter[int](), threading.Lock()

    def work(seed: int) -> Counter[bool]:
        rng, won = random.Random(seed), Counter[bool]()
        for number in range(2000 // 12 + 1):
            first = rng.randrange(56)
            held = range(first, first + 1 + rng.randrange(5))
            token = f"{seed}/{number}"
            is_mine = store.claims.acquire(part(whole, held[0], held[-1]), token, "w")
            won[is_mine] += 1
            if is_mine:
                with lock:
                    holders.update(held)
                    assert all(holders[index] == 1 for index in held)
                with lock:
                    holders.subtract(held)
                store.claims.release(token)
        return won

    with ThreadPoolExecutor(12) as threads:
        won = sum(threads.map(work, range(12)), Counter[bool]())
    assert won.total() >= 2000
    assert won[True] > won.total() / 4
    assert won[False] > 0
    assert world.claims.count_documents({}) == 0


# -- the document is the mutex ----------------------------------------------------------------


def test_an_expired_claim_holds_until_a_planner_deletes_it(world: World, store: Store) -> None:
    world.record(range(3))
    [sequence] = plan(store)
    assert store.claims.acquire(sequence, "late", "w")
    expire(world)
    assert not store.claims.acquire(sequence, "new", "w")
    assert store.claims.renew(["late"]) == frozenset(), "nobody has deleted it: it is held"
    assert store.claims.delete_expired() == 0
    expire(world)
    assert store.claims.delete_expired() == 1
    assert store.claims.acquire(sequence, "new", "w")
    assert store.claims.renew(["late"]) == {"late"}
    store.claims.release("late")
    assert [claim["_id"] for claim in world.claims.find()] == ["new"]


def test_the_delete_checks_again_what_it_found_expired(world: World, store: Store) -> None:
    """A renewal while the delete is under way saves the claim."""
    world.record(range(200))
    for number, sequence in enumerate(plan(store)):
        assert store.claims.acquire(sequence, str(number), "w")
    tokens = list(store.claims.live())
    for _ in range(30):
        expire(world)
        with ThreadPoolExecutor(2) as threads:
            deleted = threads.submit(store.claims.delete_expired)
            gone = threads.submit(store.claims.renew, tokens).result()
        assert set(store.claims.live()) == set(tokens) - gone
        assert deleted.result() == len(gone)
        tokens = [token for token in tokens if token not in gone]
        if not tokens:
            break


@pytest.mark.parametrize(
    ("ahead", "is_expired"), [(30, False), (60 + 60 + 30, True), (60 + 59, False), (-1, True)]
)
def test_a_claim_from_a_wrong_clock_expires(
    world: World, store: Store, ahead: float, is_expired: bool
) -> None:
    """The lease is 60 s, and a minute more is allowed."""
    world.record([0])
    assert store.claims.acquire(plan(store)[0], "token", "w")
    world.claims.update_one({}, {"$set": {"until": store.now() + timedelta(seconds=ahead)}})
    assert store.claims.delete_expired() == is_expired


@pytest.mark.parametrize("until", [None, "soon", 5])
def test_a_claim_without_an_end_is_deleted(world: World, store: Store, until: Any) -> None:
    world.claims.insert_one({"_id": "odd", "chunk_ids": [1], "until": until, "lease_ms": "x"})
    assert store.claims.live() == {}
    assert store.claims.holders() == []
    assert store.claims.delete_expired() == 1


# -- renewing and releasing -------------------------------------------------------------------


def test_one_command_renews_everything_and_never_inserts(world: World, commands: Commands) -> None:
    world.record(range(60))
    with Store(world.uri, world.database) as store:
        store.indexes.ensure()
        for number, sequence in enumerate(plan(store)):
            assert store.claims.acquire(sequence, str(number), "w")
        before = store.claims.live()
        commands.sent.clear()
        assert store.claims.renew(list(before)) == frozenset()
        assert [name for name, _ in commands.sent] == ["update"]
        after = store.claims.live()
        assert all(after[token] >= before[token] for token in before)
        assert store.claims.renew([*before, "gone"]) == {"gone"}
        assert set(store.claims.live()) == set(before)


def test_releasing_twice_is_releasing_once(world: World, store: Store) -> None:
    world.record(range(3))
    [sequence] = plan(store)
    store.claims.acquire(sequence, "token", "w")
    store.claims.release("token")
    store.claims.release("token")
    assert store.claims.acquire(sequence, "other", "w")


# -- a stale plan is harmless -----------------------------------------------------------------


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"transcribed_at": START},
        {"vad.has_speech": False},
        {"stt.parked_at": START},
        {"stt.retry_at": START.replace(year=2100)},
    ],
)
def test_loading_requires_again_what_the_plan_required(
    world: World, store: Store, meanwhile: dict[str, Any]
) -> None:
    world.record(range(4))
    [sequence] = plan(store)
    world.chunks.update_one({"index": 2}, {"$set": meanwhile})
    assert indexes(load(store, sequence).chunks) == [0, 1, 3]


def test_with_retry_errors_loading_requires_a_failure_before_the_run(
    world: World, store: Store
) -> None:
    world.record(range(3), stt={"error": {"at": LONG_AGO}, "parked_at": LONG_AGO})
    [sequence] = plan(store, only_failed=True)
    started = store.now()
    world.chunks.update_one({"index": 0}, {"$set": {"stt.error.at": started + timedelta(hours=1)}})
    world.chunks.update_one({"index": 1}, {"$unset": {"stt": True}})
    loaded = load(store, sequence, run_started=started, only_failed=True)
    assert indexes(loaded.chunks) == [2]


def test_loading_finds_who_owns_a_chunk_that_was_not_marked(world: World, store: Store) -> None:
    world.record(range(4))
    [sequence] = plan(store)
    assert store.transcripts.save(transcript(sequence, 2))
    loaded = load(store, sequence)
    assert indexes(loaded.chunks) == [0, 1, 2, 3]
    assert loaded.owned == {identity(chunk.id) for chunk in sequence.chunks[:2]}


def test_a_frozen_holder_whose_claim_was_deleted_cannot_save_twice(
    world: World, store: Store
) -> None:
    world.record(range(3))
    [sequence] = plan(store)
    store.claims.acquire(sequence, "frozen", "w")
    expire(world)
    store.claims.delete_expired()
    assert store.claims.acquire(sequence, "awake", "w")
    assert store.transcripts.save(transcript(sequence))
    assert not store.transcripts.save(transcript(sequence, 2)), "the late writer is fenced"
    assert world.transcriptions.count_documents({}) == 1


# -- who works on what ------------------------------------------------------------------------


def test_what_is_held_is_found_with_one_query(world: World, commands: Commands) -> None:
    world.record(range(6))
    with Store(world.uri, world.database) as store:
        [whole] = plan(store)
        store.claims.acquire(part(whole, 1, 2), "token", "w")
        commands.sent.clear()
        held = store.claims.held(chunk.id for chunk in whole.chunks)
        assert [name for name, _ in commands.sent] == ["find"]
    assert held == {identity(chunk.id) for chunk in whole.chunks[1:3]}


def test_holders_say_who_works_on_what_since_when(world: World, store: Store) -> None:
    world.record(range(3), original_id="a")
    world.record(range(5), original_id="b", start=START + timedelta(days=1))
    newer, older = plan(store)
    store.claims.acquire(newer, "1", "night/7")
    store.claims.acquire(older, "2", "night/7")
    [holder] = store.claims.holders()
    assert (holder.worker, holder.claims, holder.chunks) == ("night/7", 2, 8)
    assert [(w.original_id, w.start, w.chunks) for w in holder.work] == [
        ("b", START + timedelta(days=1), 5),
        ("a", START, 3),
    ]
    assert holder.since == holder.work[0].since is not None

"""The plan: what comes next, what is left to others, and what is not tried again."""

import random
from datetime import timedelta
from typing import Any

from stt_lib.domain.models import ALL, ChunkRef, ChunkSequence, identity
from stt_lib.pipeline.planner import Batch, Plan, ahead, plan
from stt_lib.pipeline.sources import PendingChunks
from tests.pipeline.lab import Lab
from tests.support.manual_time import START
from tests.support.memory_database import Database
from tests.support.memory_store import Away, Network


def sequence(number: int, *, priority: float | None = None) -> ChunkSequence:
    start = START + timedelta(hours=number)
    return ChunkSequence((ChunkRef(number, number, number, 0, start, priority=priority),))


def batch(*numbers: int, is_complete: bool = False, **fields: float) -> Batch:
    return Batch(tuple(sequence(n, **fields) for n in numbers), (), is_complete)


def order(made: Plan, count: int) -> list[int]:
    found = [made.next() for _ in range(count)]
    return [s.chunks[0].id for s in found if s is not None]


# -- one batch --------------------------------------------------------------------------------


def planned(lab: Lab, store: Any = None, size: int = 50, *, excluding: Any = ()) -> Batch:
    store = store or lab.store()
    source = PendingChunks(store, ALL)
    return plan(store, source, run_started=store.now(), excluding=frozenset(excluding), size=size)


def hours(lab: Lab, count: int) -> None:
    for number in range(count):
        lab.record([0], f"rec{number:03}.", start=START + timedelta(hours=number))


def names(found: Batch) -> list[str]:
    return [s.original_id for s in found.sequences]


def test_a_batch_is_the_newest_work_and_says_whether_there_is_more() -> None:
    lab = Lab()
    hours(lab, 5)
    assert names(planned(lab, size=3)) == ["rec004.", "rec003.", "rec002."]
    assert not planned(lab, size=3).is_complete
    assert planned(lab, size=5).is_complete
    assert names(planned(lab, excluding=[identity("rec003.-0")]))[:2] == ["rec004.", "rec002."]


def test_a_twin_of_a_chunk_under_way_is_one_in_the_next_batch_too() -> None:
    lab = Lab()
    for number in range(4):
        lab.record([0], "rec", _id=f"twin{number}")
    store = lab.store()
    source = PendingChunks(store)

    def problems(*started: str) -> list[bool]:
        excluding = frozenset(map(identity, started))
        found = plan(store, source, run_started=store.now(), excluding=excluding, size=9)
        return [s.problem is not None for s in found.sequences]

    assert problems() == [False, True, True, True]
    assert problems() == [False, True, True, True], "the first one has not been started"
    assert problems("twin0") == [True, True, True]
    assert problems("twin0", "twin1", "twin2") == [True]
    assert problems("twin0", "twin1", "twin2", "twin3") == []
    lab.record([0], "rec", _id="last")
    assert problems("twin0", "twin1", "twin2", "twin3") == [False], "it may be the only one left"


def test_expired_claims_are_deleted_and_held_work_is_passed_over() -> None:
    lab = Lab()
    hours(lab, 4)
    other = lab.store(lease=10)
    everything = planned(lab).sequences
    assert other.claims.acquire(everything[0], "old", "other")
    lab.timing.sleep(11)
    assert other.claims.acquire(everything[1], "new", "other")
    found = planned(lab, size=2)
    assert names(found) == ["rec003.", "rec001."], "the batch is full all the same"
    assert [s.original_id for s in found.held] == ["rec002."]
    assert not found.is_complete


def test_the_unique_indexes_are_made_again_after_a_restore() -> None:
    lab = Lab(database=Database(is_indexed=False))
    store = lab.store()
    assert store.indexes.missing() != []
    planned(lab, store)
    assert store.indexes.missing() == []


def test_a_query_that_breaks_off_is_repeated() -> None:
    lab = Lab()
    hours(lab, 3)

    class Flaky(Network):
        failures = 2

        def before(self, command: str) -> None:
            if command == "pending" and self.failures:
                self.failures -= 1
                raise Away("for a moment")

    assert len(planned(lab, lab.store(network=Flaky())).sequences) == 3


def test_it_plans_some_way_ahead_but_never_more_than_a_thousand() -> None:
    assert [ahead(workers) for workers in (1, 6, 7, 64, 1000)] == [50, 50, 56, 512, 1000]


# -- the plan ---------------------------------------------------------------------------------


def test_each_batch_replaces_the_one_before_so_that_new_speech_never_waits() -> None:
    made = Plan(50, is_replaced=True)
    made.begin_query(0)
    made.take_in(batch(1, 2, 3))
    assert order(made, 1) == [1]
    excluded = made.begin_query(0)
    assert identity(1) in excluded
    made.take_in(batch(9, 2, 3))
    assert order(made, 3) == [9, 2, 3]


def test_batches_of_a_source_that_continues_are_appended() -> None:
    made = Plan(50, is_replaced=False)
    made.take_in(batch(1, 2))
    made.take_in(batch(3, is_complete=True))
    assert order(made, 3) == [1, 2, 3]


def test_what_was_started_during_a_query_is_not_planned_again() -> None:
    made = Plan(50, is_replaced=True)
    made.take_in(batch(1, 2, 3))
    made.begin_query(0)
    first = made.next()
    assert first is not None
    made.done(first)  # so quickly that the query may have seen it pending
    made.take_in(batch(1, 2, 3, is_complete=True))
    assert order(made, 3) == [2, 3]
    assert not made.is_complete, "whatever was left out is looked for once more"


def test_what_this_run_claimed_during_a_query_is_not_held_by_others() -> None:
    made = Plan(50, is_replaced=True)
    made.take_in(batch(1, 2))
    made.begin_query(0)
    assert order(made, 1) == [1]
    seen = Batch((sequence(2),), (sequence(1), sequence(3)), is_complete=True)
    assert made.held_by_others(seen) == [sequence(3)]
    made.take_in(seen)
    assert list(made.held) == [sequence(3)]


def test_barred_work_stays_out_until_its_time() -> None:
    made = Plan(50, is_replaced=True)
    made.take_in(batch(1))
    first = made.next()
    assert first is not None
    made.bar(first, until=10.0)
    assert identity(1) in made.begin_query(9.0)
    assert identity(1) not in made.begin_query(10.0)


def test_looking_again_lifts_all_bars_but_those_for_good() -> None:
    made = Plan(50, is_replaced=True)
    made.take_in(batch(1, 2))
    for until in (10.0, float("inf")):
        barred = made.next()
        assert barred is not None
        made.bar(barred, until)
    made.look_again()
    assert made.begin_query(0.0) == {identity(2)}


def test_held_work_of_a_source_that_continues_is_tried_once_more_at_the_end() -> None:
    made = Plan(50, is_replaced=False)
    made.take_in(batch(1, 2, is_complete=True))
    made.drop(frozenset({identity(1)}))
    assert order(made, 2) == [2]
    made.look_again()
    assert order(made, 1) == [1]


def test_with_other_runs_about_the_choice_is_random_within_the_highest_priority() -> None:
    urgent = tuple(sequence(n, priority=5) for n in range(4))
    usual = tuple(sequence(n) for n in range(4, 40))
    firsts = set()
    for seed in range(60):
        made = Plan(50, is_replaced=True)
        made.take_in(Batch(urgent + usual, (), is_complete=True))
        chosen = made.next(random.Random(seed))
        assert chosen is not None
        firsts.add(chosen.chunks[0].id)
    assert firsts == {0, 1, 2, 3}


def test_outranks_compares_priorities() -> None:
    made = Plan(50, is_replaced=True)
    made.take_in(batch(1))
    assert made.outranks(batch(2))
    assert not made.outranks(batch(2, priority=1))
    assert made.outranks(batch())

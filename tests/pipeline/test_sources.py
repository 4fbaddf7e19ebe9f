"""Sources: what a run may expect of recordings that are still being stored."""

import threading

from stt_lib.domain.models import identity
from stt_lib.pipeline.planner import Batch, plan
from stt_lib.pipeline.sources import ArrivingChunks, PendingChunks
from stt_lib.store import Store
from tests.support.waiting import eventually
from tests.support.world import World


def planned(store: Store, source: ArrivingChunks, begun: Batch | None = None) -> Batch:
    excluding = (
        frozenset(identity(c.id) for s in begun.sequences for c in s.chunks) if begun else ()
    )
    return plan(store, source, run_started=store.now(), excluding=excluding, size=50)


def test_a_plan_is_complete_only_once_everything_is_stored(world: World, store: Store) -> None:
    source = ArrivingChunks(PendingChunks(store))
    world.record(range(3), original_id="another")
    source.expect("new", 35)
    assert source.count() == 35
    assert planned(store, source) == Batch((), (), is_complete=False)
    world.record(range(30), original_id="new")
    source.arrived()
    assert planned(store, source) == Batch((), (), is_complete=False)
    world.record(range(30, 60), original_id="new")
    source.arrived()
    first = planned(store, source)
    assert ([len(s) for s in first.sequences], first.is_complete) == ([30], False)
    assert first.sequences[0].newest.index == 29, "what comes after its last words is there"
    world.record(range(60, 65), original_id="new")
    source.stored("new")
    rest = planned(store, source, first)
    assert ([s.newest.index for s in rest.sequences], rest.is_complete) == ([64, 34], False)
    source.complete()
    assert planned(store, source, first).is_complete


def test_counting_waits_for_the_first_estimate_and_never_for_ever(store: Store) -> None:
    source = ArrivingChunks(PendingChunks(store))
    counted: list[int] = []
    thread = threading.Thread(target=lambda: counted.append(source.count()))
    thread.start()
    source.complete()
    eventually(lambda: counted == [0])
    thread.join()

"""The scheduler itself: one thread at a time, virtual time, exact replay."""

from functools import partial

import pytest

from tests.simulation.scheduler import Scheduler, Stuck
from tests.simulation.timing import SimulatedTiming


def _interleaving(seed: int) -> list[str]:
    scheduler = Scheduler(seed)
    process = scheduler.process("p")
    seen: list[str] = []

    def work(name: str) -> None:
        for _ in range(5):
            scheduler.point()
            seen.append(name)

    for name in "abc":
        scheduler.spawn(process, partial(work, name), name)
    scheduler.run()
    return seen


def test_a_seed_replays_exactly_and_another_one_differs() -> None:
    runs = [_interleaving(seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert sorted(runs[0]) == sorted("abc" * 5)


def test_sleeping_takes_virtual_time() -> None:
    scheduler = Scheduler(0)
    timing = SimulatedTiming(scheduler.process("p"))
    woken: list[float] = []

    def sleeper() -> None:
        timing.sleep(3600)
        woken.append(timing.monotonic())

    timing.start_thread(sleeper, "sleeper")
    scheduler.run()
    assert woken == [pytest.approx(3600, abs=1)]


def test_events_conditions_and_executors() -> None:
    scheduler = Scheduler(0)
    timing = SimulatedTiming(scheduler.process("p"))
    results: list[int] = []

    def main() -> None:
        event = timing.event()
        assert not event.wait(1.0)
        executor = timing.executor(2, "pool")
        futures = [executor.submit(lambda n=n: n * n) for n in range(5)]
        results.extend(future.result() for future in futures)
        executor.shutdown()
        event.set()
        assert event.wait(1.0)

    timing.start_thread(main, "main")
    scheduler.run()
    assert results == [0, 1, 4, 9, 16]


def test_a_killed_process_ends_wherever_it_waits() -> None:
    scheduler = Scheduler(0)
    victim, other = scheduler.process("victim"), scheduler.process("other")
    timing, elsewhere = SimulatedTiming(victim), SimulatedTiming(other)
    after: list[str] = []

    def wait_for_ever() -> None:
        condition = timing.condition()
        with condition:
            condition.wait()
        after.append("waited")

    def sleep() -> None:
        timing.sleep(100)
        after.append("slept")

    def kill() -> None:
        elsewhere.sleep(1)
        victim.kill()
        elsewhere.sleep(1)
        after.append("killed")

    timing.start_thread(wait_for_ever, "waits")
    timing.start_thread(sleep, "sleeps")
    elsewhere.start_thread(kill, "kills")
    scheduler.run()
    assert after == ["killed"]
    assert scheduler.now < 10


def test_a_frozen_process_goes_on_later() -> None:
    scheduler = Scheduler(0)
    process = scheduler.process("p")
    timing, elsewhere = SimulatedTiming(process), SimulatedTiming(scheduler.process("other"))
    woken: list[float] = []

    def sleeper() -> None:
        timing.sleep(1)
        woken.append(timing.monotonic())

    timing.start_thread(sleeper, "sleeps")
    elsewhere.start_thread(lambda: process.freeze(60), "freezes")
    scheduler.run()
    assert woken == [pytest.approx(60, abs=2)]


def test_a_deadlock_is_reported() -> None:
    scheduler = Scheduler(0)
    timing = SimulatedTiming(scheduler.process("p"))

    def wait() -> None:
        timing.event().wait()

    timing.start_thread(wait, "waits")
    with pytest.raises(Stuck, match="everybody waits"):
        scheduler.run()

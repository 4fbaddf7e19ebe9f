"""Limits that find themselves, on simulated servers: time and chance are the test's."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib.servers.throttling import INITIAL, Limit, Pacer


@dataclass
class Simulation:
    """A server with `slots` that takes `service` seconds per request, more or less.

    Requests beyond `queue` waiting ones are refused. As many requests as the limit allows are
    always there: `busy` is the share of the slots' time that was used.
    """

    slots: int
    service: float = 1.0
    queue: int = 10_000
    lengths: tuple[float, ...] = (120.0,)
    noise: float = 0.1
    seed: int = 1
    busy: float = 0.0
    refusals: int = 0
    answers: int = 0
    limits: list[int] = field(default_factory=list)

    def run(self, limit: Limit, until: float) -> "Simulation":
        rng = random.Random(self.seed)
        now, number, at_work = 0.0, 0, 0
        waiting: list[tuple[float, float]] = []
        events: list[tuple[float, int, bool, float, float]] = []
        while now < until:
            while at_work + len(waiting) + self._refused(events) < limit.value:
                audio = rng.choice(self.lengths)
                if at_work >= self.slots and len(waiting) >= self.queue:
                    number += 1
                    heapq.heappush(events, (now + 0.01, number, False, now, audio))
                else:
                    waiting.append((now, audio))
            while waiting and at_work < self.slots:
                began, audio = waiting.pop(0)
                seconds = self.service * audio / 120 * (1 + self.noise * rng.uniform(-1, 1))
                self.busy += seconds / self.slots / until
                at_work, number = at_work + 1, number + 1
                heapq.heappush(events, (now + seconds, number, True, began, audio))
            now, _, is_answer, began, audio = heapq.heappop(events)
            if is_answer:
                in_flight = at_work + len(waiting)
                limit.answered(now, audio=audio, seconds=now - began, in_flight=in_flight)
                at_work, self.answers = at_work - 1, self.answers + 1
            else:
                limit.refused(now, started=began)
                self.refusals += 1
            self.limits.append(limit.value)
        return self

    @staticmethod
    def _refused(events: list[tuple[float, int, bool, float, float]]) -> int:
        return sum(not is_answer for _, _, is_answer, _, _ in events)

    @property
    def settled(self) -> list[int]:
        """The limits after a third of the time."""
        return self.limits[len(self.limits) // 3 :]


@pytest.mark.parametrize("lengths", [(120.0,), (10.0, 50.0, 300.0)])
def test_a_server_that_works_on_one_request_at_a_time_gets_a_few_and_never_idles(
    lengths: tuple[float, ...],
) -> None:
    done = Simulation(1, lengths=lengths, noise=0.3).run(Limit(16), 300)
    assert max(done.settled) <= 4
    assert done.busy > 0.97


@pytest.mark.parametrize("slots", [4, 8, 16])
def test_the_limit_finds_the_slots_and_stays_near_them(slots: int) -> None:
    done = Simulation(slots, lengths=(60.0, 120.0, 240.0)).run(Limit(128), 300)
    assert done.busy > 0.97
    assert slots <= min(done.settled)
    assert max(done.settled) <= 3 * slots


@pytest.mark.parametrize("slots", [64, 128])
def test_many_slots_are_reached_within_seconds_from_a_small_start(slots: int) -> None:
    limit = Limit(slots)
    assert limit.value == slots // 4
    done = Simulation(slots).run(limit, 60)
    assert done.busy > 0.94
    assert min(done.settled) == slots


@pytest.mark.parametrize(("ceiling", "start"), [(3, 3), (8, INITIAL), (20, INITIAL), (128, 32)])
def test_a_limit_starts_small(ceiling: int, start: int) -> None:
    assert Limit(ceiling).value == start


def test_a_server_that_refuses_is_left_in_peace() -> None:
    done = Simulation(8, queue=2).run(Limit(64), 300)
    assert done.refusals < 0.02 * done.answers
    assert done.busy > 0.9


def test_refusals_of_requests_sent_before_the_limit_shrank_count_once() -> None:
    limit = Limit(64)
    for moment in range(20):
        limit.refused(10.0 + moment / 100, started=9.0)
    assert limit.value == int(16 * 0.7)


def test_a_server_that_becomes_faster_gets_more_again() -> None:
    limit = Limit(32)
    Simulation(2).run(limit, 100)
    few = limit.value
    Simulation(16, service=0.2).run(limit, 200)
    assert few <= 6
    assert limit.value >= 12


def test_without_adapting_the_limit_is_the_ceiling() -> None:
    limit = Limit(12, adapts=False)
    limit.refused(1.0, started=0.0)
    Simulation(1).run(limit, 50)
    assert limit.value == 12


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0, 300)), max_size=200),
)
def test_the_limit_never_leaves_its_bounds(
    ceiling: int, events: list[tuple[bool, float, float]]
) -> None:
    limit, now = Limit(ceiling), 0.0
    for is_answer, seconds, audio in events:
        now += seconds
        if is_answer:
            limit.answered(now, audio=audio, seconds=seconds, in_flight=limit.value)
        else:
            limit.refused(now, started=now - seconds)
        assert 1 <= limit.value <= ceiling


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 10), min_size=2, max_size=50))
def test_paced_things_are_evenly_spaced_and_never_in_bursts(
    rate: float, waits: list[float]
) -> None:
    pacer, now, starts = Pacer(rate), 0.0, []
    for wait in waits:
        now += wait
        now += pacer.seconds_left(now)
        pacer.take(now)
        starts.append(now)
    assert all(later - earlier >= 1 / rate - 1e-6 for earlier, later in itertools.pairwise(starts))


def test_no_rate_means_no_wait() -> None:
    pacer = Pacer(None)
    pacer.take(1.0)
    assert pacer.seconds_left(1.0) == 0.0

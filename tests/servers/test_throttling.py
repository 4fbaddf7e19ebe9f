"""The concurrency limit and the rate limiter, on simulated servers: time is the test's."""

import heapq
import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib.servers.throttling import ConcurrencyLimit, RateLimiter


@dataclass
class Simulation:
    """A server with `slots` that takes a second per request, and refuses what does not fit.

    There are always as many requests as the limit allows. The first ten seconds do not count.
    """

    slots: int
    answers: int = 0
    refusals: int = 0

    def run(self, limit: ConcurrencyLimit, until: float) -> "Simulation":
        now, number, at_work = 0.0, 0, 0
        ends: list[tuple[float, int, bool, float]] = []
        while now < until:
            while len(ends) < limit.value:
                number += 1
                fits = at_work < self.slots
                at_work += fits
                heapq.heappush(ends, (now + (1.0 if fits else 0.01), number, fits, now))
            in_flight = len(ends)
            now, _, was_answered, started = heapq.heappop(ends)
            if was_answered:
                at_work -= 1
                self.answers += now > 10
                limit.answered(in_flight)
            else:
                self.refusals += now > 10
                limit.refused(now, started=started)
        return self


@pytest.mark.parametrize("ceiling", [1, 3, 128])
def test_a_limit_starts_at_its_ceiling(ceiling: int) -> None:
    assert ConcurrencyLimit(ceiling).value == ceiling


@pytest.mark.parametrize("slots", [1, 2, 8, 60])
def test_a_server_that_refuses_gets_what_it_takes(slots: int) -> None:
    done = Simulation(slots).run(ConcurrencyLimit(64), 210)
    assert done.answers > 0.85 * slots * 200
    assert done.refusals < 0.6 * done.answers


def test_refusals_of_requests_sent_before_the_limit_was_cut_count_once() -> None:
    limit = ConcurrencyLimit(64)
    for moment in range(20):
        limit.refused(10.0 + moment / 100, started=9.0)
    assert limit.value == int(64 * 0.7)


def test_a_limit_that_was_cut_recovers_by_one_per_answer_while_it_is_used() -> None:
    limit = ConcurrencyLimit(64)
    limit.refused(10.0, started=9.0)
    few = limit.value
    limit.answered(few - 1)
    assert limit.value == few, "an answer while there is room proves nothing"
    limit.answered(few)
    assert limit.value == few + 1
    for _ in range(1000):
        limit.answered(limit.value)
    assert limit.value == 64


def test_after_an_outage_it_restarts_at_one_and_recovers_by_one_per_answer() -> None:
    limit = ConcurrencyLimit(8)
    limit.restart()
    seen = [limit.value]
    for _ in range(6):
        limit.answered(limit.value)
        seen.append(limit.value)
    assert seen == [1, 2, 3, 4, 5, 6, 7]


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=200))
def test_the_limit_never_leaves_its_bounds(ceiling: int, events: list[tuple[bool, float]]) -> None:
    limit, now = ConcurrencyLimit(ceiling), 0.0
    for is_answer, seconds in events:
        now += seconds
        if is_answer:
            limit.answered(limit.value)
        else:
            limit.refused(now, started=now - seconds)
        assert 1 <= limit.value <= ceiling


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 10), min_size=2, max_size=50))
def test_requests_are_evenly_spaced_and_never_in_bursts(rate: float, waits: list[float]) -> None:
    limiter, now, starts = RateLimiter(rate), 0.0, []
    for wait in waits:
        now += wait
        now += limiter.seconds_left(now)
        limiter.take(now)
        starts.append(now)
    assert all(later - earlier >= 1 / rate - 1e-6 for earlier, later in itertools.pairwise(starts))


def test_no_rate_means_no_wait() -> None:
    limiter = RateLimiter(None)
    limiter.take(1.0)
    assert limiter.seconds_left(1.0) == 0.0

"""Deadlines that know the queue, on simulated servers that compute one request at a time."""

import heapq
import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest

from stt_lib.servers.deadlines import Deadlines, Pending


def timeout(chunks: int) -> float:
    return 5.0 + 3.0 * chunks


def deadlines(workers: int) -> Deadlines:
    return Deadlines(timeout, workers=workers)


@dataclass
class Process:
    """A run: its workers post one sequence after the other, and again whatever timed out."""

    name: int
    workers: int
    todo: deque[int]
    deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        self.deadlines = deadlines(self.workers)


@dataclass
class Serial:
    """A server that needs `per_chunk` seconds for a chunk, and never notices a hang-up."""

    per_chunk: float
    posts: Counter[tuple[int, int]] = field(default_factory=Counter)
    abandoned: int = 0
    was_slow: bool = False

    def run(self, *processes: Process) -> "Serial":
        """Let the processes post all that they have; the latest one starts 0.2 s late."""
        free_at, number = 0.0, itertools.count()
        events: list[tuple[float, int, str, Process, int, Pending | None]] = []

        def schedule(now: float, what: str, by: Process, size: int, p: Pending | None) -> None:
            heapq.heappush(events, (now, next(number), what, by, size, p))

        for late, process in enumerate(processes):
            for worker in range(process.workers):
                schedule(0.2 * late + 0.01 * worker, "next", process, 0, None)
        while events:
            now, _, what, by, size, pending = heapq.heappop(events)
            if what == "next":
                if not by.todo:
                    continue
                size, what = by.todo.popleft(), "post"
            if what == "post":
                self.posts[by.name, size] += 1
                pending = by.deadlines.sent(_chunks(size), now, started=now)
                free_at = max(free_at, now) + self.per_chunk * _chunks(size)
                is_answered = free_at <= pending.ends_at
                end = free_at if is_answered else pending.ends_at
                schedule(end, "answer" if is_answered else "timeout", by, size, pending)
                continue
            assert pending is not None
            if what == "answer":
                self.was_slow |= by.deadlines.answered(pending, now)
                schedule(now, "next", by, 0, None)
            else:
                self.abandoned += 1
                by.deadlines.abandoned(pending, now)
                schedule(now + 1.0, "post", by, size, None)
        return self


def _chunks(sequence: int) -> int:
    """Sequences are numbers whose last two digits are their chunks."""
    return sequence % 100


def process(name: int, workers: int, seed: int) -> Process:
    rng = random.Random(seed)
    return Process(name, workers, deque(100 * i + rng.randint(1, 30) for i in range(40)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("speed", [1, 2])
def test_a_serial_server_that_is_fast_enough_computes_nothing_twice(
    speed: int, workers: int, seed: int
) -> None:
    done = Serial(3.0 / speed).run(process(0, workers, seed))
    assert done.abandoned == 0
    assert set(done.posts.values()) == {1}
    assert not done.was_slow


@pytest.mark.parametrize("chunks", [1, 3, 12, 30])
@pytest.mark.parametrize("speed", [1, 2])
def test_two_processes_share_a_serial_server_and_nothing_is_computed_twice(
    speed: int, chunks: int
) -> None:
    two = [Process(name, 2, deque(100 * i + chunks for i in range(40))) for name in range(2)]
    done = Serial(3.0 / speed).run(*two)
    assert len(done.posts) == 80
    assert set(done.posts.values()) == {1}


@pytest.mark.parametrize("speed", [1, 2])
def test_two_processes_with_unequal_sequences_seldom_post_one_twice(speed: int) -> None:
    """What the other process holds can only be guessed."""
    posts: Counter[int] = Counter()
    for seed in range(20):
        done = Serial(3.0 / speed).run(process(0, 2, seed), process(1, 2, 100 + seed))
        posts += Counter(done.posts.values())
    assert set(posts) == {1, 2}
    assert posts[2] < 0.03 * posts[1]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_server_at_half_the_speed_gets_no_sequence_more_than_twice(
    workers: int, seed: int
) -> None:
    done = Serial(6.0).run(process(0, workers, seed))
    assert max(done.posts.values()) <= 2
    assert done.was_slow, "then --timeout-per-chunk is named"


def test_one_worker_and_one_server_have_exactly_the_timeout() -> None:
    alone = deadlines(1)
    now = 0.0
    for chunks in (30, 1, 2, 30, 7):
        request = alone.sent(chunks, now, started=now)
        assert request.allowed == timeout(chunks)
        now += 0.1
        alone.answered(request, now)


def test_a_small_request_waits_for_the_large_one_before_it() -> None:
    two = deadlines(2)
    two.sent(30, 0.0, started=0.0)
    assert two.sent(2, 0.0, started=0.0).allowed >= 32 * 3.0


def hang(known: Deadlines, slots: int, chunks: int, now: float) -> list[float]:
    return sorted(known.sent(chunks, now, started=now).allowed for _ in range(slots))


@pytest.mark.parametrize("answers", [0, 1, 2, 3, 5, 64, 1000])
def test_a_parallel_server_all_of_whose_slots_hang_is_noticed_within_a_minute(answers: int) -> None:
    """Three timeouts in a row open its breaker."""
    known, now = deadlines(64), 0.0
    for done in range(0, answers, 64):
        requests = [known.sent(2, now, started=now) for _ in range(min(64, answers - done))]
        now += 0.1
        for request in requests:
            known.answered(request, now)
    assert hang(known, 64, 2, now)[2] <= 60


def test_timeouts_double_the_allowance_and_quick_answers_take_it_back() -> None:
    known = deadlines(1)

    def times_out() -> None:
        known.abandoned(known.sent(1, 0.0, started=0.0), -100.0)  # what is abandoned is long done

    def answers() -> float:
        request = known.sent(1, 0.0, started=0.0)
        known.answered(request, 1.0)
        return request.allowed

    for expected in (2, 4, 4):
        times_out()
        assert known.seconds(1, 0.0) == expected * timeout(2), "another one like it may be ahead"
    unmeasured, measured = 3 * [4 * timeout(2)], 7 * [4 * timeout(1)]
    fewer, none = 10 * [2 * timeout(1)], [timeout(1)]
    assert [answers() for _ in range(21)] == unmeasured + measured + fewer + none


def test_what_was_abandoned_is_held_for_as_long_as_it_should_take() -> None:
    known = deadlines(1)
    known.abandoned(known.sent(10, 0.0, started=0.0), 35.0)
    assert known.held(35.0) == 10
    assert known.held(64.9) == 10
    assert known.held(65.1) == 0

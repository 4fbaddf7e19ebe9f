"""Workers and a server that computes one request at a time and never notices a hang-up."""

import re
import threading
import time

import pytest

from tests.support.crew import Crew
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper, Reply, Request, echo
from tests.support.world import World

PER_CHUNK = 0.1
"""Seconds that the timeouts allow for each chunk."""

LONG, SHORT = 12, 2


def timeouts(base: float) -> list[str]:
    return ["--timeout-base", str(base), "--timeout-per-chunk", str(PER_CHUNK)]


def serial(whisper: FakeWhisper, *, per_chunk: float) -> None:
    """Each request is computed to its end, whether anybody still waits for it or not."""
    turn = threading.Lock()

    def script(request: Request) -> Reply:
        with turn:
            whisper.released.wait(per_chunk * len(request.files))
        return echo(request)

    whisper.script = script


def backlog(world: World, *sizes: int) -> None:
    for size in sizes:
        world.record(range(size))


@pytest.mark.parametrize(("speed", "workers"), [(1, 2), (1, 5), (2, 2)])
def test_a_short_request_behind_long_ones_is_not_given_up(
    world: World, whisper: FakeWhisper, speed: int, workers: int
) -> None:
    serial(whisper, per_chunk=PER_CHUNK / speed)
    backlog(world, *4 * [SHORT, LONG, SHORT])
    done = world.run("--max-workers", str(workers), *timeouts(1.0))
    assert done.returncode == 0
    assert set(whisper.posts().values()) == {1}
    assert not [request for request in whisper.requests if request.is_probe]
    assert "--timeout-per-chunk" not in done.stderr
    world.assert_all_done()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_at_half_the_assumed_speed_gets_nothing_more_than_twice(
    world: World, whisper: FakeWhisper, workers: int
) -> None:
    serial(whisper, per_chunk=2 * PER_CHUNK)
    backlog(world, *4 * [LONG])
    done = world.run("--max-workers", str(workers), *timeouts(0.3))
    assert done.returncode == 0
    assert max(whisper.posts().values()) <= 2
    assert done.stderr.count("raise --timeout-per-chunk") == 1
    world.assert_all_done()


def test_two_processes_on_one_serial_server_give_nothing_up(
    world: World, whisper: FakeWhisper
) -> None:
    serial(whisper, per_chunk=PER_CHUNK)
    backlog(world, *8 * [6])
    with Crew() as crew:
        hands = [crew.start(world, "--max-workers", "2", *timeouts(1.0)) for _ in range(2)]
        assert [hand.end() for hand in hands] == [0, 0]
    assert set(whisper.posts().values()) == {1}
    world.assert_all_done()


def test_a_parallel_server_all_of_whose_slots_hang_is_noticed(
    world: World, whisper: FakeWhisper
) -> None:
    """Within a minute by the default timeouts, of which these are a tenth."""
    whisper.script = lambda _: Reply(after=100.0)
    backlog(world, *64 * [SHORT])
    limits = ["--timeout-base", "0.5", "--timeout-per-chunk", "0.3"]
    hand_on = ["--server-wait", "1", "--retries", "0", "--grace", "1"]
    began = time.monotonic()
    done = world.run("--max-workers", "64", *limits, *hand_on, seconds=60)
    assert done.returncode in (1, 3)
    assert "rests until" in done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("grace", "least", "most"), [("30s", 29, 30), ("1h", 900, 1002)], ids=["grace", "deadline"]
)
def test_a_run_that_stops_waits_no_longer_than_its_requests_may_take(
    world: World, whisper: FakeWhisper, grace: str, least: float, most: float
) -> None:
    """`--grace` knows the deadlines of the requests in flight."""
    backlog(world, SHORT)
    whisper.gate.clear()
    limits = ["--timeout-base", "1000", "--timeout-per-chunk", "1"]
    process = world.start("--max-workers", "1", "--grace", grace, *limits)
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    process.terminate()
    eventually(lambda: "Stopping" in world.log)
    whisper.gate.set()
    process.communicate(timeout=20)
    found = re.search(r"in flight get up to (\S+) s to finish", world.log)
    assert found is not None
    assert least <= float(found[1]) <= most
    world.assert_all_done()

"""A standalone MongoDB dies, comes back, or does not; its answers get lost."""

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import Figures, Size, Worlds
from tests.support.crew import Crew
from tests.support.lossy import lossy
from tests.support.promises import assert_intact, assert_kept, fill
from tests.support.whisper import FakeWhisper, Reply, Request, echo, faulty, status

BAD = b"not audio at all"


class _Mortal:
    """A mongod to be killed, so that the other tests keep theirs."""

    def __init__(self, mongod: Mongod) -> None:
        self.mongod = mongod
        self.runs = True

    def kill(self) -> None:
        self.mongod.kill()
        self.runs = False

    def start(self) -> None:
        self.mongod.start()
        self.runs = True

    def restart(self) -> None:
        self.kill()
        self.start()


@pytest.fixture(scope="module")
def _own_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("mongod")) as running:
        yield running


@pytest.fixture
def mortal(_own_mongod: Mongod, worlds: Worlds) -> Iterator[_Mortal]:
    """Runs again in the end, before `worlds` is cleared away."""
    mortal = _Mortal(_own_mongod)
    yield mortal
    if not mortal.runs:
        mortal.start()


@pytest.mark.timeout(240)
def test_a_run_survives_restarts_of_mongodb(
    mortal: _Mortal,
    crew: Crew,
    worlds: Worlds,
    rng: random.Random,
    size: Size,
    figures: Figures,
) -> None:
    sequences, restarts = size.of((30, 1), (1200, 60))
    began = time.monotonic()
    with faulty(pause=(0.05, 0.2), seed=rng.getrandbits(32)) as server:
        world = worlds(mortal.mongod.uri, server.url)
        chunks = fill(world, sequences, rng)
        hand = crew.start(world, "--max-workers", "3")
        for number in range(1, restarts + 1):
            _wait_for_requests(server, number * sequences // (restarts + 1))
            time.sleep(rng.uniform(0, 0.1))  # so that it may hit whatever comes next
            mortal.restart()
            assert_intact(world)
        assert hand.end(300) == 0, hand.console
        assert_intact(world)
        left = len(world.pending())
        crew.run_until_done(world)
        assert_kept(world)
        twice = sum(count > 1 for count in server.posts().values())
        figures.add(
            f"{restarts} restarts by SIGKILL in one run, {sequences} sequences of {chunks} chunks, "
            f"{len(server.sequences)} requests, {left} chunks left pending by that run, "
            f"{twice} posted more than once, {time.monotonic() - began:.0f} s"
        )


def _wait_for_requests(server: FakeWhisper, count: int) -> None:
    server.wait_for(lambda: len(server.sequences) >= count, 90)


def _once(action: Callable[[], None]) -> Callable[[Request], Reply]:
    """A server that does something else before it answers its first request."""
    first = threading.Lock()

    def script(request: Request) -> Reply:
        if first.acquire(blocking=False):
            action()
        return echo(request)

    return script


def _posts(whisper: FakeWhisper) -> list[bytes]:
    return sorted(audio for request in whisper.sequences for audio in request.audio)


@pytest.mark.timeout(120)
def test_what_was_paid_for_is_saved_though_mongodb_restarts_before_the_insert(
    mortal: _Mortal, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    whisper.script = _once(mortal.restart)
    world = worlds(mortal.mongod.uri, whisper.url)
    world.record(range(6))
    world.record(range(4))
    code, hand = crew.run(world)
    assert code == 0, hand.console
    assert_kept(world)
    assert len(_posts(whisper)) == 10  # each of the ten chunks once


@pytest.mark.timeout(120)
def test_a_run_ends_with_3_when_mongodb_stays_away_and_the_next_one_finishes_all(
    mortal: _Mortal, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    world = worlds(mortal.mongod.uri, whisper.url)
    for _ in range(6):
        world.record(range(3))
    whisper.script = _once(mortal.kill)
    code, hand = crew.run(world, "--mongo-wait", "2", "--lease", "3")
    mortal.start()
    assert code == 3, hand.console
    [line] = [line for line in hand.console.splitlines() if "ERROR" in line]
    assert "Stopped: MongoDB at 127.0.0.1" in line
    assert "Traceback" not in hand.console
    assert_intact(world)
    assert world.pending()
    code, hand = crew.run(world, "--lease", "3")
    assert code == 0, hand.console
    assert_kept(world)


@pytest.mark.timeout(120)
def test_a_write_whose_answer_was_lost_is_repeated_without_a_second_effect(
    mongod: Mongod, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    """Each one: claims, inserts, marks, failures and releases alike."""

    def script(request: Request) -> Reply:
        return status(415) if BAD in request.audio else echo(request)

    whisper.script = script
    world = worlds(mongod.uri, whisper.url)
    world.record(range(3))
    bad = world.record(range(1), data=BAD)
    with lossy(mongod.port) as proxy:
        code, hand = crew.run(world, env={"MONGODB_URI": proxy.uri})
        assert code == 1, hand.console
    assert proxy.lost["insert"] == 1
    assert proxy.lost["update"] >= 4  # two claims, a mark and a failure
    assert proxy.lost["delete"] >= 2  # expired claims, and those released
    assert_intact(world)
    [left] = world.pending()
    assert left["original_id"] == bad
    assert left["stt"]["failures"] == 1
    assert len(left["stt"]["history"]) == 1
    assert len(_posts(whisper)) == 4  # each chunk once

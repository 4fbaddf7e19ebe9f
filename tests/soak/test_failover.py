"""A replica set loses its primary again and again while workers run."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pymongo.errors import PyMongoError

from tests.soak.conftest import Figures, Size, Worlds
from tests.support.crew import Crew
from tests.support.promises import assert_kept, fill
from tests.support.replicas import ReplicaSet
from tests.support.whisper import faulty
from tests.support.world import World

ARGUMENTS = ("--max-workers", "2", "--lease", "3", "--timeout-base", "20")
ENDINGS = (0, 3)
"""A worker that starts while there is no primary gives up after five seconds."""


@contextmanager
def _two_workers_at_any_time(world: World, crew: Crew, codes: list[int]) -> Iterator[None]:
    """Whenever one ends, cron starts the next."""
    over = threading.Event()

    def keep() -> None:
        hands = [crew.start(world, *ARGUMENTS) for _ in range(2)]
        while not over.wait(0.1):
            for place, hand in enumerate(hands):
                if not hand.runs:
                    codes.append(hand.end())
                    hands[place] = crew.start(world, *ARGUMENTS)
        codes.extend(hand.end(120) for hand in hands)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Ingester:
    """Keeps the backlog filled, as somebody who talks all day would."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self.sequences = 0

    def top_up(self, sequences: int) -> None:
        """Add so many sequences unless the backlog holds plenty; MongoDB may be away for a bit."""
        deadline = time.monotonic() + 60
        while True:
            try:
                if len(self._world.pending()) < 8 * sequences:
                    fill(self._world, sequences, self._rng)
                    self.sequences += sequences
                return
            except PyMongoError:
                if time.monotonic() > deadline:
                    raise


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaSet]:
    with ReplicaSet(tmp_path_factory.mktemp("replicas")) as running:
        yield running


@pytest.mark.timeout(240)
def test_failovers_lose_nothing_and_double_nothing(
    replicas: ReplicaSet,
    crew: Crew,
    worlds: Worlds,
    rng: random.Random,
    size: Size,
    figures: Figures,
) -> None:
    rounds, more, pause = size.of((1, 25, 0.3), (25, 150, 3.0))
    codes: list[int] = []
    began = time.monotonic()
    with faulty(pause=(0.05, 0.3), seed=rng.getrandbits(32)) as server:
        world = worlds(replicas.uri, server.url)
        ingester = _Ingester(world, rng)
        ingester.top_up(more)
        with _two_workers_at_any_time(world, crew, codes):
            for _ in range(rounds):
                for disturb in (replicas.kill_primary, replicas.step_down):
                    ingester.top_up(more)
                    server.wait_for_more(3)
                    time.sleep(rng.uniform(0, pause))  # so that it may hit whatever comes next
                    disturb()
        crew.run_until_done(world, *ARGUMENTS)
        assert set(codes) <= set(ENDINGS), codes
        assert_kept(world)
        twice = sum(count > 1 for count in server.posts().values())
        figures.add(
            f"{replicas.kills} primaries killed, {replicas.stepdowns} stepdowns, "
            f"{ingester.sequences} sequences, {len(server.sequences)} requests by "
            f"{len(crew.hands)} runs, {twice} chunks posted more than once, "
            f"{time.monotonic() - began:.0f} s"
        )

"""Any number of workers at once: cron runs overlap, and that is normal."""

import random
import threading
import time
from collections import defaultdict
from datetime import timedelta
from itertools import pairwise

import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import Figures, Size, Worlds
from tests.support.crew import Crew, Hand, eventually
from tests.support.promises import assert_intact, assert_kept, fill
from tests.support.whisper import FakeWhisper, Reply, Request, echo, faulty, status
from tests.support.world import START, World

ARGUMENTS = ("--max-workers", "2", "--lease", "3", "--timeout-base", "20")
PATIENT = ("--timeout-base", "120")
"""For requests that we hold on purpose."""

MORE = 20
"""Sequences that are added when all are done before the kills are."""

AT_ONCE = 3
BAD = b"not audio at all"
LOST = ("their results will be dropped", "result dropped")
"""What a worker's log says when its claim had expired and somebody else took over."""


def _overlaps(server: FakeWhisper) -> list[tuple[Request, Request]]:
    """Pairs of requests that held the same chunk at the same moment, the earlier one first."""
    visits = defaultdict(list)
    for visit in server.sequences:
        for chunk in visit.chunks:
            visits[chunk].append(visit)
    return [
        (first, second)
        for holders in visits.values()
        for first, second in pairwise(sorted(holders, key=lambda visit: visit.started))
        if first.ended is None or second.started < first.ended
    ]


class _ImpatientCron:
    """Keeps three workers running, started one after the other, and kills some of them."""

    def __init__(
        self, world: World, server: FakeWhisper, crew: Crew, rng: random.Random, every: float
    ) -> None:
        self._world = world
        self._server = server
        self._crew = crew
        self._rng = rng
        self._every = every
        self.kills = 0
        self.most_at_once = 0

    def tick(self) -> None:
        """What happens between one start and the next."""
        if len(self._crew.running) < AT_ONCE:
            self._crew.start(self._world, *ARGUMENTS)
        running = self._crew.running
        self.most_at_once = max(self.most_at_once, len(running))
        time.sleep(self._rng.uniform(0, 2) * self._every)  # the clock of cron, not a condition
        if len(running) == AT_ONCE:
            self.kills += self._rng.choice(self._posting() or running).kill()

    def _posting(self) -> list[Hand]:
        names = {visit.worker for visit in self._server.sequences if visit.ended is None}
        return [hand for hand in self._crew.running if hand.name in names]


@pytest.mark.timeout(180)
def test_overlapping_runs_with_kills_among_them_never_share_a_chunk(
    mongod: Mongod,
    worlds: Worlds,
    crew: Crew,
    rng: random.Random,
    size: Size,
    figures: Figures,
) -> None:
    sequences, kills, every, pause = size.of((50, 3, 0.4, (0.1, 0.5)), (1500, 200, 1.0, (0.2, 1.0)))
    began = time.monotonic()
    with faulty(pause=pause, seed=rng.getrandbits(32)) as server:
        world = worlds(mongod.uri, server.url)
        chunks = fill(world, sequences, rng)
        cron = _ImpatientCron(world, server, crew, rng, every)
        while cron.kills < kills:
            cron.tick()
            assert_intact(world)
            if not world.pending():
                chunks += fill(world, MORE, rng)
                sequences += MORE
        for hand in crew.running:
            assert hand.end(300) == 0, hand.console
        crew.run_until_done(world, *ARGUMENTS)
        assert_kept(world)
        assert cron.most_at_once == AT_ONCE
        logs = {hand.name: hand.log for hand in crew.hands}
        overlaps = _overlaps(server)
        for first, second in overlaps:
            had_expired = any(words in logs[first.worker] for words in LOST)
            assert had_expired, f"{first} and {second} held the same chunk"
        figures.add(
            f"{len(crew.hands)} runs, {cron.kills} kills, {sequences} sequences of {chunks} "
            f"chunks, {len(server.sequences)} requests, {len(overlaps)} overlaps of expired "
            f"claims, {time.monotonic() - began:.0f} s"
        )


@pytest.mark.timeout(120)
def test_ten_workers_on_one_backlog_post_no_chunk_twice_and_share_the_work(
    mongod: Mongod,
    worlds: Worlds,
    crew: Crew,
    rng: random.Random,
    size: Size,
    figures: Figures,
) -> None:
    sequences = size.of(40, 1000)
    began = time.monotonic()
    with faulty(pause=(0.01, 0.1), seed=rng.getrandbits(32)) as server:
        world = worlds(mongod.uri, server.url)
        chunks = fill(world, sequences, rng)
        server.gate.clear()  # until all ten have a request under way, so that all take part
        hands = [crew.start(world, "--max-workers", "1", *PATIENT) for _ in range(10)]
        eventually(lambda: len(_workers(server)) == 10, 60, "a request of each of ten workers")
        server.gate.set()
        for hand in hands:
            assert hand.end(300) == 0, hand.console
        assert_kept(world)
        assert set(server.posts().values()) == {1}
        assert sum(server.posts().values()) == chunks
        figures.add(
            f"{sequences} sequences of {chunks} chunks, {len(server.sequences)} requests by "
            f"{len(_workers(server))} workers, {time.monotonic() - began:.0f} s"
        )


def _workers(server: FakeWhisper) -> set[str]:
    return {visit.worker for visit in server.sequences}


@pytest.mark.timeout(60)
def test_what_fails_in_one_run_is_not_tried_at_once_by_another_that_had_planned_it(
    mongod: Mongod, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    """Else ten overlapping runs would use up all the tries of a chunk within a minute."""
    opened = threading.Event()

    def script(request: Request) -> Reply:
        if BAD in request.audio:
            return status(415)
        if not request.is_probe:
            opened.wait(40)
        return echo(request)

    whisper.script = script
    world = worlds(mongod.uri, whisper.url)
    world.record(range(1), data=BAD)
    for day in range(1, 6):
        world.record(range(1), start=START + timedelta(days=day))
    first = crew.start(world, "--lease", "3", *PATIENT)
    whisper.wait_for(lambda: len(whisper.sequences) == 1, 60)
    second = crew.start(world, "--lease", "3", "--max-workers", "6", *PATIENT)
    bad = {"data": BAD, "stt.failures": {"$exists": True}}
    eventually(lambda: world.chunks.find_one(bad) is not None, 60, "the failure on the chunk")
    opened.set()
    codes = [first.end(), second.end()]
    [left] = world.pending()
    assert left["stt"]["failures"] == 1, [first.console, second.console]
    assert codes == [0, 1]

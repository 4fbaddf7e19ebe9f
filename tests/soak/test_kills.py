"""The worker dies at any instruction, and the next run finishes the job."""

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import PARTS, Figures, Size, Worlds
from tests.support import clocks
from tests.support.crew import Crew, Hand, eventually
from tests.support.halting import POINTS
from tests.support.promises import assert_intact, assert_kept, fill
from tests.support.whisper import FakeWhisper, Faults, faulty, running
from tests.support.world import World

ARGUMENTS = ("--max-workers", "3", "--lease", "3", "--max-failures", "50")
IMPATIENT = ("--timeout-base", "1", "--timeout-per-chunk", "0")
OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("--limit", "5"),
    ("--max-workers", "1"),
    ("--max-workers", "6", "--server-max", "2"),
    ("--watch", "1"),
    ("--retry-errors",),
    ("--max-runtime", "20"),
    ("--since", "2020-01-01"),
    ("--rate-limit", "20"),
    ("--filter", "off"),
    ("--language", "en", "--prompt", "Words to expect"),
    ("--log-format", "json", "--verbose"),
    ("--quiet",),
)
"""Each worker that is killed runs with one of these."""

CLOCKS = ("+0", "-3s", "+40d", "-40d")
EVENT_SECONDS = 60.0
MORE = 20
"""Sequences that are added when all are done before the kills are."""


# -- at random moments ----------------------------------------------------------------------------


class _KillLoop:
    """Starts one worker after the other and kills each at a moment of its own.

    About `most` requests at most end in the life of a worker, so that the backlog lasts.
    """

    def __init__(
        self, world: World, server: FakeWhisper, crew: Crew, rng: random.Random, most: int
    ) -> None:
        self._world = world
        self._server = server
        self._crew = crew
        self._rng = rng
        self._most = most
        self.kills = 0
        self.kills_with_requests = 0
        self._moments: tuple[Callable[[Hand], None], ...] = (
            self._at_the_start,
            self._after_some_requests,
            self._after_some_requests,
            self._when_a_request_ends,
            self._after_a_log_line,
        )

    def kill_one(self) -> None:
        options, clock = self._rng.choice(OPTIONS), self._rng.choice(CLOCKS)
        hand = self._crew.start(
            self._world, *ARGUMENTS, *IMPATIENT, *options, env=clocks.wrong(clock)
        )
        self._rng.choice(self._moments)(hand)
        is_posting = any(
            visit.worker == hand.name and visit.ended is None for visit in self._server.sequences
        )
        if hand.kill():
            self.kills += 1
            self.kills_with_requests += is_posting

    def _at_the_start(self, hand: Hand) -> None:
        self._a_moment(0.8)

    def _after_some_requests(self, hand: Hand) -> None:
        wanted = self._rng.randint(1, self._most)
        self._until(hand, lambda: self._count(hand, ended=False) >= wanted)
        self._a_moment(0.1)

    def _when_a_request_ends(self, hand: Hand) -> None:
        """Then its result is on its way to MongoDB."""
        wanted = self._rng.randint(1, self._most)
        self._until(hand, lambda: self._count(hand, ended=True) >= wanted)
        self._a_moment(0.02)

    def _after_a_log_line(self, hand: Hand) -> None:
        line = self._rng.choice(["Using", "Processing", "Completed", "Attempt", "Error"])
        self._until(hand, lambda: line in hand.log)
        self._a_moment(0.02)

    def _count(self, hand: Hand, *, ended: bool) -> int:
        mine = [visit for visit in self._server.sequences if visit.worker == hand.name]
        return sum(visit.ended is not None for visit in mine) if ended else len(mine)

    def _until(self, hand: Hand, condition: Callable[[], bool]) -> None:
        """Until it comes true, or never will, or too much work would be done waiting for it."""

        def is_over() -> bool:
            is_idle = not hand.runs or "Nothing to do" in hand.log
            return condition() or is_idle or self._count(hand, ended=True) > self._most

        try:
            eventually(is_over, EVENT_SECONDS, "what was to come first")
        except AssertionError as error:
            hand.end(0.0)  # raises with the stacks of its threads
            raise AssertionError(hand.log) from error

    def _a_moment(self, seconds: float) -> None:
        """Not to wait for anything, but so that the kill may hit whatever comes next."""
        time.sleep(self._rng.uniform(0, seconds))


@pytest.mark.timeout(180)
def test_hundreds_of_kills_on_a_faulty_server_lose_nothing_and_double_nothing(
    mongod: Mongod,
    worlds: Worlds,
    crew: Crew,
    rng: random.Random,
    size: Size,
    figures: Figures,
    part: int,
) -> None:
    """Each part has a database of its own."""
    sequences, kills, most = size.of((75, 8, 8), (2000, 1150 // PARTS, 24))
    began = time.monotonic()
    faults = Faults(0.2, (0.0, 0.15), rng.getrandbits(32))
    with running(faults) as server:
        world = worlds(mongod.uri, server.url)
        chunks = fill(world, sequences, rng)
        loop = _KillLoop(world, server, crew, rng, most)
        while loop.kills < kills:
            loop.kill_one()
            assert_intact(world)
            if not world.pending():
                chunks += fill(world, MORE, rng)
                sequences += MORE
        left = len(world.pending())
        faults.rate = 0.0
        runs = _finish(world, crew)
        assert_kept(world)
        figures.add(
            f"{loop.kills} kills ({loop.kills_with_requests} with requests in flight), "
            f"{sequences} sequences of {chunks} chunks, {left} chunks left for the {runs} "
            f"undisturbed runs, {len(server.sequences)} requests, {server.faults.total()} faults "
            f"{dict(server.faults)}, {time.monotonic() - began:.0f} s"
        )


def _finish(world: World, crew: Crew) -> int:
    """Undisturbed runs, as cron and a person would start them; returns how many it took.

    A chunk whose audio was suspected while the server misbehaved is due only later; a person
    who does not want to wait uses --retry-errors.
    """
    for number, more in enumerate([(), ("--retry-errors",), ()], start=1):
        code, hand = crew.run(world, *ARGUMENTS, *more, seconds=900)
        assert code == 0, hand.console
        if not world.pending():
            return number
    raise AssertionError(f"{len(world.pending())} chunks are still pending\n{hand.console}")


# -- at each step of the work ---------------------------------------------------------------------

STEPS = ("claimed", "posting", "answered", "saved", "marked")
AT_A_CUT = ("agreeing", "agreed")
ALL_STEPS = ("posting", *(point for point in POINTS if point not in AT_A_CUT))
OWNED = frozenset({"saved", "marked", "released"})
"""Where the transcript is safe: nothing may be posted again."""


@pytest.mark.timeout(120)
def test_after_a_kill_at_any_step_one_plain_run_finishes_everything(
    mongod: Mongod, worlds: Worlds, crew: Crew, size: Size
) -> None:
    steps = size.of(STEPS, ALL_STEPS)
    with ExitStack() as stack:
        servers = {step: stack.enter_context(faulty()) for step in steps}
        of_step = {step: worlds(mongod.uri, servers[step].url) for step in steps}
        for world in of_step.values():
            world.record(range(4))
            world.record(range(3))
        _kill_all_at_their_steps(of_step, servers, crew)
        for world in of_step.values():
            assert_intact(world)
            assert world.pending()
        _finish_all_by_one_run(of_step, crew)
        for step, world in of_step.items():
            assert_kept(world)
            first = servers[step].sequences[0].chunks if servers[step].sequences else ()
            if step in OWNED:
                assert {servers[step].posts()[chunk] for chunk in first} == {1}, step


@pytest.mark.timeout(120)
def test_after_a_kill_at_any_step_cut_speech_is_joined_by_one_plain_run(
    mongod: Mongod, worlds: Worlds, crew: Crew, size: Size
) -> None:
    """One side dies with the seam decided or not; the other side comes first, or the same again."""
    steps = size.of(("posting", "agreed", "saved"), ("posting", *POINTS))
    with ExitStack() as stack:
        servers = {step: stack.enter_context(faulty()) for step in steps}
        of_step = {step: worlds(mongod.uri, servers[step].url) for step in steps}
        for world in of_step.values():
            world.record(range(70))
        _kill_all_at_their_steps(of_step, servers, crew)
        _finish_all_by_one_run(of_step, crew)
        for step, world in of_step.items():
            assert_kept(world)
            assert world.transcriptions.count_documents({}) == 3, step


def _kill_all_at_their_steps(
    worlds: dict[str, World], servers: dict[str, FakeWhisper], crew: Crew
) -> None:
    """All at once, for that is quicker."""
    servers["posting"].gate.clear()
    arguments = ("--max-workers", "1", "--lease", "3", "--limit", "1")
    hands = {
        step: crew.start(world, *arguments)
        if step == "posting"
        else crew.start_halting(world, step, "kill", *arguments)
        for step, world in worlds.items()
    }
    server = servers["posting"]
    server.wait_for(lambda: len(server.requests) == 1, EVENT_SECONDS)
    assert hands["posting"].kill()
    server.gate.set()
    for step, hand in hands.items():
        assert hand.end() == -9, f"{step}: {hand.console}"


def _finish_all_by_one_run(worlds: dict[str, World], crew: Crew) -> None:
    hands = {step: crew.start(world, "--lease", "3") for step, world in worlds.items()}
    for step, hand in hands.items():
        assert hand.end() == 0, f"{step}: {hand.console}"


@pytest.mark.timeout(60)
def test_a_run_takes_what_a_dead_worker_held_though_the_claim_expires_meanwhile(
    mongod: Mongod, worlds: Worlds, crew: Crew
) -> None:
    """It is held when the run plans, and free long before the run has nothing else to do."""
    with faulty() as server:
        world = worlds(mongod.uri, server.url)
        held = world.record(range(3))
        world.record(range(2))
        until = world.client.admin.command("hello")["localTime"] + timedelta(seconds=2)
        ids = [chunk["_id"] for chunk in world.chunks.find({"original_id": held})]
        world.claims.insert_one({"_id": "dead", "chunk_ids": ids, "until": until, "lease_ms": 3000})
        server.gate.clear()
        hand = crew.start(world, "--timeout-base", "120")
        server.wait_for(lambda: len(server.sequences) == 1, EVENT_SECONDS)
        eventually(
            lambda: world.client.admin.command("hello")["localTime"] > until, 60, "the expiry"
        )
        server.gate.set()
        assert hand.end() == 0, hand.console
        assert_kept(world)

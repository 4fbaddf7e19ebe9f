"""Clocks that are wrong or are set: MongoDB's own decides, and even that may jump."""

import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from stt_lib.local.mongod import Mongod, in_session_of_its_own
from stt_lib.store import Store
from stt_lib.store.claims import CLOCK_ERROR_MS
from tests.soak.conftest import Figures, Size, Worlds
from tests.support import clocks
from tests.support.crew import Crew
from tests.support.promises import assert_intact, assert_kept, fill
from tests.support.waiting import eventually
from tests.support.whisper import faulty
from tests.support.world import World

ARGUMENTS = ("--max-workers", "2", "--lease", "3")
AT_ONCE = 3
JUMPS = ("+0", "+40", "-40", "+90m", "-90m", "+40d", "-40d")


class _Jumping:
    """A mongod that is killed and comes back with another time of the day."""

    def __init__(self, folder: Path) -> None:
        self._offset = "+0"
        self.mongod = Mongod(folder, launch=self._launch)

    def _launch(self, command: Sequence[str], output: BinaryIO) -> "subprocess.Popen[bytes]":
        env = {**os.environ, **clocks.wrong(self._offset)}
        return in_session_of_its_own(command, output, env)

    def jump(self, offset: str) -> None:
        self.mongod.kill()
        self._offset = offset
        self.mongod.start()


@pytest.fixture
def jumping(tmp_path: Path) -> Iterator[_Jumping]:
    made = _Jumping(tmp_path / "mongod")
    with made.mongod:
        yield made


def _keep_working(crew: Crew, world: World, rng: random.Random) -> None:
    """Keep runs going, each by a clock of its own."""
    while len(crew.running) < AT_ONCE:
        crew.start(world, *ARGUMENTS, env=clocks.wrong(rng.choice(JUMPS)))


def _end(crew: Crew, world: World) -> None:
    for hand in crew.running:
        assert hand.end(300) == 0, hand.console
    crew.run_until_done(world, *ARGUMENTS)
    _let_claims_expire(world)
    assert_kept(world)


def _let_claims_expire(world: World) -> None:
    """A mongod that is killed may forget that a claim was released.

    If its clock was ahead, the claim lasts longer than its lease: up to a minute, or until the next
    run, which takes it for the work of a wrong clock.
    """
    with Store(world.uri, world.database) as store:

        def none_is_left() -> bool:
            store.claims.delete_expired()
            return not store.claims.live()

        eventually(none_is_left, seconds=CLOCK_ERROR_MS / 1000 + 20, what="all claims expired")


@pytest.mark.timeout(180)
def test_workers_with_wrong_clocks_post_everything_once(
    mongod: Mongod, crew: Crew, worlds: Worlds, rng: random.Random, size: Size, figures: Figures
) -> None:
    sequences = size.of(12, 600)
    began = time.monotonic()
    with faulty(pause=(0.02, 0.1), seed=rng.getrandbits(32)) as server:
        world = worlds(mongod.uri, server.url)
        chunks = fill(world, sequences, rng)
        while world.pending():
            _keep_working(crew, world, rng)
            server.wait_for_more(min(5, sequences - len(server.sequences)))
            assert_intact(world)
        _end(crew, world)
        assert set(server.posts().values()) == {1}
        figures.add(
            f"{len(crew.hands)} runs, {sequences} sequences of {chunks} chunks, "
            f"none posted twice, {time.monotonic() - began:.0f} s"
        )


@pytest.mark.timeout(180)
def test_a_mongod_whose_clock_is_set_loses_nothing_and_doubles_nothing(
    jumping: _Jumping,
    crew: Crew,
    worlds: Worlds,
    rng: random.Random,
    size: Size,
    figures: Figures,
) -> None:
    sequences, jumps = size.of((15, 1), (200, 30))
    began = time.monotonic()
    with faulty(pause=(0.05, 0.2), seed=rng.getrandbits(32)) as server:
        world = worlds(jumping.mongod.uri, server.url)
        chunks = fill(world, sequences, rng)
        for _ in range(jumps):
            chunks += fill(world, AT_ONCE * 3, rng)
            _keep_working(crew, world, rng)
            server.wait_for_more(3)
            jumping.jump(rng.choice(JUMPS))
            assert_intact(world)
        jumping.jump("+0")
        _end(crew, world)
        twice = sum(count > 1 for count in server.posts().values())
        figures.add(
            f"{jumps} jumps, {len(crew.hands)} runs, {chunks} chunks, {twice} posted more than "
            f"once, {time.monotonic() - began:.0f} s"
        )

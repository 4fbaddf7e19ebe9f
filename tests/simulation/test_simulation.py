"""Whole runs under faults, a fixed range of seeds: `make simulate` plays others."""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.world import build, play

SEEDS = 300
AT_ONCE = 25
"""Seeds of one test, so that the processes of the suite can share them."""


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_every_promise_is_kept(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        play(seed)


def test_a_seed_replays_exactly() -> None:
    traces = []
    for _ in range(2):
        world = build(11)
        world.play()
        traces.append(world.scheduler.trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 100

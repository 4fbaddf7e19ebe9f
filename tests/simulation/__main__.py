"""Plays seeds: `python -m tests.simulation 4711` one with its trace, `--seeds 20000` many."""

import argparse
import itertools
import logging
import multiprocessing
import time
import traceback

from tests.simulation.world import build, play, report

PROCESSES = 2
AT_ONCE = 20
"""Seeds handed to a process in one go."""

WHOLE_TRACE = 1_000_000


def main() -> int:
    """Exit with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="play this one and print its trace")
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds to play")
    parser.add_argument("--first", type=int, help="the first seed; by default a new range")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if given.seed is not None:
        return _show(given.seed)
    first = time.time_ns() // 1_000_000 % 10**10 if given.first is None else given.first
    return _play_all(first, given.seeds)


def _show(seed: int) -> int:
    world = build(seed)
    try:
        world.play()
    except BaseException:
        print(report(world, seed, WHOLE_TRACE))
        traceback.print_exc()
        return 1
    print(report(world, seed, WHOLE_TRACE))
    return 0


def _play_all(first: int, count: int) -> int:
    print(f"seeds {first} to {first + count - 1}", flush=True)
    began, failed = time.monotonic(), []
    with multiprocessing.Pool(PROCESSES) as pool:
        played = pool.imap_unordered(_failure, range(first, first + count), AT_ONCE)
        for number, failure in zip(itertools.count(1), played, strict=False):
            if failure is not None:
                failed.append(failure)
                print(failure, flush=True)
            if number % 1000 == 0:
                print(f"{number} played, {len(failed)} failed", flush=True)
    minutes = (time.monotonic() - began) / 60
    pace = f"{count / minutes:.0f} seeds a minute"
    print(f"{count} played in {minutes:.1f} minutes ({pace}), {len(failed)} failed")
    return 1 if failed else 0


def _failure(seed: int) -> str | None:
    logging.disable(logging.CRITICAL)
    try:
        play(seed)
    except BaseException as error:  # a violation, or a defect of whatever kind
        return f"seed {seed}: {type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    raise SystemExit(main())

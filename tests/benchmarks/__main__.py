"""`python -m tests.benchmarks`: all measurements, or those whose numbers are given."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from stt_lib.local.mongod import Mongod
from tests.benchmarks import crowd, database, model, speed, tables
from tests.benchmarks.lab import FULL, QUICK, Lab, Sizes, Table

RESULTS = Path(__file__).parent / "results" / "latest.json"

MEASUREMENTS: dict[int, Callable[[Lab], Table]] = {
    1: speed.saturation,
    2: speed.cost,
    3: speed.ceiling,
    4: database.memory,
    5: database.commands,
    6: database.start,
    7: model.real_model,
    8: speed.unequal,
    9: database.look,
    10: crowd.crowd,
}
HUGE = 10_000_000
CACHE_GB = 4.0
"""A MongoDB of one's own has half of the memory by default, and so the chunks of the last hours."""


def measure(numbers: Sequence[int], sizes: Sizes, out: Path) -> dict[int, Table]:
    """Take the measurements one after the other; each is printed and saved once it is there."""
    done: dict[int, Table] = {}
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="stt-bench-") as name:
        folder = Path(name)
        with Mongod(folder / "mongod", cache_gb=CACHE_GB) as mongod:
            lab = Lab(mongod, folder, sizes)
            for number in numbers:
                began = time.monotonic()
                done[number] = MEASUREMENTS[number](lab)
                tables.save(out, done, asdict(sizes), (before, os.getloadavg()[0]))
                print(tables.text(done[number]))
                print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    listed = "; ".join(f"{(m.__doc__ or '').splitlines()[0]}" for m in MEASUREMENTS.values())
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help=listed)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument(
        "--huge", action="store_true", help="4, 5, 6, 9 and 10 with ten million chunks, too"
    )
    parser.add_argument("--rounds", type=int, help="how often each program runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    given = parser.parse_args(arguments)
    numbers = given.numbers or list(MEASUREMENTS)
    if unknown := set(numbers) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {min(unknown)}")
    sizes = QUICK if given.quick else FULL
    if given.rounds:
        sizes = replace(sizes, rounds=given.rounds)
    if given.huge:
        sizes = replace(sizes, backlogs=(*sizes.backlogs, HUGE))
    # So that mongod and the servers are stopped by whatever stops us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    measure(numbers, sizes, given.out)
    print(f"\nWritten to {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

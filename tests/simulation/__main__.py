"""`python -m tests.simulation SEED [COUNT]`: play seeds; a single one prints its whole trace."""

import logging
import sys
import time
import traceback

from tests.simulation.world import build, play, report


def main() -> int:
    logging.disable(logging.CRITICAL)
    first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    if count == 1:
        world = build(first)
        try:
            world.play()
        except BaseException:
            traceback.print_exc()
        print(report(world, first, 100_000))
        return 0
    began, failed, steps = time.monotonic(), [], 0
    for seed in range(first, first + count):
        try:
            steps += play(seed).scheduler.steps
        except BaseException as error:
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:600]}", flush=True)
    seconds = time.monotonic() - began
    print(f"{count} seeds, {len(failed)} failed {failed[:20]}, {seconds:.1f} s, {steps} steps")
    return 1 if failed else 0


sys.exit(main())

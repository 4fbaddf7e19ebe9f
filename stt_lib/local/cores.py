"""The processors that this process may use, which a container may limit, and work for them all."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use: microseconds of CPU time per period, then the period; or `max`."""

MOST_THREADS = 4
"""Threads that work on a sound at a time; more are faster than what reads it."""

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return the number of processors that this process may use, also inside a container."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(here or 1, _quota()))


def on_all(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Like `map`, on several processors, for functions that release Python's lock.

    Results come in the order of the items, of which only a few are held at a time.
    """
    threads = min(cores(), MOST_THREADS)
    ahead: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        yield from (result.result() for result in ahead)


def _quota() -> int:
    """Return the whole processors that the cgroup grants; a very large number without a limit."""
    try:
        granted, period = CPU_QUOTA.read_text().split()
        return int(granted) // int(period)
    except (OSError, ValueError):
        return sys.maxsize

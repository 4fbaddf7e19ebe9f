"""The processors that this process may use, which a container may limit."""

import os
import sys
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What a container may use: microseconds of CPU time per period, then the period; or `max`."""


def cores() -> int:
    """Return the number of processors that this process may use, also inside a container."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(here or 1, _quota()))


def _quota() -> int:
    """Return the whole processors that the cgroup grants; a very large number without a limit."""
    try:
        granted, period = CPU_QUOTA.read_text().split()
        return int(granted) // int(period)
    except (OSError, ValueError):
        return sys.maxsize

"""Programs as processes of their own, and what each of them took."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from tests.support.world import ROOT

LIMIT_SECONDS = 280.0
"""No program that is timed runs longer."""

_LOOK_SECONDS = 0.02
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "LANG", "TMPDIR")


class Failed(Exception):
    """A program did not do what was to be measured."""


@dataclass(frozen=True)
class Run:
    """One process from start to end; `started` is of the monotonic clock."""

    started: float
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    output: str


def run(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str] | None = None,
    codes: Sequence[int] = (0,),
    limit: float = LIMIT_SECONDS,
) -> Run:
    """Run a command to its end; its output goes through files, which never block it."""
    out, err = folder / "output.txt", folder / "errors.txt"
    with out.open("wb") as output, err.open("wb") as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        peak, usage = _watch(process, limit)
        seconds = time.monotonic() - started
    if process.returncode not in codes:
        said = err.read_text(errors="replace")[-2000:]
        raise Failed(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(started, seconds, cpu, peak / 1024, out.read_text(errors="replace"))


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process gets: none of the settings of whoever started the benchmark."""
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, **(more or {})}


def _watch(process: "subprocess.Popen[bytes]", limit: float) -> tuple[int, Any]:
    """Wait for the end; the peak in kB and what the kernel says it used.

    The kernel's own `ru_maxrss` would not do: a new process inherits it from its parent.
    """
    peak, deadline = 0, time.monotonic() + limit
    while True:
        peak = max(peak, _high_water(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return peak, usage
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise Failed(f"{process.args!r} ran longer than {limit:.0f} s")
        time.sleep(_LOOK_SECONDS)


def _high_water(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    _, found, rest = status.partition("VmHWM:")
    return int(rest.split()[0]) if found else 0


@contextmanager
def serving(**behaviour: float) -> Iterator[str]:
    """A benchmark server; yields its address. Names and meaning as in `server.Behaviour`."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in behaviour.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.server", *flags],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def report(url: str) -> dict[str, Any]:
    """What a benchmark server has counted; waits for one that is away."""
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        try:
            connection.request("GET", "/report")
            return cast(dict[str, Any], json.loads(connection.getresponse().read()))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        finally:
            connection.close()


def cpu_seconds(pid: int) -> float:
    """What a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """What all processes of the machine have used so far."""
    total = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, total)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")

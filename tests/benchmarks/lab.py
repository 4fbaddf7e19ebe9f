"""What the measurements share: a mongod, a folder, sizes, and the two programs side by side."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stt_lib.local.mongod import Mongod
from tests.benchmarks import processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.processes import Failed, Run
from tests.support.world import ROOT

FAILURES = 1
"""The exit code of a run in which some sequences failed."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Crew:
    """Worker processes that run at the same time; a request takes `service` seconds."""

    processes: int
    workers: int
    limit: int
    """Sequences that each process attempts."""
    service: float


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    short_waves: int
    """Requests of each slot where a request takes 100 ms."""
    long_waves: int
    """The same where it takes a second."""
    slots: tuple[tuple[int, float], ...]
    """Number of slots and seconds of service in the measurement of saturation."""
    sequences: int
    """Sequences where the service is quick."""
    backlogs: tuple[int, ...]
    """Pending chunks."""
    starts: int
    """How often the time to the first request is taken."""
    unequal_seconds: float
    crowd: Crew


FULL = Sizes(
    rounds=3,
    short_waves=100,
    long_waves=40,
    slots=((1, 0.1), (4, 0.1), (16, 0.1), (64, 1.0), (128, 1.0), (64, 0.1)),
    sequences=1500,
    backlogs=(10_000, 1_000_000),
    starts=5,
    unequal_seconds=30.0,
    crowd=Crew(processes=16, workers=64, limit=256, service=10.0),
)
QUICK = Sizes(
    rounds=1,
    short_waves=20,
    long_waves=4,
    slots=((1, 0.1), (4, 0.1), (16, 0.1), (64, 1.0)),
    sequences=200,
    backlogs=(1_000, 10_000),
    starts=2,
    unequal_seconds=8.0,
    crowd=Crew(processes=4, workers=8, limit=16, service=1.0),
)
TINY = Sizes(
    rounds=1,
    short_waves=3,
    long_waves=1,
    slots=((2, 0.02),),
    sequences=6,
    backlogs=(120,),
    starts=1,
    unequal_seconds=1.0,
    crowd=Crew(processes=2, workers=1, limit=2, service=0.02),
)


@dataclass(frozen=True)
class Goal:
    """What the project promises of a figure, and what it came to."""

    name: str
    limit: float
    measured: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(frozen=True)
class Table:
    """The outcome of one measurement."""

    title: str
    rows: list[Row]
    goals: list[Goal]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Load:
    """One run of a program against one benchmark server, and what everything used meanwhile."""

    run: Run
    server: dict[str, Any]
    mongod_cpu: float
    others_cpu: float
    """What processes used that have no part in this."""

    @property
    def done(self) -> int:
        return int(self.server["answered"])

    @property
    def per_second(self) -> float:
        return self.done / max(1e-9, float(self.server["wall"]))


class Lab:
    """Runs the programs."""

    def __init__(self, mongod: Mongod, folder: Path, sizes: Sizes) -> None:
        self.mongod = mongod
        self.folder = folder
        self.sizes = sizes

    def backlog(self, sequences: int, full: int | None = None) -> Backlog:
        """A database of its own, filled; to be closed."""
        made = Backlog(self.mongod.uri, f"bench_{sequences}_{full}", sequences, full)
        made.fill()
        return made

    def stt(self, backlog: Backlog, urls: Iterable[str], *arguments: str) -> Run:
        env = {
            "MONGODB_URI": backlog.uri,
            "MONGODB_DATABASE": backlog.name,
            "STT_SERVER_URL": ",".join(urls),
            "STT_LOG_FILE": str(self.folder / "stt.log"),
        }
        command = [sys.executable, str(ROOT / "stt.py"), *arguments]
        return processes.run(command, self.folder, env, (0, FAILURES))

    def ours(
        self, backlog: Backlog, workers: int, count: int, *more: str, **behaviour: float
    ) -> Load:
        """`count` sequences by our worker; they are pending again afterwards."""
        flags = ("--max-workers", str(workers), "--limit", str(count), *more)
        load = self._load(lambda url: self.stt(backlog, [url], *flags), behaviour)
        saved = backlog.transcripts()
        backlog.reset()
        if saved != count:
            raise Failed(f"{saved} transcripts instead of {count}")
        return load

    def bare(self, threads: int, count: int, **behaviour: float) -> Load:
        """`count` requests by the bare loop."""
        return self._bare(threads, count, (), behaviour)

    def lean(self, threads: int, count: int, **behaviour: float) -> Load:
        """The same by an even barer one."""
        return self._bare(threads, count, ("--lean",), behaviour)

    def _bare(
        self, threads: int, count: int, more: Sequence[str], behaviour: dict[str, float]
    ) -> Load:
        def post(url: str) -> Run:
            flags = ["--threads", str(threads), "--requests", str(count), *more]
            command = [sys.executable, "-m", "tests.benchmarks.bare", url, *flags]
            return processes.run(command, self.folder)

        load = self._load(post, behaviour)
        if load.done != count:
            raise Failed(f"{load.done} answers instead of {count}")
        return load

    def _load(self, program: Callable[[str], Run], behaviour: dict[str, float]) -> Load:
        with processes.serving(**behaviour) as url:
            machine = processes.machine_cpu_seconds()
            mongod = processes.cpu_seconds(self.mongod.pid)
            run = program(url)
            mongod = processes.cpu_seconds(self.mongod.pid) - mongod
            machine = processes.machine_cpu_seconds() - machine
            report = processes.report(url)
        others = machine - run.cpu_seconds - mongod - report["cpu_seconds"]
        return Load(run, report, mongod, max(0.0, others))


def middle(values: Iterable[float]) -> float:
    return median(values)


def ms(seconds: float) -> float:
    return round(1000 * seconds, 2)

"""One simulation: recordings, servers, runs that overlap, and faults, all drawn from a seed."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

from stt_lib.config.settings import Settings
from stt_lib.domain.models import Condition
from stt_lib.errors import SttError
from stt_lib.pipeline.retranscription import Retranscription, TranscriptSink
from stt_lib.pipeline.runner import Runner
from stt_lib.pipeline.sinks import ChunkSink, Sink
from stt_lib.pipeline.sources import PendingChunks, Source
from stt_lib.pipeline.worker import Worker
from stt_lib.servers.pool import ServerPool
from stt_lib.servers.protocols import Options
from stt_lib.telemetry.stats import Stats
from tests.simulation.checks import Checks
from tests.simulation.scheduler import Process, Scheduler, Task
from tests.simulation.servers import Hearing, Internet, SimulatedServer, Spell, Weather
from tests.simulation.speech import Piece, Speech, compose
from tests.simulation.timing import START, SimulatedEvent, SimulatedTiming
from tests.support.memory_database import Database
from tests.support.memory_store import Away, MemoryStore, Network

Incident = tuple[float, str, Callable[[], object]]
"""When something happens, what, and how."""

RECORDINGS, CHUNKS, RUNS, SERVERS, FAULTS = 4, 60, 3, 2, 5

PLAY_SECONDS: Final = 40.0
"""Virtual seconds in which runs start, chunks arrive and faults happen."""

DAY: Final = 86_400.0
CLEAN_UPS: Final = 8
"""Runs without faults, a day apart, in which everything has to be finished."""


class SimulatedNetwork(Network):
    """The way of one process to MongoDB: each command may be slow, lost on its way, or killed."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world = world
        self._process = process
        self._scheduler = world.scheduler

    def before(self, command: str) -> None:
        self._scheduler.point()
        self._scheduler.note(command)
        self._weather(command)

    def after(self, command: str) -> None:
        self._scheduler.point()
        if self._world.failing_over:
            self._world.failing_over.pop()()
        self._weather(command)

    def caller(self) -> Task | None:
        return self._scheduler.current

    @contextmanager
    def on_behalf_of(self, caller: Task) -> Iterator[None]:
        self._world.checks.acting_for = caller
        try:
            yield
        finally:
            self._world.checks.acting_for = None

    def _weather(self, command: str) -> None:
        rng, now = self._scheduler.random, self._scheduler.now
        if any(begins <= now < ends for begins, ends in self._world.mongo_outages):
            self._scheduler.sleep(0.1)
            raise Away("MongoDB is away")
        if rng.random() < self._world.loss:
            self._scheduler.note(f"{command} is lost")
            raise Away("the connection broke")
        if rng.random() < self._world.slowness:
            self._scheduler.sleep(rng.choice([0.002, 0.02, 0.3, 3.0]))


@dataclass(slots=True)
class Run:
    """A process to be started."""

    name: str
    starts: float
    settings: Settings
    kill_at: int | None = None
    stops: float | None = None
    clock_error: timedelta = timedelta()
    freeze_at: dict[int, float] = field(default_factory=dict)


@dataclass
class World:
    """Everything that a seed decides."""

    scheduler: Scheduler
    speech: Speech
    servers: list[SimulatedServer]
    runs: list[Run]
    arrivals: list[tuple[float, Piece]]
    incidents: list[Incident] = field(default_factory=list)
    mongo_outages: list[tuple[float, float]] = field(default_factory=list)
    failing_over: list[Callable[[], None]] = field(default_factory=list)
    """Failovers that wait for a command to be under way."""
    loss: float = 0.0
    slowness: float = 0.05
    processes: dict[str, Process] = field(default_factory=dict)
    database: Database = field(init=False)
    checks: Checks = field(init=False)
    internet: Internet = field(init=False)

    def __post_init__(self) -> None:
        self.stage = self.scheduler.process("world")
        self.timing = SimulatedTiming(self.stage, preempted=0.0)  # MongoDB's commands are atomic
        self.database = Database(self.timing)
        self.checks = Checks(self.scheduler, self.database, self.speech)
        self.internet = Internet(self.scheduler, self.servers, self.speech, self.checks)

    # -- playing ------------------------------------------------------------------------------

    def play(self) -> None:
        """Run the simulation to its end; raises what went wrong."""
        self.scheduler.spawn(self.stage, self._play, "play")
        self.scheduler.run()

    def _play(self) -> None:
        events: list[Incident] = [
            *((run.starts, f"start {run.name}", partial(self._start, run)) for run in self.runs),
            *((at, f"insert {p.id}", partial(self._insert, p)) for at, p in self.arrivals),
            *self.incidents,
        ]
        for at, text, act in sorted(events, key=lambda event: event[:2]):
            self.scheduler.sleep(at - self.scheduler.now)
            self.scheduler.note(text)
            act()
        self._wait_for_runs()
        workers = max(run.settings.max_workers for run in self.runs)
        self.checks.check_requests(self.servers, workers)
        self._calm()
        self._clean_up()
        self.checks.check_end()

    def _insert(self, piece: Piece) -> None:
        self.database.chunks.insert(piece.document(self.database.now()))
        self.database.confirm()

    def _start(self, run: Run) -> Process:
        process = self.scheduler.process(run.name)
        process.kill_at, process.freeze_at = run.kill_at, run.freeze_at
        self.processes[run.name] = process
        self.scheduler.spawn(process, lambda: self._run(run, process), "main")
        return process

    def _wait_for_runs(self) -> None:
        while any(process.tasks for process in self.processes.values()):
            self.scheduler.sleep(1.0)

    def _calm(self) -> None:
        self.scheduler.note("the faults are over")
        self.mongo_outages.clear()
        self.failing_over.clear()
        self.loss = self.slowness = 0.0
        for server in self.servers:
            server.calm()
            server.max_files = None if server.max_files == 1 else server.max_files

    def _clean_up(self) -> None:
        """Runs as cron starts them, until nothing is left that may be done."""
        for number in range(CLEAN_UPS):
            self._start(Run(f"clean{number}", 0.0, settings(self.servers)))
            self._wait_for_runs()
            if not self.checks.unfinished() and not len(self.database.claims):
                return
            self.scheduler.sleep(DAY)

    # -- one run ------------------------------------------------------------------------------

    def _run(self, run: Run, process: Process) -> None:
        timing = SimulatedTiming(process, run.clock_error)
        stop = timing.event()
        if run.stops is not None:
            self._stop_later(run.stops, stop)
        given = run.settings
        store = MemoryStore(
            self.database,
            lease=given.lease,
            mongo_wait=given.mongo_wait,
            stop=stop,
            timing=timing,
            network=SimulatedNetwork(self, process),
        )
        stats = Stats()
        pool = ServerPool(
            given.server_url,
            options=Options(),
            protocol=given.protocol,
            max_in_flight=given.max_workers,
            server_max=given.server_max,
            rate_limit=given.rate_limit,
            audio_rate=given.audio_rate,
            timeout=given.timeout,
            server_wait=given.server_wait,
            stop=stop,
            stats=stats,
            channels=self.internet.channels(process),
            timing=timing,
        )
        source, sink = _ends(store, given)
        try:
            store.indexes.ensure()
            worker = Worker(store, source, sink, pool, given, stop, stats=stats, timing=timing)  # type: ignore[arg-type]
            runner = Runner(worker)
        except SttError as error:
            self.scheduler.note(f"{run.name} does not start: {error}")
            process.exit()
            return
        report = runner.run()
        counts = ", ".join(f"{k} {v}" for k, v in report.tally.counts.items())
        self.scheduler.note(f"{run.name} ends: {counts}, {report.halted_by}")
        if not report.abandoned:
            self.checks.check_idle(runner, pool)
        process.exit()

    def _stop_later(self, seconds: float, stop: SimulatedEvent) -> None:
        def stop_it() -> None:
            self.scheduler.sleep(seconds)
            stop.set()

        self.scheduler.spawn(self.stage, stop_it, "signal")


def _ends(store: Any, given: Settings) -> tuple[Source, Sink]:
    """As the command line chooses them."""
    if given.retranscribe is not None:
        source = Retranscription(store, given.retranscribe, given.selection, model=given.model)
        return source, TranscriptSink(store, given.retranscribe)
    pending = PendingChunks(
        store, given.selection, only_failed=given.retry_errors, settle=given.settle
    )
    return pending, ChunkSink(store, given.max_failures)


def settings(servers: list[SimulatedServer], **given: Any) -> Settings:
    """Settings of a run, with short waits."""
    defaults: dict[str, Any] = {
        "server_url": tuple(f"http://{server.name}" for server in servers),
        "max_workers": 3,
        "lease": 12,
        "server_wait": 20,
        "mongo_wait": 15,
        "quiet": True,
    }
    return Settings(**{**defaults, **given})


# -- what a seed decides ----------------------------------------------------------------------


def build(seed: int) -> World:
    """The simulation of a seed."""
    scheduler = Scheduler(seed)
    rng = scheduler.random
    speech = compose(rng, RECORDINGS, CHUNKS)
    servers = [_server(rng, f"stt{number}") for number in range(SERVERS)]
    runs = [_run(rng, number, servers) for number in range(RUNS + rng.choice([0, 0, 1, 2]))]
    world = World(scheduler, speech, servers, runs, _arrivals(rng, speech))
    world.database.has_change_streams = rng.random() < 0.5
    for _ in range(FAULTS + rng.choice([0, 0, 3, 10])):
        rng.choice(_FAULTS)(world, rng)
    return world


def _server(rng: random.Random, name: str) -> SimulatedServer:
    return SimulatedServer(
        name,
        seconds_per_chunk=rng.choice([0.02, 0.1, 0.3, 1.0]),
        is_serial=rng.random() < 0.7,
        max_files=rng.choice([None, None, None, 30, 10]),
        hearing=Hearing(
            has_words=rng.random() < 0.5,
            longest_segment=rng.choice([3, 8, 12]),
            shift=rng.choice([0.0, 0.0, 0.0, -0.2, 0.2]),
        ),
    )


def _run(rng: random.Random, number: int, servers: list[SimulatedServer]) -> Run:
    options: dict[str, Any] = {
        "max_workers": rng.choice([1, 2, 3, 5]),
        "lease": rng.choice([6, 12, 30]),
        "server_wait": rng.choice([3, 20]),
        "mongo_wait": rng.choice([2, 15]),
        "max_failures": rng.choice([2, 5]),
        "retries": rng.choice([0, 1, 3]),
        "backoff_base": 0.5,
    }
    name, special, stops = rng.choice(_KINDS)(rng)
    return Run(
        f"{name}{number}",
        starts=0.0 if rng.random() < 0.3 else rng.uniform(0, PLAY_SECONDS / 2),
        settings=settings(servers, **{**options, **special}),
        kill_at=_some_point(rng) if rng.random() < 0.4 else None,
        stops=stops,
        clock_error=timedelta(seconds=rng.choice([0, 0, 0, -3600, 300])),
    )


def _some_point(rng: random.Random) -> int:
    return round(10 ** rng.uniform(0, 3.2))


Kind = Callable[[random.Random], tuple[str, dict[str, Any], float | None]]
"""A name, the options of a run, and after how many seconds it gets a signal, if at all."""

_PLAIN: Final[list[Kind]] = [
    lambda rng: ("run", {}, None),
]
_SPECIAL: Final[list[Kind]] = [
    lambda rng: ("watch", {"watch": rng.choice([1.0, 5.0])}, rng.uniform(10, 60)),
    lambda rng: ("watch", {"watch": 2.0, "settle": 5.0}, rng.uniform(10, 60)),
    lambda rng: ("retry", {"retry_errors": True}, None),
    lambda rng: ("again", {"retranscribe": ()}, None),
    lambda rng: ("again", {"retranscribe": (Condition("model", "tiny", is_not=True),)}, None),
    lambda rng: ("run", {"limit": rng.randint(1, 4)}, None),
    lambda rng: ("run", {"max_runtime": rng.uniform(5, 30)}, None),
    lambda rng: ("run", {"settle": 5.0}, None),
    lambda rng: ("run", {"recording": f"r{rng.randrange(RECORDINGS)}"}, None),
    lambda rng: ("run", {"since": START - timedelta(hours=28)}, None),
    lambda rng: ("run", {"server_max": 1}, None),
    lambda rng: ("run", {"rate_limit": rng.choice([0.5, 3.0])}, None),
    lambda rng: ("run", {"audio_rate": rng.choice([50.0, 1000.0])}, None),
    lambda rng: ("run", {"grace": rng.choice([0.0, 5.0])}, rng.uniform(0.1, 20)),
    lambda rng: ("run", {"filter": "strict"}, None),
    lambda rng: ("run", {"timeout_base": 1.0, "timeout_per_chunk": 0.2}, None),
]
_KINDS: Final = [*_PLAIN * 8, *_SPECIAL]


def _arrivals(rng: random.Random, speech: Speech) -> list[tuple[float, Piece]]:
    """Most chunks are there at the start; some recordings grow, and some chunks come late."""
    arrivals = []
    for recording in range(RECORDINGS):
        pieces = [
            piece for (number, _), piece in sorted(speech.pieces.items()) if number == recording
        ]
        there = len(pieces) if rng.random() < 0.5 else rng.randint(1, len(pieces))
        every = rng.choice([0.5, 3.0])
        for place, piece in enumerate(pieces):
            late = rng.uniform(0, PLAY_SECONDS) if rng.random() < 0.05 else 0.0
            arrivals.append((max(0.0, (place - there + 1) * every, late), piece))
    return arrivals


# -- faults -----------------------------------------------------------------------------------


def _bad_server(world: World, rng: random.Random) -> None:
    begins = rng.uniform(0, PLAY_SECONDS)
    ends = begins + rng.choice([0.5, 5.0, 15.0])
    rng.choice(world.servers).spells.append(Spell(rng.choice(list(Weather)), begins, ends))


def _mongo_away(world: World, rng: random.Random) -> None:
    begins = rng.uniform(0, PLAY_SECONDS)
    world.mongo_outages.append((begins, begins + rng.choice([0.2, 3.0, 10.0])))


def _failover(world: World, rng: random.Random) -> None:
    """At any moment, or in the middle of the next command."""
    lost = rng.choice([0, 1, 2, 5, 50])
    error = timedelta(seconds=rng.choice([0, 0, 0, -120, 120, 7200]))

    def fail_over() -> None:
        world.scheduler.note(f"failover: {lost} writes lost, clock {error}")
        world.checks.has_clock_jumped = world.checks.has_clock_jumped or bool(error)
        world.database.fail_over(lost, error)

    at = rng.uniform(0, PLAY_SECONDS)
    act = rng.choice([fail_over, lambda: world.failing_over.append(fail_over)])
    world.incidents.append((at, "the primary dies", act))


def _freeze(world: World, rng: random.Random) -> None:
    """At any moment, or between two commands."""
    seconds = rng.choice([1.0, 8.0, 40.0])
    if rng.random() < 0.7:
        rng.choice(world.runs).freeze_at[_some_point(rng)] = seconds
        return

    def freeze() -> None:
        alive = [process for process in world.processes.values() if process.tasks]
        if alive:
            rng.choice(alive).freeze(seconds)

    world.incidents.append((rng.uniform(0, PLAY_SECONDS), "freeze", freeze))


def _losses(world: World, rng: random.Random) -> None:
    world.loss = max(world.loss, rng.choice([0.005, 0.03]))


def _prioritize(world: World, rng: random.Random) -> None:
    recording, level = f"r{rng.randrange(RECORDINGS)}", rng.choice([0, 1, 5])

    def prioritize() -> None:
        MemoryStore(world.database, timing=world.timing).chunks.prioritize(recording, level)

    at = rng.uniform(0, PLAY_SECONDS)
    world.incidents.append((at, f"priority {level} for {recording}", prioritize))


def _kill(world: World, rng: random.Random) -> None:
    run = rng.choice(world.runs)
    run.kill_at = _some_point(rng)


_FAULTS: Final = [
    _bad_server,
    _bad_server,
    _bad_server,
    _mongo_away,
    _failover,
    _freeze,
    _losses,
    _kill,
    _prioritize,
]


def play(seed: int) -> World:
    """Play a seed to its end.

    Raises:
        Violation: a promise was broken; its notes hold the seed and the trace.
    """
    world = build(seed)
    try:
        world.play()
    except BaseException as error:
        error.add_note(report(world, seed))
        raise
    return world


def report(world: World, seed: int, lines: int = 150) -> str:
    """The last lines of the trace, for people."""
    shown = [f"{at:9.3f}  {who:28} {text}" for at, who, text in world.scheduler.trace[-lines:]]
    return "\n".join([f"seed {seed}:", *shown, f"replay: python -m tests.simulation {seed}"])

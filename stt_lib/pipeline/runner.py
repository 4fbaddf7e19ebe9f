"""A run: plan → thread pool → outcomes; and how it stops.

`max_workers` requests are in flight at the STT servers. There are more threads than that: while
some wait for their answers, others load the next audio or save the last transcript, so that a
server never waits for MongoDB.
"""

import logging
import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from stt_lib.config.settings import Settings
from stt_lib.domain.deadline import Deadline
from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, ChunkSequence, Outcome, Tally
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.errors import ConfigurationError, Stopped, SttError, Unavailable
from stt_lib.pipeline.heartbeat import Leases
from stt_lib.pipeline.planner import Planner
from stt_lib.pipeline.sources import Task
from stt_lib.pipeline.watcher import Idleness, Lookout
from stt_lib.pipeline.worker import Result, Worker
from stt_lib.servers.pool import ServerPool
from stt_lib.store import Store
from stt_lib.telemetry import logs
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.progress import Course, Progress

log = logging.getLogger("stt")

POLL_SECONDS = 0.2
COUNT_FIRST_SECONDS = 0.05
"""The log begins with the number of pending chunks unless counting takes longer than this."""
AFTER_CUT_SECONDS = 5.0
"""What threads get to give their claims back after their requests were cut off."""


@dataclass(slots=True)
class Report:
    """How a run went; `unfinished` counts sequences that were begun and given back."""

    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    unfinished: int = 0
    halted_by: SttError | None = None
    stopped: bool = False
    newest: ChunkSequence | None = None
    """The transcribed sequence that was recorded last."""
    abandoned: int = 0
    """Threads that did not end in time; the process must not wait for them."""

    @property
    def failed(self) -> bool:
        return self.tally[Outcome.ERROR] > 0


class Runner:
    """One run over a task: the backlog, as a rule."""

    def __init__(
        self,
        store: Store,
        task: Task,
        pool: ServerPool,
        settings: Settings,
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._task = task
        self._pool = pool
        self._settings = settings
        self._stop = stop
        self._report = Report()
        self._ended: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
        self._under_way: dict[Future[Result], tuple[ChunkSequence, float]] = {}
        self._tickets = 0
        self._planned = 0
        self._done = 0
        self._count: int | None = None
        self._has_looked_again = False
        self._idleness = Idleness()

    def run(self) -> Report:
        """Process what is pending until there is nothing left, the limit, or a stop.

        Never raises for what happens during the run: the report says it.
        """
        started = time.monotonic()
        settings = self._settings
        self._deadline = Deadline(settings.max_runtime, started)
        ledger = self._task.ledger
        leases = Leases(ledger, settings.renewal_interval)
        since = self._store.now()
        self._worker = Worker(ledger, self._pool, leases, settings, self._stop, since)
        self._planner = Planner(self._store, self._task, since=since, look_every=settings.watch)
        self._threads = threads(settings.max_workers)
        self._executor = ThreadPoolExecutor(self._threads, "stt-worker")
        self._progress = Progress(quiet=settings.quiet)
        counting = threading.Thread(target=self._count_on_the_side, name="stt-count", daemon=True)
        counting.start()
        counting.join(COUNT_FIRST_SECONDS)
        logs.workers(settings.max_workers)
        every = settings.watch
        lookout = None if every is None else Lookout(self._store, self._planner.look_again, every)
        try:
            self._feed()
        except SttError as error:
            self._halt(error)
        finally:
            if lookout is not None:
                lookout.stop()
            self._drain()
            leases.stop()
            self._show_progress(at_once=True)
            self._progress.close()
            self._report.seconds = time.monotonic() - started
        counting.join(timeout=POLL_SECONDS)
        return self._report

    # -- feeding ------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Keep every thread busy until nothing is left to start."""
        while not self._stop.is_set():
            if not self._may_start():
                if not self._under_way:
                    return  # the limit is reached
                self._collect(POLL_SECONDS)
                continue
            if not self._has_time():
                return
            sequence = self._planner.next(0.0 if self._under_way else POLL_SECONDS)
            if sequence is not None:
                self._start(sequence)
            elif self._under_way:
                self._collect(POLL_SECONDS if self._planner.exhausted else POLL_SECONDS / 10)
            elif self._planner.exhausted and self._is_done():
                return
            self._collect(0.0)

    def _is_done(self) -> bool:
        """Nothing is left to start; a watching run waits for more."""
        if self._settings.watch is None:
            return not self._others_left_work()
        self._idleness.lasts(time.monotonic())
        return False

    def _may_start(self) -> bool:
        if len(self._under_way) >= self._threads:
            return False
        limit = self._settings.limit
        return limit is None or self._report.tally.attempted + len(self._under_way) < limit

    def _has_time(self) -> bool:
        """Whether `max_runtime` leaves enough of it for one more sequence."""
        longest = self._settings.timeout(MAX_CHUNKS)
        if self._deadline.leaves_time(time.monotonic(), longest):
            return True
        seconds = self._deadline.expected(longest)
        logs.out_of_time(self._deadline.ends_at - time.monotonic(), seconds)
        return False

    def _start(self, sequence: ChunkSequence) -> None:
        self._tickets += 1
        self._idleness.ends()
        self._planned += self._task.share(sequence)
        self._pool.line_up(self._tickets)
        future = self._executor.submit(self._worker.process, sequence, self._tickets)
        self._under_way[future] = sequence, time.monotonic()
        future.add_done_callback(self._ended.put)

    def _collect(self, seconds: float) -> None:
        """Take in what has ended, waiting for the first up to `seconds`."""
        try:
            self._take_in(self._ended.get(timeout=seconds) if seconds else self._ended.get_nowait())
            while True:
                self._take_in(self._ended.get_nowait())
        except queue.Empty:
            self._show_progress()

    def _take_in(self, future: Future[Result]) -> None:
        sequence, began = self._under_way.pop(future)
        try:
            outcome = future.result().outcome
            self._ended_as(outcome)
            if outcome is Outcome.TRANSCRIBED:
                self._report.newest = later(self._report.newest, sequence)
            self._deadline.took(time.monotonic() - began)
        except Stopped:
            self._report.unfinished += 1
        except (Unavailable, ConfigurationError) as error:
            self._report.unfinished += 1
            self._halt(error)
        except Exception as error:  # noqa: BLE001 - one sequence must not stop the others
            # Nothing could be written on its chunks, so only the planner can remember
            # that they are not to be tried again in this run.
            self._ended_as(Outcome.ERROR)
            logs.failed(sequence, 0.0, error)
            self._planner.bar(sequence)
        else:
            self._planner.done(sequence)
        self._done += self._task.share(sequence)

    def _ended_as(self, outcome: Outcome) -> None:
        self._report.tally.add(outcome)
        self._pool.stats.sequence(outcome)

    def _halt(self, error: SttError) -> None:
        """The run cannot go on."""
        self._report.halted_by = self._report.halted_by or error
        self._stop.set()

    # -- what is left -------------------------------------------------------------------------

    def _count_on_the_side(self) -> None:
        """It takes a second or two on millions of chunks."""
        try:
            self._count = self._task.count()
        except SttError as error:
            log.warning("Not counted what is pending: %s", error, extra=Event.PENDING.of())

    def _expected_total(self) -> int:
        """Sequences of the whole run: known once all are planned, extrapolated before."""
        known = self._report.tally.attempted + len(self._under_way) + self._planner.ahead
        total = known
        if not self._planner.complete and self._count and self._planned:
            total = max(known, round(self._count * self._tickets / self._planned))
        return total if self._settings.limit is None else min(total, self._settings.limit)

    def _show_progress(self, *, at_once: bool = False) -> None:
        if not (at_once or self._progress.is_due):
            return
        audio, total = self._pool.stats.seconds_of_audio, self._expected_total()
        each = audio / self._done if audio and self._done else NOMINAL_CHUNK_SECONDS
        course = Course(self._report.tally, total, audio, self._work_left(total) * each)
        self._progress.show(course)

    def _work_left(self, total: int) -> float:
        """What is still to end of `total` sequences, counted as the task counts."""
        under_way = self._planned - self._done
        if self._settings.limit is not None:
            waiting = total - self._report.tally.attempted - len(self._under_way)
            return under_way + max(0, waiting) * self._planned / max(self._tickets, 1)
        if self._planner.complete:
            return under_way + self._planner.work_ahead(self._task.share)
        return max(under_way, (self._count or 0) - self._done)

    def _others_left_work(self) -> bool:
        """Look once more for what has become free since it was planned; True when we did.

        What a killed worker held becomes ours as soon as its claim expires, before now or while
        we wait for that, so that the next run after a crash finishes everything.
        """
        if self._has_looked_again or self._settings.retry_errors:
            return False
        self._has_looked_again = True
        self._wait_for_claims_of_others()
        self._planner.look_again()
        return True

    def _wait_for_claims_of_others(self) -> None:
        """Whoever does not renew his claim has died; those who live renew theirs well before."""
        watched = self._task.live_claims()
        began = time.monotonic()
        deadline = min(began + self._settings.lease + 1.0, self._deadline.cuts_at)
        if watched:
            log.info(
                "Waiting up to %.0f s until %d claim(s) of other workers are renewed or expire",
                deadline - began,
                len(watched),
                extra=Event.WAITING.of(claims=len(watched)),
            )
        while watched and time.monotonic() < deadline and not self._stop.wait(POLL_SECONDS):
            live = self._task.live_claims()
            watched = {token: until for token, until in watched.items() if live.get(token) == until}

    # -- stopping -----------------------------------------------------------------------------

    def _drain(self) -> None:
        """Intake first, then the threads under one deadline; requests are cut off after that."""
        self._planner.stop()
        deadline = self._deadline.cuts_at
        is_stopping = is_cut = False
        while self._under_way:
            self._collect(POLL_SECONDS)
            if self._stop.is_set() and not is_stopping:
                is_stopping = True
                logs.stopping(self._settings.grace)
                deadline = min(deadline, time.monotonic() + self._settings.grace)
            if time.monotonic() < deadline:
                continue
            if is_cut:
                break
            is_stopping = is_cut = True
            self._stop.set()
            self._pool.cut()
            deadline = time.monotonic() + AFTER_CUT_SECONDS
        self._report.abandoned = len(self._under_way)
        self._report.unfinished += len(self._under_way)
        self._report.stopped = self._stop.is_set() and self._report.halted_by is None
        self._executor.shutdown(wait=not self._under_way, cancel_futures=True)


def later(one: ChunkSequence | None, other: ChunkSequence) -> ChunkSequence:
    """The one of two sequences that was recorded last."""
    if one is None or one.start is None or (other.start is not None and other.start > one.start):
        return other
    return one


def threads(max_workers: int) -> int:
    """Threads for so many requests in flight: some load and save meanwhile."""
    return max_workers + max(2, max_workers // 2)

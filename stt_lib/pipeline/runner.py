"""A run: plan → thread pool → outcomes, and how it stops.

`max_workers` requests are in flight at the STT servers. There are more threads than that: while
some wait for their answers, others load the next audio or save the last transcript, so that a
server never waits for MongoDB. Batches are planned by a thread as well. Everything that ends is
put into one inbox, and all decisions are made by the thread that reads it.
"""

import logging
import math
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from stt_lib.domain.deadline import Deadline
from stt_lib.domain.models import ChunkSequence, Outcome, Tally
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.errors import ConfigurationError, Stopped, SttError, Unavailable
from stt_lib.pipeline import planner
from stt_lib.pipeline.planner import Batch, Plan
from stt_lib.pipeline.watcher import Idleness, Watcher
from stt_lib.pipeline.worker import Result, Worker
from stt_lib.telemetry import logs
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.progress import Progress, estimated
from stt_lib.timing import Timing

log = logging.getLogger("stt")

POLL_SECONDS = 0.2
"""Seconds. How soon a stop, a wake-up or the end of a wait is noticed."""

COUNT_FIRST_SECONDS = 0.05
"""Seconds. The log begins with the number of pending chunks unless counting takes longer."""

AFTER_CUT_SECONDS = 5.0
"""Seconds. Time for threads to release their claims after their requests were cut off."""

REPLAN_SECONDS = 5.0
"""Seconds. How soon a run notices work of a higher priority than what is planned."""

CONTENDED_REPLAN_SECONDS = 1.0
"""Seconds. How soon a run notices what other runs have done of its plan."""

CONTENDED_FACTOR = 4
"""Factor. With other runs about, this much further ahead is planned, so that they can spread."""

LEAST_REST_SECONDS, MOST_REST_SECONDS, REST_SHARE = 0.5, 30.0, 5
"""Seconds. Bounds of the pause between two queries of a watching run. Within them it is REST_SHARE
times the duration of the last query, so that planning is little of MongoDB's work."""

BARRED_SECONDS = 60.0
"""Seconds. Pause after which a sequence is planned again that another worker had, or has done."""

UNWRITABLE_SECONDS = 300.0
"""Seconds. The same in watch mode for a sequence whose failure could not be recorded."""

CONTENTION_SECONDS = 60.0
"""Seconds. How long other runs are expected to be about after one of their claims was seen."""


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


class Inbox:
    """The futures that have ended, oldest first."""

    def __init__(self, timing: Timing) -> None:
        self._changed = timing.condition()
        self._ended: deque[Future[Any]] = deque()

    def put(self, future: Future[Any]) -> None:
        with self._changed:
            self._ended.append(future)
            self._changed.notify_all()

    def take(self, seconds: float) -> list[Future[Any]]:
        """Everything that has ended; waits up to `seconds` for the first one."""
        with self._changed:
            if seconds:
                self._changed.wait_for(lambda: bool(self._ended), seconds)
            ended = list(self._ended)
            self._ended.clear()
            return ended


class Runner:
    """One run over a source: the backlog, as a rule."""

    def __init__(self, worker: Worker) -> None:
        """Prepare a run by the settings of a worker.

        Raises:
            StoreUnavailable: MongoDB is away.
        """
        self._worker = worker
        self._store = worker.store
        self._source = worker.source
        self._pool = worker.pool
        self._settings = settings = worker.settings
        self._stop = worker.stop
        self._stats = worker.stats
        self._timing = timing = worker.timing
        self._started = timing.monotonic()
        self._run_started = worker.store.now()
        self._deadline = Deadline(settings.max_runtime, self._started)
        # More than there are requests in flight: some load and save meanwhile.
        self._threads = settings.max_workers + max(2, settings.max_workers // 2)
        self._executor = timing.executor(self._threads, "stt-worker")
        self._planners = timing.executor(1, "stt-planner")
        self._plan = Plan(
            planner.ahead(settings.max_workers), is_replaced=worker.source.has_priorities
        )
        self._planning: Future[Batch] | None = None
        self._planning_began = self._planned_at = float("-inf")
        self._rests_until = self._contended_until = float("-inf")
        self._woken = timing.event()
        self._over = timing.event()
        self._inbox = Inbox(timing)
        self._under_way: dict[Future[Result | None], tuple[ChunkSequence, float]] = {}
        self._tickets = 0
        self._amount_begun = self._amount_done = 0
        self._count: int | None = None
        self._has_looked_again = False
        self._idleness = Idleness()
        self._progress = Progress(quiet=settings.quiet, timing=timing)
        self._report = Report()

    def run(self) -> Report:
        """Process what is pending until there is nothing left, the limit, or a stop.

        Never raises for what happens during the run: the report says it.
        """
        counting = self._timing.start_thread(self._count_on_the_side, "stt-count")
        ending = self._timing.start_thread(self._end_in_time, "stt-deadline")
        counting.join(COUNT_FIRST_SECONDS)
        logs.workers(self._settings.max_workers)
        poll_seconds, watcher = self._settings.watch, None
        if poll_seconds is not None:
            watcher = Watcher(self._store, self._woken.set, poll_seconds, self._timing)
        try:
            self._feed()
        except SttError as error:
            self._halt(error)
        finally:
            if watcher is not None:
                watcher.stop()
            self._drain()
            self._worker.heartbeat.stop()
            self._show_progress(at_once=True)
            self._progress.close()
            self._over.set()
            self._report.seconds = self._timing.monotonic() - self._started
        ending.join(POLL_SECONDS)
        counting.join(POLL_SECONDS)
        return self._report

    @property
    def _is_watching(self) -> bool:
        return self._settings.watch is not None

    # -- feeding ------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Keep every thread busy until nothing is left to start."""
        while not self._stop.is_set():
            self._plan_ahead()
            if not self._may_start():
                if not self._under_way:
                    return  # the limit is reached
                self._collect(POLL_SECONDS)
                continue
            if not self._has_time():
                return
            sequence = self._next()
            if sequence is not None:
                self._start(sequence)
                self._collect(0.0)
            elif self._is_exhausted() and self._is_done():
                return
            else:
                self._collect(POLL_SECONDS)

    def _is_exhausted(self) -> bool:
        """Nothing is under way, planned or being planned."""
        return self._plan.is_complete and not (self._plan or self._under_way or self._planning)

    def _is_done(self) -> bool:
        """Whether the run is over; a watching run waits for more."""
        if not self._is_watching:
            return not self._others_left_work()
        self._idleness.lasts(self._timing.monotonic())
        return False

    def _may_start(self) -> bool:
        if len(self._under_way) >= self._threads:
            return False
        limit = self._settings.limit
        return limit is None or self._report.tally.attempted + len(self._under_way) < limit

    def _has_time(self) -> bool:
        """Whether `max_runtime` leaves enough time for one more sequence."""
        longest = self._pool.timeout(MAX_CHUNKS)
        now = self._timing.monotonic()
        if self._deadline.leaves_time(now, longest):
            return True
        logs.out_of_time(self._deadline.ends_at - now, self._deadline.expected(longest))
        return False

    def _next(self) -> ChunkSequence | None:
        """The next sequence; with other runs about, one that nobody has and not all want."""
        if not self._plan or self._timing.monotonic() >= self._contended_until:
            return self._plan.next()
        self._plan.drop(self._store.claims.held(planner.ends(self._plan)))
        return self._plan.next(self._timing.random)

    @property
    def _is_contended(self) -> bool:
        """Whether other runs were lately seen to work on the same backlog, or may start with us."""
        is_first = self._tickets <= self._threads
        return is_first or self._timing.monotonic() < self._contended_until

    def _start(self, sequence: ChunkSequence) -> None:
        self._tickets += 1
        self._idleness.ends()
        self._amount_begun += self._source.amount(sequence)
        self._pool.line_up(self._tickets)
        future = self._executor.submit(
            self._worker.process, sequence, self._tickets, look_first=self._is_contended
        )
        self._under_way[future] = sequence, self._timing.monotonic()
        future.add_done_callback(self._inbox.put)

    def _collect(self, seconds: float) -> None:
        """Take in what has ended, waiting up to `seconds` for the first."""
        for future in self._inbox.take(seconds):
            if future is self._planning:
                self._take_in_batch(self._planning)
            else:
                self._take_in_result(future)
        self._show_progress()

    # -- planning -----------------------------------------------------------------------------

    def _plan_ahead(self) -> None:
        """Have the next batch planned if it is time to."""
        if self._planning is not None or not self._is_plan_wanted():
            return
        self._woken.clear()
        self._planning_began = now = self._timing.monotonic()
        size = self._plan.size
        if self._planned_at < self._started:
            size = self._threads  # the very first requests should not wait for a whole batch
        elif now < self._contended_until:
            size = min(CONTENDED_FACTOR * size, planner.MOST_AHEAD)
        self._planning = self._planners.submit(self._plan_batch, self._plan.begin_query(now), size)
        self._planning.add_done_callback(self._inbox.put)

    def _is_plan_wanted(self) -> bool:
        now = self._timing.monotonic()
        poll_seconds = self._settings.watch
        if poll_seconds is not None:
            is_due = self._woken.is_set() or now - self._planned_at >= poll_seconds
            return self._plan.runs_low or (is_due and now >= self._rests_until)
        patience = CONTENDED_REPLAN_SECONDS if now < self._contended_until else REPLAN_SECONDS
        is_old = self._source.has_priorities and now - self._planned_at >= patience
        return self._plan.runs_low or (is_old and len(self._plan) > 0)

    def _plan_batch(self, excluding: frozenset[Hashable], size: int) -> Batch:
        return planner.plan(
            self._store,
            self._source,
            run_started=self._store.now() if self._is_watching else self._start_by_its_clock(),
            excluding=excluding,
            size=size,
        )

    def _start_by_its_clock(self) -> datetime:
        """When this run started, by MongoDB's clock, which a failover may have set back since.

        What fails in a run is due after its start, by that clock, and so is not planned again.
        """
        elapsed = timedelta(seconds=self._timing.monotonic() - self._started)
        self._run_started = min(self._run_started, self._store.now() - elapsed)
        return self._run_started

    def _take_in_batch(self, future: Future[Batch]) -> None:
        self._planning = None
        try:
            batch = future.result()
        except SttError as error:
            self._halt(error)
            return
        self._planned_at = now = self._timing.monotonic()
        rest = max(LEAST_REST_SECONDS, REST_SHARE * (now - self._planning_began))
        self._rests_until = now + min(rest, MOST_REST_SECONDS)
        if self._plan.held_by_others(batch):
            self._contended_until = now + CONTENTION_SECONDS
        # A complete plan is not extended by new chunks, or a run might never end.
        is_stale = self._is_watching or self._plan.runs_low or now < self._contended_until
        if is_stale or not self._plan.outranks(batch):
            self._plan.take_in(batch)

    # -- results ------------------------------------------------------------------------------

    def _take_in_result(self, future: Future[Result | None]) -> None:
        sequence, began = self._under_way.pop(future)
        try:
            result = future.result()
        except Stopped:
            self._report.unfinished += 1
        except (Unavailable, ConfigurationError) as error:
            self._report.unfinished += 1
            self._halt(error)
        except Exception as error:  # noqa: BLE001 - one sequence must not stop the others
            logs.failed(sequence, 0.0, error)
            self._take_in(Result(sequence, Outcome.ERROR, is_settled=False), began)
        else:
            if result is None or result.is_refused:
                self._leave_to_others(sequence)
            if result is not None:
                self._take_in(result, began)
        self._amount_done += self._source.amount(sequence)

    def _leave_to_others(self, sequence: ChunkSequence) -> None:
        self._contended_until = self._timing.monotonic() + CONTENTION_SECONDS
        self._plan.held.append(sequence)
        self._plan.bar(sequence, self._timing.monotonic() + BARRED_SECONDS)

    def _take_in(self, result: Result, began: float) -> None:
        self._report.tally.add(result.outcome)
        self._stats.sequence(result.outcome)
        if result.is_refused:
            return
        now = self._timing.monotonic()
        self._deadline.took(now - began)
        if result.outcome is Outcome.TRANSCRIBED:
            self._report.newest = later(self._report.newest, result.sequence)
        if result.is_settled:
            self._plan.done(result.sequence)
        else:
            self._plan.bar(result.sequence, now + self._barred_seconds(result.outcome))

    def _barred_seconds(self, outcome: Outcome) -> float:
        """How long a sequence is not tried again that would end in the same way."""
        if outcome is Outcome.SKIPPED:
            return BARRED_SECONDS
        return UNWRITABLE_SECONDS if self._is_watching else math.inf

    def _halt(self, error: SttError) -> None:
        """The run cannot go on."""
        self._report.halted_by = self._report.halted_by or error
        self._stop.set()

    # -- progress -----------------------------------------------------------------------------

    def _count_on_the_side(self) -> None:
        """It takes a second or two on millions of chunks."""
        try:
            self._count = self._source.count()
        except SttError as error:
            log.warning("Pending chunks not counted: %s", error, extra=Event.PENDING.of())

    def _show_progress(self, *, at_once: bool = False) -> None:
        if at_once or self._progress.is_due:
            self._progress.show(
                estimated(
                    self._report.tally,
                    under_way=len(self._under_way),
                    planned=len(self._plan),
                    begun=self._tickets,
                    limit=self._settings.limit,
                    count=None if self._plan.is_complete else self._count,
                    amount_begun=self._amount_begun,
                    amount_done=self._amount_done,
                    amount_planned=sum(map(self._source.amount, self._plan)),
                    audio_done=self._stats.seconds_of_audio,
                )
            )

    # -- the claims of others -----------------------------------------------------------------

    def _others_left_work(self) -> bool:
        """Whether to plan once more what has become free since it was planned.

        The claims of a killed worker expire, before now or while we wait for that, so that the
        next run after a crash finishes everything.
        """
        if self._has_looked_again or self._settings.retry_errors:
            return False
        self._has_looked_again = True
        if self._plan.held:
            self._wait_for_claims_of_others(planner.ends(self._plan.held))
        self._plan.look_again()
        return True

    def _wait_for_claims_of_others(self, chunk_ids: list[Any]) -> None:
        """A worker that does not renew its claim has died; those alive renew theirs in time."""
        claims = self._store.claims
        watched = claims.live()
        began = self._timing.monotonic()
        deadline = min(began + self._settings.lease + 1.0, self._deadline.cuts_at)
        if watched:
            log.info(
                "Waiting up to %.0f s until the claims of other workers are renewed or expire",
                deadline - began,
                extra=Event.WAITING.of(claims=len(watched)),
            )
        while watched and claims.held(chunk_ids) and self._timing.monotonic() < deadline:
            if self._stop.wait(POLL_SECONDS):
                return
            claims.delete_expired()
            live = claims.live()
            watched = {token: until for token, until in watched.items() if live.get(token) == until}

    # -- stopping -----------------------------------------------------------------------------

    def _drain(self) -> None:
        """Intake first, then the threads under one deadline; requests are cut off after that."""
        deadline = self._deadline.cuts_at
        is_stopping = is_cut = False
        while self._under_way:
            self._collect(POLL_SECONDS)
            if self._stop.is_set() and not is_stopping:
                is_stopping = True
                deadline = min(deadline, self._timing.monotonic() + self._settings.grace)
                self._announce_stop(deadline)
            if self._timing.monotonic() < deadline:
                continue
            if is_cut:
                break
            is_stopping = is_cut = True
            self._stop.set()
            self._pool.cut()
            deadline = self._timing.monotonic() + AFTER_CUT_SECONDS
        self._report.abandoned = len(self._under_way)
        self._report.unfinished += len(self._under_way)
        self._end_planning()
        self._report.stopped = self._stop.is_set() and self._report.halted_by is None
        self._executor.shutdown(wait=not self._under_way, cancel_futures=True)

    def _end_planning(self) -> None:
        was_stopping = self._stop.is_set()
        self._planners.shutdown(wait=not self._under_way, cancel_futures=True)
        planning = self._planning
        if planning and planning.done() and not (planning.cancelled() or was_stopping):
            self._take_in_batch(planning)  # MongoDB may have been away all the time

    def _end_in_time(self) -> None:
        """Stop whoever still waits for MongoDB after `max_runtime`, if need be for ever."""
        seconds = self._deadline.ends_at + AFTER_CUT_SECONDS - self._timing.monotonic()
        if math.isfinite(seconds) and not self._over.wait(seconds):
            self._stop.set()

    def _announce_stop(self, deadline: float) -> None:
        """Say until when requests in flight are answered, given up or cut off, if there are any."""
        if self._pool.in_flight:
            ends_at = self._pool.ends_at() or deadline
            logs.stopping(max(0.0, min(deadline, ends_at) - self._timing.monotonic()))


def later(one: ChunkSequence | None, other: ChunkSequence) -> ChunkSequence:
    """The one of two sequences that was recorded last."""
    if one is None or one.start is None or (other.start is not None and other.start > one.start):
        return other
    return one

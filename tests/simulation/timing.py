"""`Timing` on the scheduler's virtual clock: what a process of the simulation waits with."""

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, TypeVar

from stt_lib.timing import Timing
from tests.simulation.scheduler import Killed, Process, Scheduler, Task

T = TypeVar("T")

START: Final = datetime(2026, 3, 2, 8, tzinfo=UTC)

PREEMPTED: Final = 0.05
"""Share of the looks at the clock, and of the locks taken, before which another thread may come."""


class SimulatedTiming(Timing):
    """The time, randomness and threads of one process."""

    def __init__(
        self,
        process: Process,
        clock_error: timedelta = timedelta(),
        *,
        preempted: float = PREEMPTED,
    ) -> None:
        """Other threads come in between before a share of the looks at the clock and of locks."""
        self.random = random.Random(process.scheduler.random.getrandbits(64))
        self._process = process
        self._scheduler = process.scheduler
        self._clock_error = clock_error
        self._preempted = preempted

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic()) + self._clock_error

    def monotonic(self) -> float:
        self.preempt()
        return self._scheduler.now

    def preempt(self) -> None:
        """Another thread may come in between."""
        if self._preempted and self._scheduler.random.random() < self._preempted:
            self._scheduler.pause()

    def boot_time(self) -> float:
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(seconds)

    def event(self) -> "SimulatedEvent":
        return SimulatedEvent(self._scheduler)

    def lock(self) -> "SimulatedCondition":
        return SimulatedCondition(self._scheduler, self.preempt)

    def condition(self) -> "SimulatedCondition":
        return SimulatedCondition(self._scheduler)

    def start_thread(self, target: Callable[[], None], name: str) -> "SimulatedThread":
        task = self._scheduler.spawn(self._process, target, name)
        return SimulatedThread(self._scheduler, task)

    def executor(self, threads: int, name: str) -> "SimulatedExecutor":
        return SimulatedExecutor(self, threads, name)


class SimulatedEvent:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[Task] = []

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._scheduler.wake(task)

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            until = None if timeout is None else self._scheduler.now + max(0.0, timeout)
            self._scheduler.block(until, self._waiting)
        return self._is_set


class SimulatedCondition:
    """A lock that others wait for, and a condition; re-entrant."""

    def __init__(self, scheduler: Scheduler, preempt: Callable[[], None] = lambda: None) -> None:
        """`preempt` is called before the lock is taken."""
        self._scheduler = scheduler
        self._preempt = preempt
        self._owner: Task | None = None
        self._depth = 0
        self._blocked: list[Task] = []
        self._waiting: list[Task] = []

    def __enter__(self) -> bool:
        me = self._scheduler.current
        if self._owner is not me:
            self._preempt()
        while self._owner not in (None, me):
            self._scheduler.block(None, self._blocked)
        self._owner = me
        self._depth += 1
        return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            if self._blocked:
                self._scheduler.wake(self._blocked.pop(0))

    acquire = __enter__

    def release(self) -> None:
        self.__exit__(None, None, None)

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else self._scheduler.now + max(0.0, timeout)
        depth, self._depth = self._depth, 1
        self.release()
        try:
            return self._scheduler.block(until, self._waiting)
        finally:
            self._take_back(depth)

    def _take_back(self, depth: int) -> None:
        """Also in a process that was killed: its threads unwind through the lock's end."""
        me = self._scheduler.current
        try:
            while self._owner not in (None, me):
                self._scheduler.block(None, self._blocked)
        except Killed:
            self._depth = depth  # nobody in this process will do any more with it
            self._owner = me
            raise
        self._owner = me
        self._depth = depth

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        until = None if timeout is None else self._scheduler.now + max(0.0, timeout)
        while not predicate():
            left = None if until is None else until - self._scheduler.now
            if left is not None and left <= 0:
                return predicate()
            self.wait(left)
        return True

    def notify(self, count: int = 1) -> None:
        waiting, self._waiting = self._waiting[:count], self._waiting[count:]
        for task in waiting:
            self._scheduler.wake(task)

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class SimulatedThread:
    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self._scheduler = scheduler
        self._task = task

    def join(self, timeout: float | None = None) -> None:
        if not self._task.is_over:
            until = None if timeout is None else self._scheduler.now + max(0.0, timeout)
            self._scheduler.block(until, self._task.joiners)

    def is_alive(self) -> bool:
        return not self._task.is_over


class SimulatedFuture(Future[T]):
    """A future whose result may be waited for."""

    def __init__(self, timing: SimulatedTiming) -> None:
        super().__init__()
        self._ended = timing.event()
        self.add_done_callback(lambda _: self._ended.set())

    def result(self, timeout: float | None = None) -> T:
        self._ended.wait(timeout)
        return super().result(0)


class SimulatedExecutor(Executor):
    """Threads that are started as work comes, as those of `ThreadPoolExecutor` are."""

    def __init__(self, timing: SimulatedTiming, threads: int, name: str) -> None:
        self._timing = timing
        self._max_threads = threads
        self._name = name
        self._changed = timing.condition()
        self._work: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._threads: list[SimulatedThread] = []
        self._idle = 0
        self._is_over = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: SimulatedFuture[T] = SimulatedFuture(self._timing)
        with self._changed:
            self._work.append((future, lambda: fn(*args, **kwargs)))
            if self._idle < len(self._work) and len(self._threads) < self._max_threads:
                name = f"{self._name}_{len(self._threads)}"
                self._threads.append(self._timing.start_thread(self._serve, name))
            self._changed.notify_all()
        return future

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._work) or self._is_over)
                self._idle -= 1
                if not self._work:
                    return
                future, call = self._work.pop(0)
            _execute(future, call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._changed:
            self._is_over = True
            if cancel_futures:
                while self._work:
                    self._work.pop()[0].cancel()
            self._changed.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()


def _execute(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except Killed:
        raise
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)

"""Real threads that pass one baton, under a seed and a virtual clock.

Only the thread that holds the baton runs. It hands it on where it waits and at every point where
another thread could come between, and the seed decides to whom. When nobody can go on, the clock
jumps to the next moment at which somebody can. So a seed decides everything, and replays exactly.
"""

import _thread
import heapq
import random
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Final

STEP_SECONDS: Final = 20e-6
"""Seconds. What passes between two points, so that no measured duration is zero."""

MAX_STEPS: Final = 200_000
"""Steps. A simulation that needs more is taken for one that never ends."""

MAX_SECONDS: Final = 60 * 86_400.0
"""Virtual seconds; likewise."""

HUNG_SECONDS: Final = 60.0
"""Real seconds without a single step: a thread blocks on something that is not simulated."""

STAY: Final = 0.5
"""Share of the points at which the thread that holds the baton keeps it."""


class Killed(BaseException):
    """The process of this thread was killed: it ends here and now."""


class Stuck(Exception):
    """The simulation cannot go on, or does not end."""


class Process:
    """Threads that live and die together; at point `kill_at`, if ever."""

    def __init__(self, scheduler: "Scheduler", name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.is_killed = False
        self.frozen_until = 0.0
        self.points = 0
        self.kill_at: int | None = None
        self.freeze_at: dict[int, float] = {}
        """Seconds to freeze for, by the number of the point."""
        self.tasks: list[Task] = []

    def kill(self) -> None:
        if not self.is_killed:
            self.scheduler.note(f"{self.name} is killed")
            self.exit()

    def exit(self) -> None:
        """End all threads wherever they are, as the end of a process does."""
        self.is_killed = True
        self.frozen_until = 0.0
        for task in list(self.tasks):
            self.scheduler.wake(task)

    def freeze(self, seconds: float) -> None:
        self.scheduler.note(f"{self.name} is frozen for {seconds:.1f} s")
        self.frozen_until = self.scheduler.now + seconds


class Task:
    """One simulated thread."""

    def __init__(self, process: Process, target: Callable[[], None], name: str) -> None:
        self.process = process
        self.name = name
        self.is_over = False
        self.is_blocked = False
        self.notified = False
        self.generation = 0
        self.joiners: list[Task] = []
        self.baton = threading.Lock()
        self.baton.acquire()
        self._target = target
        self._ident = 0

    def start(self) -> None:
        """Start a bare thread: `threading.Thread` would wait for it, which costs most of a seed."""
        self._ident = _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        self.baton.acquire()
        scheduler = self.process.scheduler
        try:
            if not self.process.is_killed:
                self._target()
        except Killed:
            pass
        except BaseException as error:
            scheduler.fail(error)
        scheduler.end(self)

    def stack(self) -> str:
        """Where this thread is, for the report of a deadlock."""
        frame = sys._current_frames().get(self._ident)
        lines = traceback.format_stack(frame)[-6:] if frame else []
        return f"{self.name}:\n{''.join(lines)}"


class Scheduler:
    """Decides who goes on, and what time it is."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.trace: list[tuple[float, str, str]] = []
        self.failure: BaseException | None = None
        self.current: Task | None = None
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, Task, int]] = []
        self._tasks: list[Task] = []
        self._processes: list[Process] = []
        self._over = threading.Semaphore(0)

    # -- for the driver -----------------------------------------------------------------------

    def process(self, name: str) -> Process:
        made = Process(self, name)
        self._processes.append(made)
        return made

    def run(self) -> None:
        """Run everything that was spawned to its end; raises what went wrong."""
        first = self._next()
        if first is None:
            return
        self._hand_to(first)
        seen = -1
        while not self._over.acquire(timeout=HUNG_SECONDS):
            if self.steps == seen:
                stacks = "\n".join(task.stack() for task in self._tasks)
                raise Stuck(f"a thread blocks on something that is not simulated\n{stacks}")
            seen = self.steps
        if self.failure is not None:
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """End the simulation with this error."""
        if self.failure is None:
            self.failure = error
            for process in self._processes:
                process.kill()

    def note(self, text: str) -> None:
        """A line of the trace."""
        name = self.current.name if self.current else "-"
        self.trace.append((self.now, name, text))

    # -- for threads --------------------------------------------------------------------------

    def spawn(self, process: Process, target: Callable[[], None], name: str) -> Task:
        task = Task(process, target, f"{process.name}/{name}")
        process.tasks.append(task)
        self._tasks.append(task)
        self._ready.append(task)
        task.start()
        return task

    def check(self) -> None:
        """Raise in a thread whose process was killed."""
        if self.current is not None and self.current.process.is_killed:
            raise Killed

    def point(self) -> None:
        """Another thread may come in between, and the process may be killed here."""
        self.check()
        process = self._me().process
        process.points += 1
        if process.points == process.kill_at:
            process.kill()
            raise Killed
        if process.points in process.freeze_at:
            process.freeze(process.freeze_at[process.points])
            self._ready.append(self._me())
            self._pass_on()
        self.pause()

    def pause(self) -> None:
        """Another thread may come in between."""
        if self.random.random() >= STAY:
            self._ready.append(self._me())
            self._pass_on()
        else:
            self.check()

    def sleep(self, seconds: float) -> None:
        self.block(self.now + max(0.0, seconds))

    def block(self, until: float | None, queue: list[Task] | None = None) -> bool:
        """Wait until woken through the queue, or until that time; returns whether woken."""
        self.check()
        me = self._me()
        me.notified, me.is_blocked = False, True
        if until is not None:
            heapq.heappush(self._timers, (until, self.steps, me, me.generation))
            self.steps += 1
        if queue is not None:
            queue.append(me)
        try:
            self._pass_on()
        finally:
            if queue is not None and not me.notified and me in queue:
                queue.remove(me)
        return me.notified

    def wake(self, task: Task) -> None:
        """Let a blocked thread go on."""
        if task.is_blocked:
            task.is_blocked = False
            task.notified = True
            task.generation += 1
            self._ready.append(task)

    def end(self, task: Task) -> None:
        """The last act of a thread."""
        task.is_over = True
        self._tasks.remove(task)
        task.process.tasks.remove(task)
        for joiner in task.joiners:
            self.wake(joiner)
        following = self._next()
        if following is not None:
            self._hand_to(following)
        else:
            self._over.release()

    def _me(self) -> Task:
        if self.current is None:
            raise RuntimeError("not a simulated thread")
        return self.current

    def _pass_on(self) -> None:
        me = self._me()
        following = self._next()
        if following is not None and following is not me:
            self._hand_to(following)
            me.baton.acquire()
        if me.process.is_killed:
            raise Killed

    def _hand_to(self, task: Task) -> None:
        self.current = task
        task.baton.release()

    # -- who is next --------------------------------------------------------------------------

    def _next(self) -> Task | None:
        """Who goes on; None when all have ended."""
        self.steps += 1
        self.now += STEP_SECONDS
        if self.steps > MAX_STEPS or self.now > MAX_SECONDS:
            self._give_up("it does not end")
        while self._tasks:
            self._wake_sleepers()
            if self._ready:
                task = self._ready.pop(self.random.randrange(len(self._ready)))
                if task.process.frozen_until > self.now:
                    self._put_off(task)
                    continue
                return task
            if self._timers:
                self.now = max(self.now, self._timers[0][0])
            else:
                self._give_up("everybody waits for somebody else")
        return None

    def _wake_sleepers(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            _, _, task, generation = heapq.heappop(self._timers)
            if task.generation == generation and task.is_blocked:
                task.is_blocked = False
                task.generation += 1
                self._ready.append(task)

    def _put_off(self, task: Task) -> None:
        """A frozen process goes on where it was; what notified it is not forgotten."""
        task.is_blocked = True
        heapq.heappush(self._timers, (task.process.frozen_until, self.steps, task, task.generation))
        self.steps += 1

    def _give_up(self, why: str) -> None:
        if self.failure is not None and not self._ready:
            raise Stuck(why)
        stacks = "\n".join(task.stack() for task in self._tasks)
        self.steps, self.now = 0, 0.0  # for the threads to end in
        self.fail(Stuck(f"{why}\n{stacks}"))

"""Time, randomness and threads, as one object that a simulation replaces.

Whatever waits, sleeps, draws a random number or starts a thread during a run takes them from the
`Timing` that it was given. A simulation passes one in which the clock is virtual and a seed decides
which thread goes on, so that a whole run can be replayed exactly.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol


class Event(Protocol):
    """The part of `threading.Event` that a run uses."""

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Lock(Protocol):
    """The part of `threading.Lock` that a run uses."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class Condition(Lock, Protocol):
    """The part of `threading.Condition` that a run uses; it is a lock as well."""

    def wait(self, timeout: float | None = None) -> bool: ...

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool: ...

    def notify_all(self) -> None: ...


class Thread(Protocol):
    """The part of `threading.Thread` that a run uses."""

    def join(self, timeout: float | None = None) -> None: ...

    def is_alive(self) -> bool: ...


class Timing:
    """Real time, real randomness, real threads."""

    def __init__(self) -> None:
        self.random = random.Random()  # noqa: S311 - jitter, not cryptography

    def now(self) -> datetime:
        """The date and time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def boot_time(self) -> float:
        """Seconds on a clock that never goes back and goes on while the machine sleeps."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        return time.monotonic() if clock is None else time.clock_gettime(clock)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def event(self) -> Event:
        return threading.Event()

    def lock(self) -> Lock:
        """A lock; hold it for a few instructions, never across a call that may wait."""
        return threading.Lock()

    def condition(self) -> Condition:
        return threading.Condition()

    def start_thread(self, target: Callable[[], None], name: str) -> Thread:
        """Start a daemon thread."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def executor(self, threads: int, name: str) -> Executor:
        """A pool of threads, each of which is called by this name and a number."""
        return ThreadPoolExecutor(threads, name)


REAL = Timing()

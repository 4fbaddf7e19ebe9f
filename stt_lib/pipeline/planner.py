"""Planning: pending chunks become sequences, a bounded way ahead of the work.

Each batch is a fresh query from the newest chunk on, so that speech recorded meanwhile comes
first, and so that no cursor has to stay open for hours. What was planned already is passed over.

A watching run looks again every few seconds, and at once when it is told of news. It plans less far
ahead, and each of its batches replaces the one before, so that new speech never waits behind old.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from datetime import datetime

from stt_lib.domain.models import ChunkSequence, identity
from stt_lib.errors import SttError
from stt_lib.pipeline.sources import Task
from stt_lib.store import Store

log = logging.getLogger("stt")

AHEAD = 1000
"""Sequences planned ahead at most."""

REFILL_BELOW = 250
"""Sequences left when the next batch is read: enough work for the time that takes."""

AHEAD_WATCHING, REFILL_BELOW_WATCHING = 100, 25
PAUSE_SECONDS = 0.5
"""A watching planner rests so long between two looks, however much there is to be told."""
PAUSE_SHARE = 20
LONGEST_PAUSE_SECONDS = 30.0
"""And so many times as long as a look took, within reason: it is to be little of MongoDB's work."""
BARRED_SECONDS = 300.0
"""For so long a watching planner passes over what could not be written to."""


LOOK_EVERY_SECONDS = 5.0
"""How soon something is noticed that has been given a higher priority than what is planned."""


class Planner:
    """Hands out sequences, newest first, each chunk once; plans ahead in a thread of its own."""

    def __init__(
        self, store: Store, task: Task, *, since: datetime, look_every: float | None = None
    ) -> None:
        """`look_every` seconds a watching run looks for new work; None plans what there is."""
        self._store = store
        self._task = task
        self._since = since
        self._look_every = LOOK_EVERY_SECONDS if look_every is None else look_every
        self._is_watching = look_every is not None
        self._ahead = AHEAD_WATCHING if self._is_watching else AHEAD
        self._refill_below = REFILL_BELOW_WATCHING if self._is_watching else REFILL_BELOW
        self._rests_until = self._looked_at = 0.0
        self._barred: deque[tuple[float, ChunkSequence]] = deque()
        self._changed = threading.Condition()
        self._planned: deque[ChunkSequence] = deque()
        self._busy: set[Hashable] = set()  # chunks planned or under way
        self._exhausted = False
        self._wanted = True
        self._over = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stt-planner", daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> ChunkSequence | None:
        """The next sequence; None when there is none within `seconds`, or none at all.

        Raises:
            SttError: what ended the planning.
        """
        with self._changed:
            self._changed.wait_for(self._is_decided, seconds)
            if self._failure is not None:
                raise self._failure
            if not self._planned:
                return None
            if self._runs_low():
                self._wanted = True
                self._changed.notify_all()
            return self._planned.popleft()

    def _is_decided(self) -> bool:
        is_over = self._exhausted and not self._is_watching
        return bool(self._planned) or is_over or self._failure is not None

    def _runs_low(self) -> bool:
        return len(self._planned) <= self._refill_below and not self._exhausted

    @property
    def exhausted(self) -> bool:
        """Whether everything that was pending has been handed out."""
        with self._changed:
            return self._exhausted and not self._planned

    @property
    def complete(self) -> bool:
        """Whether everything that was pending has been planned."""
        return self._exhausted

    @property
    def ahead(self) -> int:
        """Sequences planned and not handed out yet."""
        return len(self._planned)

    def work_ahead(self, share: Callable[[ChunkSequence], int]) -> int:
        """How much work these sequences are, by what each of them is."""
        with self._changed:
            return sum(map(share, self._planned))

    def done(self, sequence: ChunkSequence) -> None:
        """The sequence has ended, one way or the other."""
        with self._changed:
            self._free(sequence)

    def bar(self, sequence: ChunkSequence) -> None:
        """Nothing could be written on its chunks, so only we can remember that they failed."""
        with self._changed:
            if self._is_watching:
                self._barred.append((time.monotonic() + BARRED_SECONDS, sequence))

    def look_again(self) -> None:
        """Plan what has become pending, or free of its claim, since."""
        with self._changed:
            self._exhausted = self._exhausted and self._is_watching
            self._wanted = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._is_wanted():
                complete = self._store.patiently(self._plan_batch)
                with self._changed:
                    self._rests_until = time.monotonic() + self._rest()
                    self._exhausted = complete
                    # It may have been asked for once more while this batch was on its way.
                    self._wanted = self._wanted and (self._is_watching or self._runs_low())
                    self._changed.notify_all()
        except SttError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits for us
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _is_wanted(self) -> bool:
        """Wait until there is something to plan; False when the planning is over."""
        while True:
            with self._changed:
                rest = self._rests_until - time.monotonic()
                self._changed.wait_for(lambda: self._over or self._runs_low(), max(0.0, rest))
                self._changed.wait_for(lambda: self._over or self._wanted, self._look_every)
                if self._over or self._wanted or self._is_watching:
                    self._wanted = False
                    return not self._over
            if self._task.has_priorities and self._store.patiently(self._is_overtaken):
                self._forget_plan()

    def _is_overtaken(self) -> bool:
        """Whether something has a higher priority than what is planned next."""
        with self._changed:
            if not self._planned:
                return False
            head = self._planned[0]
            under_way = self._busy.difference(*map(_identities, self._planned))
        first = next(self._task.sequences(since=self._since, but=under_way), None)
        return first is not None and _priority(first) > _priority(head)

    def _forget_plan(self) -> None:
        with self._changed:
            self._busy.difference_update(*map(_identities, self._planned))
            self._planned.clear()
            self._exhausted = False
            self._wanted = True

    def _rest(self) -> float:
        """Seconds until the next look, by what the last one took of MongoDB's time."""
        took = time.monotonic() - self._looked_at
        rest = min(max(PAUSE_SECONDS, PAUSE_SHARE * took), LONGEST_PAUSE_SECONDS)
        return rest if self._is_watching else 0.0

    def _start_over(self) -> datetime:
        """Forget a watching run's plan; returns from when on what failed has to wait."""
        if not self._is_watching:
            return self._since
        now = self._store.now()
        with self._changed:
            while self._barred and self._barred[0][0] <= time.monotonic():
                self._free(self._barred.popleft()[1])
            while self._planned:
                self._free(self._planned.popleft())
        return now

    def _free(self, sequence: ChunkSequence) -> None:
        self._busy.difference_update(_identities(sequence))

    def _plan_batch(self) -> bool:
        """Plan up to `_ahead` sequences; True when that is all there is."""
        since = self._start_over()
        self._looked_at = time.monotonic()  # it is no work for MongoDB to be waited for
        with self._changed:
            busy = frozenset(self._busy)
        for sequence in self._task.sequences(since=since, but=busy):
            with self._changed:
                if self._over or len(self._planned) >= self._ahead:
                    return False
                self._busy.update(_identities(sequence))
                self._planned.append(sequence)
                self._changed.notify_all()
        return True


def _identities(sequence: ChunkSequence) -> list[Hashable]:
    return [identity(chunk.id) for chunk in sequence.chunks]


def _priority(sequence: ChunkSequence) -> float:
    """Without one it comes after all that have one."""
    priority = sequence.newest.priority
    return -math.inf if priority is None else priority

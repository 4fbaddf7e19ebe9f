"""Watch mode: wakes the planner up when MongoDB reports a change, in a thread of its own."""

import logging
from collections.abc import Callable

from stt_lib.errors import SttError
from stt_lib.store import Store
from stt_lib.telemetry.events import Event
from stt_lib.timing import REAL, Timing

log = logging.getLogger("stt")

IDLE_SECONDS = 15.0
"""Seconds. Pause that is worth a line in the log: longer than an ingester takes for one chunk."""


class Watcher:
    """Calls `wake_up` on changes. Where MongoDB reports none, polling has to do."""

    def __init__(
        self,
        store: Store,
        wake_up: Callable[[], None],
        poll_seconds: float,
        timing: Timing = REAL,
    ) -> None:
        """A broken change stream is opened again after `poll_seconds`."""
        self._store = store
        self._wake_up = wake_up
        self._poll_seconds = poll_seconds
        self._is_over = timing.event()
        timing.start_thread(self._watch, "stt-watcher")

    def stop(self) -> None:
        """The thread may wait for MongoDB; it holds nothing, so nobody waits for it."""
        self._is_over.set()

    def _watch(self) -> None:
        while not self._is_over.is_set():
            try:
                for _ in self._store.change_stream.events():
                    self._wake_up()
                    if self._is_over.is_set():
                        return
            except SttError:
                self._is_over.wait(self._poll_seconds)  # MongoDB is away, or was
            else:
                log.info(
                    "MongoDB reports no changes (it is not a replica set, or does not allow it):"
                    " polling every %g s",
                    self._poll_seconds,
                    extra=Event.WATCHING.of(seconds=self._poll_seconds),
                )
                return


class Idleness:
    """Logs once when there has been nothing to do for a while; times of the monotonic clock."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._is_logged = False

    def lasts(self, now: float) -> None:
        """There is nothing to do."""
        self._began = now if self._began is None else self._began
        if not self._is_logged and now - self._began >= IDLE_SECONDS:
            self._is_logged = True
            log.info("Nothing to do: waiting for new chunks", extra=Event.IDLE.of())

    def ends(self) -> None:
        self._began, self._is_logged = None, False

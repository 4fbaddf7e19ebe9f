"""The lookout of a watching run: passes on what MongoDB tells of new work, in a thread."""

import logging
import threading
from collections.abc import Callable

from stt_lib.errors import SttError
from stt_lib.store import Store
from stt_lib.telemetry.events import Event

log = logging.getLogger("stt")

IDLE_SECONDS = 15.0
"""A pause that is worth a line in the log: longer than an ingester takes for one chunk."""


class Lookout:
    """Calls `tell` on news. Where there are none, the planner's own looks have to do."""

    def __init__(self, store: Store, tell: Callable[[], None], look_every: float) -> None:
        """`look_every` seconds the planner looks by itself, and a broken stream is opened anew."""
        self._store = store
        self._tell = tell
        self._look_every = look_every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="stt-lookout", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """It may hang on MongoDB's answer, and is not waited for: it holds nothing."""
        self._over.set()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                for _ in self._store.news():
                    self._tell()
                    if self._over.is_set():
                        return
            except SttError:
                self._over.wait(self._look_every)  # the stream broke: MongoDB is away, or was
            else:
                log.info(
                    "MongoDB does not tell of new chunks (it is no replica set, or may not): "
                    "looking every %g s",
                    self._look_every,
                    extra=Event.WATCHING.of(seconds=self._look_every),
                )
                return


class Idleness:
    """Tells once when there has been nothing to do for a while; times of the monotonic clock."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._is_told = False

    def lasts(self, now: float) -> None:
        """There is nothing to do."""
        self._since = now if self._since is None else self._since
        if not self._is_told and now - self._since >= IDLE_SECONDS:
            self._is_told = True
            log.info("Nothing to do: waiting for new chunks", extra=Event.IDLE.of())

    def ends(self) -> None:
        self._since, self._is_told = None, False

"""Keeping claims alive while work goes on: one timer for all that this process holds."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from stt_lib.domain.models import Claim
from stt_lib.errors import ClaimLost, SttError
from stt_lib.pipeline.sinks import Ledger
from stt_lib.telemetry.events import Event

log = logging.getLogger("stt")


def moment() -> float:
    """Seconds on a clock that goes on while the machine sleeps, as the database's does."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class Leases:
    """Renews every held claim each `interval` seconds until it is let go."""

    def __init__(self, ledger: Ledger, interval: float) -> None:
        self._ledger = ledger
        self._interval = interval
        self._held: dict[str, list[object]] = {}
        self._renewed: dict[str, float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="stt-leases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def hold(self, claim: Claim, taken: float) -> Iterator[None]:
        """Renew this claim, `taken` at that `moment`, for as long as the block runs."""
        with self._lock:
            self._renewed[claim.token] = taken
            self._held[claim.token] = [chunk.id for chunk in claim.chunks]
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(claim.token, None)
                self._renewed.pop(claim.token, None)

    def is_fresh(self, token: str) -> bool:
        """Whether this claim was ours so recently that it cannot have expired meanwhile."""
        with self._lock:
            renewed = self._renewed.get(token, float("-inf"))
        return moment() - renewed < 2 * self._interval  # of the three in a lease

    def settle(self, token: str, ids: Iterable[object]) -> None:
        """These chunks are marked or given back: there is nothing to renew any more."""
        settled = list(ids)
        with self._lock:
            if token in self._held:
                self._held[token] = [held for held in self._held[token] if held not in settled]

    def _keep(self) -> None:
        while not self._over.wait(self._interval):
            with self._lock:
                held = {token: list(ids) for token, ids in self._held.items() if ids}
            for token, ids in held.items():
                if self._over.is_set():
                    return
                self._renew(token, ids)

    def _renew(self, token: str, ids: list[object]) -> None:
        now = moment()
        try:
            self._ledger.renew(ids, token)
            with self._lock:
                if token in self._renewed:
                    self._renewed[token] = now
        except ClaimLost:
            with self._lock:
                lost = self._held.get(token) == ids  # else some were settled meanwhile
                if lost:
                    del self._held[token]
                    self._renewed.pop(token, None)
            if lost:
                log.warning(
                    "A claim was lost: its result will be dropped", extra=Event.CLAIM_TROUBLE.of()
                )
        except SttError as error:
            log.warning("A claim could not be renewed: %s", error, extra=Event.CLAIM_TROUBLE.of())

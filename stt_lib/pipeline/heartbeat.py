"""Keeping claims alive: one renewal for everything that this process holds."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from stt_lib.errors import ClaimLost, SttError
from stt_lib.store.claims import Claims
from stt_lib.telemetry.events import Event
from stt_lib.timing import REAL, Timing

log = logging.getLogger("stt")

RENEWALS_PER_LEASE = 3
"""Renewals. Number within one lease, so that a lost one or two do no harm."""

LOST = float("-inf")
"""Time of the last renewal of a claim that no longer exists."""


class Heartbeat:
    """Renews all held claims three times within each lease. Thread-safe."""

    def __init__(self, claims: Claims, lease: float, timing: Timing = REAL) -> None:
        """`lease` is the length of a claim in seconds."""
        self._claims = claims
        self._interval = lease / RENEWALS_PER_LEASE
        self._timing = timing
        self._renewed_at: dict[str, float] = {}  # by token, when its lease was last extended
        self._changed = timing.condition()
        self._is_over = timing.event()
        self._thread = timing.start_thread(self._beat, "stt-heartbeat")

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    @contextmanager
    def hold(self, token: str, acquired_at: float) -> Iterator[None]:
        """Renew this claim within the block; it was acquired at that `Timing.boot_time`."""
        with self._changed:
            self._renewed_at[token] = acquired_at
        try:
            yield
        finally:
            with self._changed:
                self._renewed_at.pop(token, None)

    def is_fresh(self, token: str) -> bool:
        """Whether the claim was renewed so recently that it cannot have expired."""
        with self._changed:
            renewed_at = self._renewed_at.get(token, LOST)
        return self._timing.boot_time() - renewed_at < 2 * self._interval

    def refresh(self, token: str) -> bool:
        """Renew a claim unless it is fresh; returns whether it was renewed.

        Raises:
            ClaimLost: it expired and was deleted.
        """
        if self.is_fresh(token):
            return False
        if not self._renew([token]):
            raise ClaimLost("the claim expired and was deleted")
        return True

    def release_all(self) -> None:
        """Release every held claim, from any thread: the process is about to end."""
        with self._changed:
            tokens = list(self._renewed_at)
        for token in tokens:
            self._claims.release(token)

    def _beat(self) -> None:
        while not self._is_over.wait(self._interval):
            with self._changed:
                tokens = [token for token, at in self._renewed_at.items() if at > LOST]
            try:
                if tokens:
                    self._renew(tokens)
            except SttError as error:
                log.warning(
                    "Claims could not be renewed: %s", error, extra=Event.CLAIM_TROUBLE.of()
                )

    def _renew(self, tokens: Collection[str]) -> bool:
        """True if all of these claims that are still held could be renewed."""
        now = self._timing.boot_time()
        missing = self._claims.renew(tokens)
        with self._changed:
            lost = missing & self._renewed_at.keys()  # others were released meanwhile
            for token in self._renewed_at.keys() & set(tokens):
                self._renewed_at[token] = LOST if token in lost else now
        if lost:
            log.warning(
                "Lost %d of %d claims: their results will be dropped",
                len(lost),
                len(tokens),
                extra=Event.CLAIM_TROUBLE.of(claims=len(lost)),
            )
        return not lost

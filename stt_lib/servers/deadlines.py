"""How long a request may take at a server that has other requests of this process: pure policy.

Most Whisper servers compute one request at a time, and never notice that a client hung up. What a
server holds, and how fast it answered lately, tells a queue from a server that hangs. Times are of
any monotonic clock, in seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

MEASURED_ANSWERS = 3
"""Answers after which the speed of a server is known."""

MARGIN = 4.0
"""Factor. A request may take this much longer than the queue should at the recent speed."""

MAX_ALLOWANCE = 4.0
"""Factor. The longest time that timeouts and other clients of a server add to its deadlines."""

QUICK_ANSWERS = 10
"""Answers in a row, each as soon as assumed, that halve the allowance."""

SLOW_ANSWERS = 3
"""Answers in a row, each later than assumed, that make a server a slow one."""

RECENT = 0.9
"""Factor. The weight of the past when an answer is added to the measured speed."""

FADING = 0.98
"""Factor. What a new request leaves of the most that was ever held."""


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A request that a server holds; it is `assumed` to take less, and `allowed` to take more."""

    chunks: int
    started: float
    allowed: float
    assumed: float

    @property
    def ends_at(self) -> float:
        return self.started + self.allowed


class Deadlines:
    """The deadlines of one server.

    `timeout` gives the seconds that an idle server may take for a number of chunks.

    Other processes may load the same server. What they hold is unknown, but probably similar to
    what this process holds at most, or at least to one request like the present one. An allowance
    above one multiplies the time for that. It doubles after a timeout. With several workers it
    starts at two, until answers prove that it is not needed; with one it starts at one, so that a
    lone request gets exactly its timeout.
    """

    def __init__(self, timeout: Callable[[int], float], *, workers: int) -> None:
        self._timeout = timeout
        self._allowance = 1.0 if workers == 1 else 2.0
        self._quick = self._slow = 0
        self._answers = 0
        self._pending: list[Pending] = []
        self._abandoned: list[tuple[float, int]] = []
        self._most_held = 0.0
        self._measured_from = 0.0
        self._chunks = self._seconds = 0.0

    def held(self, now: float) -> int:
        """Chunks that the server still has to compute for this process.

        An abandoned request counts for as long as the timeout assumes that it takes.
        """
        self._abandoned = [(until, chunks) for until, chunks in self._abandoned if until > now]
        abandoned = sum(chunks for _, chunks in self._abandoned)
        return abandoned + sum(request.chunks for request in self._pending)

    def seconds(self, chunks: int, now: float) -> float:
        """Seconds that a request may take if it is sent now."""
        return self._allowed(chunks, self._assumed(chunks, now))

    def _allowed(self, chunks: int, assumed: float) -> float:
        if self._allowance == 1:
            return assumed
        similar = self._bounded(max(round(self._most_held), 2 * chunks), chunks)
        return self._allowance * max(assumed, similar)

    def _assumed(self, chunks: int, now: float) -> float:
        return self._bounded(self.held(now) + chunks, chunks)

    def _bounded(self, held: int, chunks: int) -> float:
        """Seconds for `chunks` at a server that holds `held`, these included."""
        most = self._timeout(held)
        if self._answers < MEASURED_ANSWERS:
            return most
        expected = held * self._seconds / self._chunks
        return min(most, max(self._timeout(chunks), MARGIN * expected))

    def sent(self, chunks: int, now: float, *, started: float) -> Pending:
        """Note that a request has been sent."""
        assumed = self._assumed(chunks, now)
        if not self._pending:
            self._measured_from = now
        self._most_held = max(FADING * self._most_held, self.held(now) + chunks)
        request = Pending(chunks, started, self._allowed(chunks, assumed), assumed)
        self._pending.append(request)
        return request

    def answered(self, request: Pending, now: float) -> bool:
        """Note an answer; returns whether the server is a slow one."""
        self._pending.remove(request)
        self._answers += 1
        self._chunks = RECENT * self._chunks + request.chunks
        self._seconds = RECENT * self._seconds + now - self._measured_from
        self._measured_from = now
        was_slow = now - request.started > request.assumed
        self._slow = self._slow + 1 if was_slow else 0
        self._quick = 0 if was_slow else self._quick + 1
        if self._quick >= QUICK_ANSWERS:
            self._quick = 0
            self._allowance = max(1.0, self._allowance / 2)
        return self._slow >= SLOW_ANSWERS

    def is_overdue(self, request: Pending, now: float) -> bool:
        """Whether an idle server would have answered by now."""
        return now - request.started > self._timeout(request.chunks)

    def failed(self, request: Pending) -> None:
        """Note that the server is done with a request, though without a transcript."""
        self._pending.remove(request)

    def abandoned(self, request: Pending, now: float) -> None:
        """Note that a request timed out; the server is assumed to go on with it."""
        self._pending.remove(request)
        lasts = self._timeout(request.chunks) - self._timeout(0)
        self._abandoned.append((now + lasts, request.chunks))
        self._quick = 0
        self._allowance = min(MAX_ALLOWANCE, 2 * self._allowance)

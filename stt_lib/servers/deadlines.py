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

QUICK_ANSWERS = 3
"""Answers in a row, each within half of its deadline, that halve the allowance."""

RECENT = 0.9
"""Factor. The weight of the past when an answer is added to the measured speed."""


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

    `timeout` gives the seconds that an idle server may take for a number of chunks. The allowance
    multiplies them: other processes may load the same server. With several workers it starts at
    two, until answers prove that it is not needed; with one it starts at one, so that a lone
    request gets exactly its timeout.
    """

    def __init__(self, timeout: Callable[[int], float], *, workers: int) -> None:
        self._timeout = timeout
        self._allowance = 1.0 if workers == 1 else 2.0
        self._quick = 0
        self._answers = 0
        self._pending: list[Pending] = []
        self._abandoned: list[tuple[float, int]] = []
        self._measured_from = 0.0
        self._chunks = self._seconds = 0.0

    @property
    def ends_at(self) -> float | None:
        """When the last pending request is answered or given up; None without any."""
        return max((request.ends_at for request in self._pending), default=None)

    def held(self, now: float) -> int:
        """Chunks that the server still has to compute for this process.

        An abandoned request counts for as long as the timeout assumes that it takes.
        """
        self._abandoned = [(until, chunks) for until, chunks in self._abandoned if until > now]
        abandoned = sum(chunks for _, chunks in self._abandoned)
        return abandoned + sum(request.chunks for request in self._pending)

    def seconds(self, chunks: int, now: float) -> float:
        """Seconds that a request may take if it is sent now."""
        return self._allowance * self._assumed(chunks, now)

    def _assumed(self, chunks: int, now: float) -> float:
        held = self.held(now) + chunks
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
        request = Pending(chunks, started, self._allowance * assumed, assumed)
        self._pending.append(request)
        return request

    def answered(self, request: Pending, now: float) -> bool:
        """Note an answer; returns whether it took longer than assumed."""
        self._pending.remove(request)
        self._measure(request.chunks, now)
        took = now - request.started
        self._quick = self._quick + 1 if took <= request.allowed / 2 else 0
        if self._quick >= QUICK_ANSWERS:
            self._quick = 0
            self._allowance = max(1.0, self._allowance / 2)
        return took > request.assumed

    def _measure(self, chunks: int, now: float) -> None:
        self._answers += 1
        self._chunks = RECENT * self._chunks + chunks
        self._seconds = RECENT * self._seconds + now - self._measured_from
        self._measured_from = now

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

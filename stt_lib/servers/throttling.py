"""How many requests a server may have at once, and how many in a second: pure policy.

Times are of any monotonic clock, in seconds.
Source: D.-M. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance", 1989 (additive increase, multiplicative decrease).
"""

DECREASE = 0.7
"""Share. What is left of the limit after a refusal."""

PATIENCE = 2
"""Rounds of answers after which one more request than a server refused is tried."""


class ConcurrencyLimit:
    """The number of requests that one server may have in flight.

    It starts at its ceiling, which is what the operator asked for. Answers raise a limit that was
    cut by one each up to the level that was refused; above that, by one in `PATIENCE` rounds, so
    that a server with a fixed number of slots does not refuse every other request.
    """

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._value = float(ceiling)
        self._refused_at = float(ceiling)
        self._cut_at = float("-inf")

    @property
    def value(self) -> int:
        """At least one."""
        return int(self._value)

    def answered(self, in_flight: int) -> None:
        """Note an answer; `in_flight` counts the server's requests, the answered one included."""
        if in_flight >= self.value:
            is_known = int(self._value + 1) < int(self._refused_at)
            step = 1.0 if is_known else 1 / (PATIENCE * self._value)
            self._value = min(float(self._ceiling), self._value + step)

    def refused(self, now: float, *, started: float) -> None:
        """Note a refusal or a timeout of a request that was sent at `started`.

        Requests that were in flight when the limit was cut do not cut it again.
        """
        if started > self._cut_at:
            self._refused_at = self._value
            self._value = max(1.0, self._value * DECREASE)
            self._cut_at = now

    def restart(self) -> None:
        """Begin with one request after an outage."""
        self._refused_at = float(self._ceiling)
        self._value = 1.0


class RateLimiter:
    """Spaces requests evenly: `per_second` units of them, or no limit if None."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._free_at = float("-inf")

    def seconds_left(self, now: float) -> float:
        """Seconds until the next request may start."""
        return max(0.0, self._free_at - now)

    def take(self, now: float, units: float = 1.0) -> None:
        """Start a request; unused time is not made up for in a burst."""
        if self._per_second is not None:
            self._free_at = max(self._free_at, now) + units / self._per_second

"""When a run must end, and whether one more sequence can end before that: pure policy."""

import math
from collections import deque

RECENT = 50
"""Sequences. Number of recent ones from which the duration of the next one is predicted."""
SAFE_SHARE = 0.9
"""Share of recent sequences that finished within the predicted time."""

CLOSING_SECONDS = 5.0
CLOSING_SHARE = 0.1
"""Upper bounds, in seconds and as a share of the run, of the time reserved for releasing what
is cut off at its end."""


class Deadline:
    """The end of a run of `seconds`, from `began` on the monotonic clock; None is no end."""

    def __init__(self, seconds: float | None, began: float) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self.ends_at = began + self._seconds
        """When the process should end; infinite without a deadline."""
        self.cuts_at = self.ends_at - min(CLOSING_SECONDS, CLOSING_SHARE * self._seconds)
        """When requests in flight have to be cut off, so that their claims are released in time."""
        self._took: deque[float] = deque(maxlen=RECENT)

    def took(self, seconds: float) -> None:
        """Record how long a sequence took."""
        self._took.append(seconds)

    def expected(self, at_first: float) -> float:
        """Seconds that nearly every sequence takes.

        While none has ended that is `at_first`, but no more than half of the run: it may be a
        timeout, which is longer than nearly every answer takes.
        """
        if not self._took:
            return min(at_first, self._seconds / 2)
        ordered = sorted(self._took)
        return ordered[math.ceil(SAFE_SHARE * len(ordered)) - 1]

    def leaves_time(self, now: float, at_first: float) -> bool:
        """Whether a sequence that is started now will end in time."""
        return now + self.expected(at_first) <= self.cuts_at

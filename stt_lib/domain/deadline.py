"""When a run must end, and whether one more sequence can end before that: pure policy."""

import math
from collections import deque

RECENT = 50
"""Sequences whose times tell how long the next one will take."""

SAFE_SHARE = 0.9
"""So many of them were done within the time that we count on."""

CLOSING_SECONDS = 5.0
CLOSING_SHARE = 0.1
"""What is kept back of a run, at most, for giving back what was cut off at its end."""


class Deadline:
    """The end of a run of `seconds` that `began` then, by the monotonic clock; None is no end."""

    def __init__(self, seconds: float | None, began: float) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self._began = began
        self._took: deque[float] = deque(maxlen=RECENT)

    @property
    def ends_at(self) -> float:
        """When the process should end; infinite without a deadline."""
        return self._began + self._seconds

    @property
    def cuts_at(self) -> float:
        """When what is still under way has to be cut off, so that it is given back in time."""
        return self.ends_at - min(CLOSING_SECONDS, CLOSING_SHARE * self._seconds)

    def took(self, seconds: float) -> None:
        """Record how long a sequence took."""
        self._took.append(seconds)

    def expected(self, at_first: float) -> float:
        """Seconds that a sequence takes, with few exceptions.

        `at_first`, while none has ended, but then no more than half of the run: it may be a
        timeout, which is longer than nearly every answer takes.
        """
        if not self._took:
            return min(at_first, self._seconds / 2)
        ordered = sorted(self._took)
        return ordered[math.ceil(SAFE_SHARE * len(ordered)) - 1]

    def leaves_time(self, now: float, at_first: float) -> bool:
        """Whether a sequence that is begun now will end in time."""
        return math.isinf(self._seconds) or now + self.expected(at_first) <= self.cuts_at

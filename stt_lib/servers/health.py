"""A circuit breaker: whether a server is in service, as a pure state machine."""

import random
from dataclasses import dataclass, field

from stt_lib.domain.backoff import delay

THRESHOLD = 3
FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 30.0
TOLD_RESTS = 8
"""Of one outage so many rests are told, then each of twice as many: it may last a weekend."""


@dataclass(slots=True)
class Breaker:
    """Closed while the server serves; open while it rests; then one trial decides.

    Times are of any monotonic clock, in seconds. Each failed trial lengthens the rest.
    """

    rng: random.Random
    failures: int = 0
    openings: int = 0
    rest_ends: float | None = field(default=None)

    @property
    def closed(self) -> bool:
        return self.rest_ends is None

    @property
    def is_news(self) -> bool:
        """Whether the rest that has begun is worth a line in the log."""
        return self.openings <= TOLD_RESTS or self.openings.bit_count() == 1

    def is_trial_due(self, now: float) -> bool:
        return self.rest_ends is not None and now >= self.rest_ends

    def success(self) -> bool:
        """Note an answer; True when that brings the server back into service."""
        came_back = not self.closed
        self.failures = self.openings = 0
        self.rest_ends = None
        return came_back

    def failure(self, now: float, *, certain: bool = False) -> bool:
        """Note trouble; True when the server is to rest (again) because of it.

        `certain`: nobody listens there, or a trial failed, so that one failure is enough.
        Requests that were under way when the server began to rest do not lengthen the rest.
        """
        self.failures += 1
        if not self.closed and not (certain and self.is_trial_due(now)):
            return False
        if self.closed and not certain and self.failures < THRESHOLD:
            return False
        self.openings += 1
        rest = delay(self.openings, FIRST_REST_SECONDS, LONGEST_REST_SECONDS, self.rng)
        self.rest_ends = now + rest
        return True

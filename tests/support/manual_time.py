"""A clock that a test moves by hand."""

import random
from datetime import UTC, datetime, timedelta

from stt_lib.timing import Timing

START = datetime(2026, 3, 1, 8, tzinfo=UTC)


class ManualTiming(Timing):
    """Time passes only in `sleep`; threads, events and conditions are real."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self._seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    def boot_time(self) -> float:
        return self._seconds

    def sleep(self, seconds: float) -> None:
        self._seconds += seconds

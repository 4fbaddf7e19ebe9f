"""SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Which signal asked us to stop, if any."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.number: int | None = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Only set a flag: everything else happens where it is looked at."""
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        self.event.set()

    @contextmanager
    def caught(self) -> Iterator["StopSignal"]:
        """Handle both signals within the block; restore the old handlers after it."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        old = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

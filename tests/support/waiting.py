"""Waiting for something to become true, with a deadline."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.01


def eventually(
    condition: Callable[[], bool], seconds: float = 20.0, what: str = "the condition"
) -> None:
    """Wait until the condition holds; fails with what did not happen if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_SECONDS)

"""How long to wait before trying again: pure policy, randomness passed in."""

import random

LATER_BASE_SECONDS = 300.0
LATER_CAP_SECONDS = 24 * 3600.0


def delay(attempt: int, base: float, cap: float, rng: random.Random) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1): exponential, capped, jittered.

    Half of the time is fixed and half is random ("equal jitter"), so that many workers do not
    come back in the same instant and none comes back at once.
    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, not {attempt}")
    exponent = min(attempt - 1, 64)  # beyond that any cap is reached, and floats are finite
    ceiling = min(cap, base * 2.0**exponent)
    return ceiling / 2 + rng.random() * ceiling / 2


def same_run_delay(failures: int, rng: random.Random) -> float:
    """Seconds until a run without an end retries audio after a failure of a server.

    Half a minute at first, doubled by every further failure, at most an hour.
    """
    return delay(failures, 30.0, 3600.0, rng)


def later_run_delay(failures: int, rng: random.Random) -> float:
    """Seconds until audio that failed `failures` times is due in a later run.

    Five minutes at first, four times as long after every further failure, at most a day.
    """
    base = LATER_BASE_SECONDS * 4.0 ** min(max(failures - 1, 0), 32)
    return delay(1, min(base, LATER_CAP_SECONDS), LATER_CAP_SECONDS, rng)

"""How many requests a server may have from us at once, and how many in a second: pure policy.

The number at once finds itself: additive increase, multiplicative decrease, as TCP does it. It
grows while it is used and answers come, and shrinks when the server refuses, or when its answers
take longer without more of them coming. The second sign needs measuring: answers are counted in
rounds of as many as the limit is high, and each round is compared with the best before it.
Sources: D.-M. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion
Avoidance", 1989; Netflix, concurrency-limits, AIMD and gradient limits, 2018.
"""

import math
from dataclasses import dataclass

INITIAL = 8
INITIAL_SHARE = 4
"""A limit starts at 8, or at a fourth of its ceiling where that is more: two doublings away."""

DECREASE = 0.7
"""What is left of the limit after a refusal."""

WORTHWHILE = 1.1
"""A higher limit has to bring so much more throughput, or a slower pace tells against it."""

SLOWER = 1.4
"""Answers that take so much longer per second of audio than the best ones did are waiting."""

MARGIN = 1.25
"""More than the server works on at once, so that the next request is there when a slot is free."""

AGEING = 1.002
"""The best figures fade by so much in every round: servers change."""

PATIENT_ROUNDS = 20
"""Rounds without growth after a limit has proved too high; then it is tried again."""


@dataclass(slots=True)
class _Round:
    """Answers since `began`; `pace` is seconds of waiting per second of audio."""

    began: float
    answers: int = 0
    audio: float = 0.0
    waited: float = 0.0
    limit_was_used: bool = False

    @property
    def pace(self) -> float:
        return self.waited / self.audio

    def throughput(self, now: float) -> float:
        return self.audio / max(now - self.began, 1e-9)


class Limit:
    """The limit of one server; times of any monotonic clock, in seconds."""

    def __init__(self, ceiling: int, *, adapts: bool = True) -> None:
        self._ceiling = ceiling
        self._adapts = adapts
        initial = min(ceiling, max(INITIAL, ceiling // INITIAL_SHARE))
        self._value = float(initial if adapts else ceiling)
        self._round: _Round | None = None
        self._best_throughput = 0.0
        self._best_pace = float("inf")
        self._is_starting = True
        self._hold = 0
        self._shrunk_at = float("-inf")

    @property
    def value(self) -> int:
        """Requests that may be in flight, at least one."""
        return int(self._value)

    def answered(self, now: float, *, audio: float, seconds: float, in_flight: int) -> None:
        """Note an answer for `audio` seconds of sound that took `seconds`.

        `in_flight` counts the requests at the server, this one included.
        """
        if not self._adapts:
            return
        if self._round is None:
            self._round = _Round(now - seconds)
        current = self._round
        audio = max(audio, 1e-3)
        self._best_pace = min(self._best_pace, seconds / audio)
        current.answers += 1
        current.audio += audio
        current.waited += seconds
        current.limit_was_used = current.limit_was_used or in_flight >= self.value
        if self._is_starting and in_flight >= self.value:
            self._grow()  # doubles with every round, until that brings nothing more
        if current.answers >= self.value:
            self._judge(current, now)
            self._round = _Round(now)

    def refused(self, now: float, *, started: float) -> None:
        """Note a refusal or a timeout of a request that was `started` then.

        Requests that were under way when the limit shrank do not shrink it again.
        """
        if not self._adapts or started <= self._shrunk_at:
            return
        self._value = max(1.0, self._value * DECREASE)
        self._shrunk_at = now
        self._is_starting = False
        self._hold = PATIENT_ROUNDS
        self._round = None

    def _grow(self) -> None:
        self._value = min(float(self._ceiling), self._value + 1)

    def _judge(self, finished: _Round, now: float) -> None:
        """Decide at the end of a round: on, hold, or back."""
        throughput, pace = finished.throughput(now), finished.pace
        is_better = throughput > self._best_throughput * WORTHWHILE
        self._best_throughput = max(self._best_throughput / AGEING, throughput)
        self._best_pace *= AGEING
        if pace > self._best_pace * SLOWER and not is_better:
            self._back_off()
        elif finished.limit_was_used and not self._is_starting:
            self._hold -= 1
            if self._hold <= 0:
                self._grow()

    def _back_off(self) -> None:
        """More at once brings nothing but waiting: go back to what the server works on at once.

        By Little's law that is throughput times the time of an answer that did not wait.
        """
        at_work = self._best_throughput * self._best_pace
        self._value = max(1.0, min(self._value, math.ceil(at_work * MARGIN) + 1.0))
        self._is_starting = False
        self._hold = PATIENT_ROUNDS


class Pacer:
    """Spaces things evenly: `per_second` units of them, or as fast as they come when None."""

    def __init__(self, per_second: float | None) -> None:
        self._per_second = per_second
        self._free_at = float("-inf")

    def seconds_left(self, now: float) -> float:
        """Seconds until the next one may start."""
        return max(0.0, self._free_at - now)

    def take(self, now: float, units: float = 1.0) -> None:
        """Start one of so many units; time that went unused is not made up for in a burst."""
        if self._per_second is not None:
            self._free_at = max(self._free_at, now) + units / self._per_second

"""What a run measures, for summary, progress and metrics.

Counting is always on: it costs some microseconds per sequence, and memory does not grow with the
length of the run.
"""

import bisect
import copy
import statistics
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from stt_lib.domain.models import Outcome
from stt_lib.errors import FailureKind

SECONDS: Final = tuple(2.0**power for power in range(-6, 10))
"""Seconds. Upper bounds of the buckets of durations: 16 ms to 8 minutes."""

RATIOS: Final = tuple(2.0**power for power in range(-10, 4))
"""Seconds per second of audio. Upper bounds: from 1000 times real time to 8 times slower."""

RECENT: Final = 1000
"""Numbers. Size of the window over which quantiles are computed."""

ENDS: Final = (Outcome.TRANSCRIBED, Outcome.EMPTY, Outcome.ERROR)
"""Outcomes of a chunk."""


class Observations:
    """Numbers counted in buckets, of which the most recent are kept for quantiles."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, number: float) -> None:
        self.buckets[bisect.bisect_left(self.bounds, number)] += 1
        self.total += number
        self._recent.append(number)

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def percentile(self, percent: int) -> float | None:
        """The value that this percentage of recent numbers does not exceed; None without any."""
        if len(self._recent) < 2:
            return next(iter(self._recent), None)
        return statistics.quantiles(self._recent, n=100, method="inclusive")[percent - 1]


@dataclass(slots=True)
class ServerFigures:
    """The requests to one server: their durations, also per second of audio, and failures."""

    times: Observations = field(default_factory=Observations)
    ratios: Observations = field(default_factory=lambda: Observations(RATIOS))
    errors: Counter[FailureKind] = field(default_factory=Counter)
    retries: int = 0

    @property
    def answered(self) -> int:
        return self.times.count

    @property
    def failed(self) -> int:
        return self.errors.total()


@dataclass(slots=True)
class Figures:
    """Sequences, chunks and seconds of audio by outcome, and the durations of saves."""

    sequences: Counter[Outcome] = field(default_factory=Counter)
    chunks: Counter[Outcome] = field(default_factory=Counter)
    audio: defaultdict[Outcome, float] = field(default_factory=lambda: defaultdict(float))
    errors: Counter[FailureKind] = field(default_factory=Counter)
    saves: Observations = field(default_factory=Observations)
    servers: defaultdict[str, ServerFigures] = field(
        default_factory=lambda: defaultdict(ServerFigures)
    )

    @property
    def seconds_of_audio(self) -> float:
        return sum(self.audio.values())


class Stats:
    """Collects the figures of a run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures = Figures()

    def figures(self) -> Figures:
        """A copy of the figures so far."""
        with self._lock:
            return copy.deepcopy(self._figures)

    @property
    def seconds_of_audio(self) -> float:
        with self._lock:
            return self._figures.seconds_of_audio

    def sequence(self, outcome: Outcome) -> None:
        """Count a sequence that ended."""
        with self._lock:
            self._figures.sequences[outcome] += 1

    def settled(self, outcome: Outcome, chunks: int, audio: float) -> None:
        """Count chunks and their seconds of audio; chunks of one sequence may end differently."""
        with self._lock:
            self._figures.chunks[outcome] += chunks
            self._figures.audio[outcome] += audio

    def blamed(self, kind: FailureKind) -> None:
        """Count a failure that was recorded on chunks."""
        with self._lock:
            self._figures.errors[kind] += 1

    def saved(self, seconds: float) -> None:
        """Count a transcript that was saved and whose chunks were marked."""
        with self._lock:
            self._figures.saves.add(seconds)

    def answered(self, server: str, *, seconds: float, audio: float) -> None:
        """Count an answer; `seconds` is the duration of the request for `audio` seconds."""
        with self._lock:
            figures = self._figures.servers[server]
            figures.times.add(seconds)
            figures.ratios.add(seconds / max(audio, 1e-3))

    def failed(self, server: str, kind: FailureKind) -> None:
        """Count a request that failed."""
        with self._lock:
            self._figures.servers[server].errors[kind] += 1

    def retried(self, server: str) -> None:
        """Count a request that failed at this server and is sent again, there or elsewhere."""
        with self._lock:
            self._figures.servers[server].retries += 1

"""What a run has measured: counted as it happens, read by summary, progress and metrics.

Counting is always on, as it costs some microseconds a sequence, and its size does not depend on
how much is counted.
"""

import copy
import math
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from stt_lib.domain.models import Outcome
from stt_lib.errors import FailureKind

STEPS: Final = 32
"""Steps between 1 and 2: each number is known to 1.1 %. Powers of two are boundaries, as in
Prometheus' native histograms of schema 5."""


class Distribution:
    """Many numbers above 0, remembered by how many there were in each step."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self.count = 0
        self.total = 0.0

    def add(self, number: float) -> None:
        self._steps[math.ceil(math.log2(max(number, 1e-6)) * STEPS)] += 1
        self.count += 1
        self.total += number

    def up_to(self, power: int) -> int:
        """How many were at most 2 to this power."""
        return sum(count for step, count in self._steps.items() if step <= power * STEPS)

    def quantile(self, share: float) -> float | None:
        """What so large a share of them was at most; None without any."""
        seen = 0
        for step in sorted(self._steps):
            seen += self._steps[step]
            if seen >= share * self.count:
                return float(2 ** ((step - 0.5) / STEPS))
        return None


@dataclass(slots=True)
class ServerFigures:
    """The requests to one server: times in seconds, and in seconds per second of audio."""

    times: Distribution = field(default_factory=Distribution)
    ratios: Distribution = field(default_factory=Distribution)
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
    """Sequences, chunks and seconds of audio by how they ended, and what it took."""

    sequences: Counter[Outcome] = field(default_factory=Counter)
    chunks: Counter[Outcome] = field(default_factory=Counter)
    audio: dict[Outcome, float] = field(default_factory=dict)
    errors: Counter[FailureKind] = field(default_factory=Counter)
    saves: Distribution = field(default_factory=Distribution)
    servers: dict[str, ServerFigures] = field(default_factory=dict)

    @property
    def seconds_of_audio(self) -> float:
        return sum(self.audio.values())


class Stats:
    """Takes the figures in; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures = Figures()

    def figures(self) -> Figures:
        """A copy of what is known so far."""
        with self._lock:
            return copy.deepcopy(self._figures)

    @property
    def seconds_of_audio(self) -> float:
        with self._lock:
            return self._figures.seconds_of_audio

    def sequence(self, outcome: Outcome) -> None:
        """A sequence has ended."""
        with self._lock:
            self._figures.sequences[outcome] += 1

    def settled(self, outcome: Outcome, chunks: int, audio: float) -> None:
        """Chunks with so many seconds of audio have ended; those of one sequence may differ."""
        with self._lock:
            figures = self._figures
            figures.chunks[outcome] += chunks
            figures.audio[outcome] = figures.audio.get(outcome, 0.0) + audio

    def blamed(self, kind: FailureKind) -> None:
        """A failure has been recorded on chunks."""
        with self._lock:
            self._figures.errors[kind] += 1

    def saved(self, seconds: float) -> None:
        """A transcript has been saved, and its chunks marked."""
        with self._lock:
            self._figures.saves.add(seconds)

    def answered(self, server: str, *, seconds: float, audio: float) -> None:
        """A server has answered a request."""
        with self._lock:
            figures = self._server(server)
            figures.times.add(seconds)
            figures.ratios.add(seconds / max(audio, 1e-3))

    def failed(self, server: str, kind: FailureKind) -> None:
        """A request to a server has failed."""
        with self._lock:
            self._server(server).errors[kind] += 1

    def retried(self, server: str) -> None:
        """What failed at this server is sent again, there or elsewhere."""
        with self._lock:
            self._server(server).retries += 1

    def _server(self, name: str) -> ServerFigures:
        known = self._figures.servers.get(name)
        if known is None:
            known = self._figures.servers[name] = ServerFigures()
        return known

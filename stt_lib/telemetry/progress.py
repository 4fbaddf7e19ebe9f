"""The progress bar: sequences done, how they ended, and how long the rest will take."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, Tally
from stt_lib.telemetry.logs import counts

_SHAPE = "{l_bar}{bar}| {done}/{expected} [{elapsed}<{remaining}, {pace}] {told}"

INTERVAL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Course:
    """How far a run has come, and an estimate of how far it will go.

    `begun` sequences were started, of which some are `under_way`; more are `planned`. Amounts are
    what the source of the work counts, chunks as a rule: `count` is that of all there was when the
    run began, None once everything is planned or as long as it is unknown.
    """

    tally: Tally
    under_way: int
    planned: int
    begun: int
    limit: int | None
    count: int | None
    amount_begun: int
    amount_done: int
    amount_planned: int
    audio_done: float

    @property
    def sequences(self) -> int:
        """Sequences of the whole run: known once all are planned, extrapolated before."""
        total = self.tally.attempted + self.under_way + self.planned
        if self.count and self.amount_begun:
            total = max(total, round(self.count * self.begun / self.amount_begun))
        return total if self.limit is None else min(total, self.limit)

    @property
    def audio_left(self) -> float:
        """Seconds of audio still to be transcribed."""
        known = self.audio_done and self.amount_done
        each = self.audio_done / self.amount_done if known else NOMINAL_CHUNK_SECONDS
        return self._amount_left * each

    @property
    def _amount_left(self) -> float:
        under_way = self.amount_begun - self.amount_done
        if self.limit is not None:
            waiting = self.sequences - self.tally.attempted - self.under_way
            return under_way + max(0, waiting) * self.amount_begun / max(self.begun, 1)
        if self.count is None:
            return under_way + self.amount_planned
        return max(under_way, self.count - self.amount_done)


class _Bar(tqdm):  # type: ignore[type-arg]
    """As long as the audio is, but with the sequences written on it."""

    done = expected = 0
    outcomes = ""

    @property
    def format_dict(self) -> Mapping[str, Any]:  # type: ignore[override]
        known = super().format_dict
        elapsed = known["elapsed"]
        return {
            **known,
            "done": self.done,
            "expected": self.expected,
            "pace": _pace(self.done, elapsed),
            "told": f"{self.outcomes} | {self.n / elapsed if elapsed else 0.0:.1f}x real time",
        }


class Progress:
    """A bar on the terminal; nothing when the output goes elsewhere, as under cron."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown_at = float("-inf")
        self._bar = _Bar(
            desc="Processing sequences",
            unit="s",
            total=0,
            miniters=0,
            disable=quiet or not sys.stderr.isatty(),
            bar_format=_SHAPE,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    @property
    def is_due(self) -> bool:
        """Whether somebody would see a change."""
        return not self._bar.disable and time.monotonic() - self._shown_at >= INTERVAL_SECONDS

    def show(self, course: Course) -> None:
        bar = self._bar
        bar.done = course.tally.attempted
        bar.expected = max(course.sequences, bar.done)
        bar.outcomes = counts(course.tally)
        bar.total = course.audio_done + course.audio_left
        bar.update(course.audio_done - bar.n)
        self._shown_at = time.monotonic()

    def close(self) -> None:
        self._bar.close()


def _pace(sequences: int, seconds: float) -> str:
    if not sequences or not seconds:
        return "?seq/s"
    rate = sequences / seconds
    return f"{rate:.2f}seq/s" if rate >= 1 else f"{1 / rate:.2f}s/seq"

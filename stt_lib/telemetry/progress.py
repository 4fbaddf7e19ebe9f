"""The progress bar: sequences by outcome, and how long the rest will take."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tqdm import tqdm

from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, Tally
from stt_lib.telemetry.logs import counts
from stt_lib.timing import REAL, Timing

TITLE: Final = "Processing sequences: "

INTERVAL_SECONDS: Final = 0.1
"""Seconds. Pause between two updates of the bar."""

FEWEST_CELLS: Final = 10
"""Cells. A bar shorter than this gives way to the text around it."""


@dataclass(frozen=True, slots=True)
class Course:
    """How far a run has come, and how far it will go, in sequences and in seconds of audio."""

    tally: Tally
    sequences: int
    audio_done: float
    audio_left: float

    @property
    def is_idle(self) -> bool:
        return self.audio_left <= 0


def estimated(
    tally: Tally,
    *,
    under_way: int,
    planned: int,
    begun: int,
    limit: int | None,
    count: int | None,
    amount_begun: int,
    amount_done: int,
    amount_planned: int,
    audio_done: float,
) -> Course:
    """Estimate the course of a run from what it knows.

    `begun` sequences were started, of which some are `under_way`; more are `planned`. Amounts are
    what the source of the work counts, chunks as a rule: `count` is that of all there was when the
    run began, None once everything is planned or as long as it is unknown.
    """
    sequences = tally.attempted + under_way + planned
    if count and amount_begun:
        sequences = max(sequences, round(count * begun / amount_begun))
    left: float = amount_begun - amount_done
    if limit is not None:
        sequences = min(sequences, limit)
        waiting = sequences - tally.attempted - under_way
        left += max(0, waiting) * amount_begun / max(begun, 1)
    elif count is None:
        left += amount_planned
    else:
        left = max(left, count - amount_done)
    is_measured = audio_done and amount_done
    seconds_each = audio_done / amount_done if is_measured else NOMINAL_CHUNK_SECONDS
    return Course(tally, sequences, audio_done, left * seconds_each)


class Progress:
    """A bar on the terminal; nothing when standard error is redirected, as under cron.

    The bar is as long as the audio, because sequences differ in length. Time without work, as in
    watch mode, does not count for the estimate of the time left.
    """

    def __init__(self, *, quiet: bool = False, timing: Timing = REAL) -> None:
        self._monotonic = timing.monotonic
        self._started = self._shown_at = timing.monotonic()
        self._idle = 0.0
        self._was_idle = False
        self._bar = _Bar(
            disable=quiet or not sys.stderr.isatty(), dynamic_ncols=True, file=sys.stderr
        )

    @property
    def is_due(self) -> bool:
        """Whether an update would be visible."""
        return not self._bar.disable and self._monotonic() - self._shown_at >= INTERVAL_SECONDS

    def show(self, course: Course) -> None:
        now = self._monotonic()
        if self._was_idle:
            self._idle += now - self._shown_at
        self._was_idle, self._shown_at = course.is_idle, now
        if not self._bar.disable:
            self._bar.view = course, now - self._started, self.busy
            self._bar.refresh()

    @property
    def busy(self) -> float:
        """Seconds spent working until the last update."""
        return self._shown_at - self._started - self._idle

    def close(self) -> None:
        self._bar.close()


def print_above(text: str) -> None:
    """Print a line to standard output, above the bar if there is one."""
    tqdm.write(text)
    sys.stdout.flush()


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar whose line is composed here; tqdm draws it between the lines of the log."""

    view: tuple[Course, float, float] | None = None

    def __str__(self) -> str:
        if self.view is None:
            return TITLE
        course, elapsed, busy = self.view
        known = self.format_dict
        return line(course, elapsed, busy, known["ncols"] or 80, ascii=known["ascii"])


def line(
    course: Course,
    elapsed: float,
    busy: float,
    columns: int,
    *,
    ascii: bool = False,  # noqa: A002 - as in tqdm
) -> str:
    """The bar in this many columns; of `elapsed` seconds, `busy` were spent working."""
    done, audio = course.tally.attempted, course.audio_done + course.audio_left
    share = 1.0 if course.is_idle and done else course.audio_done / audio if audio else 0.0
    for title, right in _forms(course, elapsed, busy):
        left = f"{title}{share:.0%}|"
        if columns >= len(left) + len(right) + FEWEST_CELLS:
            break
    else:
        return f"{share:.0%} {right.removeprefix('| ')}"[:columns]
    form = f"{left}{{bar}}{right}"
    return str(tqdm.format_meter(share, 1, 0, ncols=columns, ascii=ascii, bar_format=form))


def _forms(course: Course, elapsed: float, busy: float) -> Iterator[tuple[str, str]]:
    """What stands left and right of the bar: everything, without the rate, without the title."""
    done = course.tally.attempted
    clock = tqdm.format_interval
    left = busy * course.audio_left / course.audio_done if course.audio_done else None
    times = f"{clock(elapsed)}<{'?' if left is None else clock(left)}"
    counted = f"| {done}/{course.sequences if course.audio_left > 0 else done} ["
    yield TITLE, f"{counted}{times}, {_pace(done, busy)}] {counts(course.tally)}"
    yield TITLE, f"{counted}{times}] {counts(course.tally)}"
    yield "", f"{counted}{times}] {counts(course.tally)}"


def _pace(sequences: int, seconds: float) -> str:
    if not sequences or not seconds:
        return "?seq/s"
    rate = sequences / seconds
    return f"{rate:.2f}seq/s" if rate >= 1 else f"{1 / rate:.2f}s/seq"

"""The line of the progress bar, and how well it predicts."""

import re

import pytest

from stt_lib.domain.models import Outcome, Tally
from stt_lib.telemetry import progress
from stt_lib.telemetry.progress import Course, Progress, line
from stt_lib.timing import Timing


def tally(transcribed: int, empty: int = 0, errors: int = 0) -> Tally:
    made = Tally()
    for outcome, count in (
        (Outcome.TRANSCRIBED, transcribed),
        (Outcome.EMPTY, empty),
        (Outcome.ERROR, errors),
    ):
        for _ in range(count):
            made.add(outcome)
    return made


DESCRIBED = Course(tally(380, 65, 5), 1000, 4500.0, 5500.0)
"""The example in the user's description: 450 of 1000 sequences after 135 seconds."""


def test_a_wide_terminal_shows_exactly_the_described_format() -> None:
    shown = line(DESCRIBED, 135.0, 135.0, 110)
    assert re.fullmatch(
        r"Processing sequences: 45%\|█+[▏▎▍▌▋▊▉]? +\| 450/1000 \[02:15<02:45, 3\.33seq/s\]"
        r" transcribed=380 empty=65 errors=5",
        shown,
    )
    assert len(shown) == 110


@pytest.mark.parametrize("columns", range(40, 200))
def test_the_line_fits_and_keeps_the_counts(columns: int) -> None:
    shown = line(DESCRIBED, 135.0, 135.0, columns)
    assert len(shown) <= columns
    if columns >= 65:
        assert re.search(
            r"450/1000 \[02:15<02:45(, 3\.33seq/s)?\] transcribed=380 empty=65 errors=5$", shown
        )


def test_at_80_columns_the_bar_is_wide_enough_to_read() -> None:
    bar = line(DESCRIBED, 135.0, 135.0, 80).split("|")[1]
    assert len(bar) >= progress.FEWEST_CELLS
    assert len(line(DESCRIBED, 135.0, 135.0, 100)) == 100


def test_a_terminal_without_blocks_gets_ascii() -> None:
    assert line(DESCRIBED, 135.0, 135.0, 110, ascii=True).isascii()


def test_the_end_is_complete_even_if_the_total_was_overestimated() -> None:
    shown = line(Course(tally(374), 377, 3740.0, 0.0), 60.0, 60.0, 120)
    assert "100%" in shown
    assert " 374/374 [01:00<00:00, " in shown


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_the_time_left_is_right_for_equal_sequences(quarter: int) -> None:
    """400 sequences of 30 s of audio, each of which takes 2 s."""
    done = 100 * quarter
    equal = Course(tally(done), 400, 30.0 * done, 30.0 * (400 - done))
    shown = line(equal, 2.0 * done, 2.0 * done, 120)
    left = re.search(r"<(\d+):(\d+)", shown)
    assert left is not None
    assert int(left[1]) * 60 + int(left[2]) == pytest.approx(2.0 * (400 - done), rel=0.02)


class Clock(Timing):
    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_idle_time_in_watch_mode_is_not_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    bar = Progress(timing=clock)
    for seconds, done, ahead in [(10, 10, 0), (3610, 10, 10), (3615, 15, 5)]:
        clock.seconds = seconds
        bar.show(Course(tally(done), done + ahead, 30.0 * done, 30.0 * ahead))
    assert bar.busy == pytest.approx(15)

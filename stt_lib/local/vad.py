"""Where somebody speaks, according to Silero, and the windows of sound that the model hears."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from faster_whisper.vad import get_vad_model
from numpy.lib.stride_tricks import sliding_window_view

from stt_lib.audio.decoding import WHISPER_RATE, Samples, regrouped
from stt_lib.domain.text import runs
from stt_lib.local.cores import on_all

WINDOW = 512
"""Samples (32 ms at 16 kHz) that the detector judges at a time."""

BLOCK = 312 * WINDOW
"""Samples (10 s) per call of the detector, which remembers nothing of the call before.

After half a minute of silence, its memory makes it miss short words: 29 of 60 digits, and none
with calls of ten seconds.
"""

WARM_UP = 62 * WINDOW
"""Samples (2 s) before a block that the detector hears again."""

CONTEXT = 64
"""Samples of the previous window that the detector is given with each window."""

SMOOTHED = 8
"""Windows over which probabilities are averaged (a quarter of a second, a short word), because a
click can raise a single window."""

THRESHOLD = 0.5

HYSTERESIS = 0.15
"""How far below the threshold the probability falls before speech is considered to have ended."""

SILENCE = 5
"""Windows (0.16 s) below the lower threshold that end a span."""

LISTENING_THRESHOLD = 0.4
"""Probability of speech. Below the threshold of the ingester, so that a chunk which it marked is
not found silent here, where the audio has been compressed."""

LONGEST = 29.5
"""Seconds of speech in a window; with its padding it fits into the 30 s that Whisper hears."""

PAUSE = 2.0
"""Seconds. No window goes on across a longer pause, so that no time is wrong by more."""

PADDING = 0.2
"""Seconds of sound before and after the speech of a window, at most half of the pause there."""


class Span(NamedTuple):
    """A stretch of speech; seconds from the start of the sound, `prob` where it is highest."""

    start: float
    end: float
    prob: float


class Window(NamedTuple):
    """A stretch of sound (seconds) and the speech in it."""

    start: float
    end: float
    spans: tuple[Span, ...]


def probabilities(blocks: Iterable[Samples]) -> Samples:
    """Return the probability of speech in each window of mono sound at 16 kHz."""
    return np.concatenate([np.zeros(0, np.float32), *on_all(_judged, _with_warm_up(blocks))])


def _with_warm_up(blocks: Iterable[Samples]) -> Iterator[tuple[Samples, Samples]]:
    before = np.zeros(CONTEXT, np.float32)
    for block in regrouped(blocks, BLOCK):
        padded = np.pad(block, (0, -block.size % WINDOW))
        yield before, padded
        before = np.concatenate([before, padded])[-(CONTEXT + WARM_UP) :]


def _judged(sound: tuple[Samples, Samples]) -> Samples:
    """The probabilities in the second of two sounds, the first of which only warms up."""
    before, block = sound
    views = sliding_window_view(np.concatenate([before, block]), CONTEXT + WINDOW)[::WINDOW]
    memory = np.zeros((1, 1, 128), np.float32)
    given = {"input": np.ascontiguousarray(views), "h": memory, "c": memory}
    output, _, _ = get_vad_model().session.run(None, given)
    return np.asarray(output.reshape(-1)[-block.size // WINDOW :])


def speech_probability(per_window: Samples) -> float:
    """Return the highest average over a quarter of a second."""
    return round(float(_smoothed(per_window).max(initial=0.0)), 4)


def has_speech(probability: float) -> bool:
    """Return the verdict that is stored with the probability."""
    return probability >= THRESHOLD


def spans(per_window: Samples, *, threshold: float = THRESHOLD) -> list[Span]:
    """Return where speech is probable, in order and without overlap."""
    smoothed = _smoothed(per_window)
    found = []
    for first, behind in _runs(per_window, threshold):
        # Every average that covers a part of the run.
        prob = float(smoothed[max(0, first - SMOOTHED + 1) : behind].max(initial=0.0))
        if prob >= threshold:
            found.append(Span(seconds_at(first), seconds_at(behind), round(prob, 4)))
    return found


def _runs(per_window: Samples, threshold: float) -> Iterator[tuple[int, int]]:
    """Yield first window and end of every run of speech, separated by enough silence."""
    first: int | None = None
    last = 0
    for at, prob in enumerate(per_window.tolist()):
        if first is None and prob >= threshold:
            first = last = at
        elif first is not None and prob >= threshold - HYSTERESIS:
            last = at
        elif first is not None and at - last > SILENCE:
            yield first, last + 1
            first = None
    if first is not None:
        yield first, last + 1


def _smoothed(per_window: Samples) -> Samples:
    padded = np.pad(per_window, (0, max(0, SMOOTHED - per_window.size)))
    return np.convolve(padded, np.full(SMOOTHED, 1 / SMOOTHED, np.float32), mode="valid")


def seconds_at(window: int) -> float:
    """Return the time at which a window of the detector begins."""
    return window * WINDOW / WHISPER_RATE


def window_at(seconds: float) -> int:
    """Return the window of the detector that a time falls into."""
    return int(seconds * WHISPER_RATE / WINDOW)


def windows(per_window: Samples) -> list[Window]:
    """Cut a sound by the probability of speech in each window of the detector."""
    groups = list(runs(_short_spans(per_window), _is_another))
    # Half of each pause, so that no window holds the beginning of a word of the next one.
    halves = [(after[0].start - before[-1].end) / 2 for before, after in pairwise(groups)]
    margins = [min(PADDING, half) for half in [PADDING, *halves, PADDING]]
    return [
        Window(max(0.0, group[0].start - before), group[-1].end + after, tuple(group))
        for group, (before, after) in zip(groups, pairwise(margins), strict=False)
    ]


def part(window: Window, first: int, behind: int) -> Window:
    """Return the part of a window with the spans from number `first` to before number `behind`."""
    spans = window.spans
    start, end = window.start, window.end
    if first > 0:
        start = max(spans[first].start - PADDING, _middle_of_pause(spans, first))
    if behind < len(spans):
        end = min(spans[behind - 1].end + PADDING, _middle_of_pause(spans, behind))
    return Window(start, end, spans[first:behind])


def halves(window: Window) -> tuple[Window, ...]:
    """Cut a window at the longest pause, if possible in its middle half; nothing without any."""
    cuts = range(1, len(window.spans))
    if not cuts:
        return ()
    quarter = (window.end - window.start) / 4
    middle = [
        cut
        for cut in cuts
        if quarter < _middle_of_pause(window.spans, cut) - window.start < 3 * quarter
    ]
    longest = max(middle or cuts, key=lambda cut: _pause(window.spans, cut))
    return part(window, 0, longest), part(window, longest, len(window.spans))


def _pause(spans: Sequence[Span], at: int) -> float:
    return spans[at].start - spans[at - 1].end


def _middle_of_pause(spans: Sequence[Span], at: int) -> float:
    return (spans[at - 1].end + spans[at].start) / 2


def _is_another(group: list[Span], span: Span) -> bool:
    return span.end - group[0].start > LONGEST or span.start - group[-1].end >= PAUSE


def _short_spans(per_window: Samples) -> Iterator[Span]:
    """Yield the spans of speech; those without a pause are cut where speech is least probable."""
    for span in spans(per_window, threshold=LISTENING_THRESHOLD):
        start = span.start
        while span.end - start > LONGEST:
            first, behind = window_at(start + LONGEST / 2), window_at(start + LONGEST)
            cut = seconds_at(first + int(per_window[first:behind].argmin()))
            yield Span(start, cut, span.prob)
            start = cut
        yield Span(start, span.end, span.prob)

"""Where a sound is cut for the model: at pauses, into windows that it can hear at once."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from stt_lib.audio.decoding import Samples
from stt_lib.local import vad
from stt_lib.local.vad import Span

THRESHOLD = 0.4
"""Probability of speech. Below the threshold of the ingester, so that a chunk which it marked is
not found silent here, where the audio has been compressed."""

LONGEST = 29.5
"""Seconds of speech in a window; with its padding it fits into the 30 s that Whisper hears."""

PAUSE = 2.0
"""Seconds. No window goes on across a longer pause, so that no time is wrong by more."""

PADDING = 0.2
"""Seconds of sound before and after the speech of a window, at most half of the pause there."""


class Window(NamedTuple):
    """A stretch of sound (seconds) and the speech in it."""

    start: float
    end: float
    spans: tuple[Span, ...]


def windows(per_window: Samples) -> list[Window]:
    """Cut a sound by the probability of speech in each window of the detector."""
    groups = list(_packed(list(_short_spans(per_window))))
    # Half of each pause, so that no window holds the beginning of a word of the next one.
    halves = [(after[0].start - before[-1].end) / 2 for before, after in pairwise(groups)]
    margins = [min(PADDING, half) for half in [PADDING, *halves, PADDING]]
    return [
        Window(max(0.0, group[0].start - before), group[-1].end + after, tuple(group))
        for group, (before, after) in zip(groups, pairwise(margins), strict=False)
    ]


def _packed(spans: list[Span]) -> Iterator[list[Span]]:
    group: list[Span] = []
    for span in spans:
        if group and not _goes_on(group, span):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _goes_on(group: list[Span], span: Span) -> bool:
    return span.end - group[0].start <= LONGEST and span.start - group[-1].end < PAUSE


def _short_spans(per_window: Samples) -> Iterator[Span]:
    """Yield the spans of speech; those without a pause are cut where speech is least probable."""
    for span in vad.spans(per_window, threshold=THRESHOLD):
        start = span.start
        while span.end - start > LONGEST:
            first, behind = vad.window_at(start + LONGEST / 2), vad.window_at(start + LONGEST)
            cut = vad.seconds_at(first + int(per_window[first:behind].argmin()))
            yield Span(start, cut, span.prob)
            start = cut
        yield Span(start, span.end, span.prob)

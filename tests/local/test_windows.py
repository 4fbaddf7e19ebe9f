from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_lib.audio.decoding import Samples
from stt_lib.local import vad
from stt_lib.local.vad import LISTENING_THRESHOLD, LONGEST, PADDING, PAUSE, windows

STRETCHES = st.lists(st.tuples(st.integers(1, 1500), st.sampled_from([0.0, 0.3, 0.45, 0.9])))


def detected(*stretches: tuple[float, float]) -> Samples:
    """Stretches of seconds with the same probability of speech."""
    parts = [np.full(vad.window_at(seconds), prob, np.float32) for seconds, prob in stretches]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def times(per_window: Samples) -> list[tuple[float, float]]:
    return [(round(w.start, 1), round(w.end, 1)) for w in windows(per_window)]


def test_no_speech_no_windows() -> None:
    assert windows(detected()) == []
    assert windows(detected((60, 0.2))) == []


def test_sentences_share_a_window_until_it_is_full() -> None:
    per_window = detected(*[(10, 0.9), (0.5, 0.0)] * 5)
    assert times(per_window) == [(0, 20.6), (20.7, 41.6), (41.7, 52.0)]


def test_no_window_goes_on_across_a_long_pause() -> None:
    assert times(detected((5, 0.9), (2.1, 0.0), (5, 0.9))) == [(0, 5.2), (6.9, 12.3)]
    assert times(detected((5, 0.9), (1.9, 0.0), (5, 0.9))) == [(0, 12.1)]


def test_speech_without_a_pause_is_cut_where_it_is_least_probable() -> None:
    first, second = windows(detected((20, 0.9), (0.1, 0.4), (20, 0.9)))
    assert first.end == second.start == pytest.approx(20.05, abs=0.1)


@given(STRETCHES)
def test_windows_hold_all_speech_and_hold_it_once(stretches: list[tuple[int, float]]) -> None:
    per_window = np.concatenate(
        [np.zeros(0, np.float32), *(np.full(n, prob, np.float32) for n, prob in stretches)]
    )
    found = windows(per_window)
    for window in found:
        assert 0 <= window.spans[0].start - window.start <= PADDING + 1e-9
        assert 0 <= window.end - window.spans[-1].end <= PADDING + 1e-9
        assert window.spans[-1].end - window.spans[0].start <= LONGEST + 1e-9
        assert all(b.start - a.end < PAUSE for a, b in pairwise(window.spans))
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(found))
    held = sum(span.end - span.start for window in found for span in window.spans)
    spans = vad.spans(per_window, threshold=LISTENING_THRESHOLD)
    assert held == pytest.approx(sum(span.end - span.start for span in spans))

"""Where somebody speaks, according to the Silero detector that faster-whisper ships."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from faster_whisper.vad import get_vad_model

from stt_lib.audio.decoding import WHISPER_RATE, Samples, regrouped

WINDOW = 512
"""Samples (32 ms at 16 kHz) that the detector judges at a time."""

BLOCK = 1024 * WINDOW
"""Samples (33 s) per call of the detector, so that memory does not grow with the recording."""

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


class Span(NamedTuple):
    """A stretch of speech; seconds from the start of the sound, `prob` where it is highest."""

    start: float
    end: float
    prob: float


def probabilities(blocks: Iterable[Samples]) -> Samples:
    """Return the probability of speech in each window of mono sound at 16 kHz."""
    session = get_vad_model().session
    h = c = np.zeros((1, 1, 128), np.float32)
    context = np.zeros((1, CONTEXT), np.float32)
    found = [np.zeros(0, np.float32)]
    for block in regrouped(blocks, BLOCK):
        windows = np.pad(block, (0, -block.size % WINDOW)).reshape(-1, WINDOW)
        contexts = np.concatenate([context, windows[:, -CONTEXT:]])
        sound = np.concatenate([contexts[:-1], windows], axis=1)
        output, h, c = session.run(None, {"input": sound, "h": h, "c": c})
        found.append(output.reshape(-1))
        context = contexts[-1:]
    return np.concatenate(found)


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
    return window * WINDOW / WHISPER_RATE


def window_at(seconds: float) -> int:
    return int(seconds * WHISPER_RATE / WINDOW)

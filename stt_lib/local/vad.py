"""Is anybody speaking in this chunk? Asked of the Silero detector that faster-whisper ships."""

import numpy as np
from faster_whisper.vad import get_vad_model

from stt_lib.audio.decoding import Samples

WINDOW = 512
"""Samples (32 ms at 16 kHz) that the detector judges at a time."""

SPAN = 8
"""Windows that have to agree: a quarter of a second, a short word."""

THRESHOLD = 0.5


def speech_probability(audio: Samples) -> float:
    """Return how probable speech is where it is most probable; `audio` is mono at 16 kHz.

    The highest mean over a quarter of a second, because a click can lift a single window.
    """
    if not audio.size:
        return 0.0
    per_window = get_vad_model()(_whole_windows(audio)).reshape(-1)
    sums = np.convolve(per_window, np.ones(SPAN), mode="valid")
    return round(float(np.max(sums)) / SPAN, 4)


def has_speech(probability: float) -> bool:
    """Give the verdict that is stored beside the probability."""
    return probability >= THRESHOLD


def _whole_windows(audio: Samples) -> Samples:
    """Fill up with silence; also a copy, because the detector writes into what it is given."""
    missing = max(-audio.size % WINDOW, SPAN * WINDOW - audio.size)
    return np.pad(audio, (0, missing))

"""What each piece of evidence is worth: the one table of the filter.

A segment's points are added up: plus says that nobody spoke, minus that somebody did. It is
dropped when they reach the threshold. No score that servers or detectors give can drop a segment
alone, and none can keep a telltale phrase; evidence that is not there counts nothing.

The points were chosen by what the models tiny.en and base wrote in one half of a set of noises and
short answers, and tested on the other half: see tests/benchmarks/phantoms.
"""

from bisect import bisect_right
from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """What a segment is judged by; stored with those that are dropped."""

    BLANK = "blank"
    """It has neither letters nor digits."""
    SOUND_TAG = "sound_tag"
    """It says what can be heard, as [music], not what is said."""
    KNOWN_PHRASE = "known_phrase"
    """The whole of it is a phrase that nobody says to a recorder."""
    COMMON_PHRASE = "common_phrase"
    """The whole of it is a phrase that people say, but the model writes under noise as well."""
    OWN_PHRASE = "own_phrase"
    """The person who runs the filter wants this phrase kept."""
    SHORT = "short"
    """How few words it has."""
    ALONE = "alone"
    """Nothing longer was said anywhere near it."""
    NO_SPEECH_PROB = "no_speech_prob"
    AVG_LOGPROB = "avg_logprob"
    COMPRESSION_RATIO = "compression_ratio"
    """The server's, of all that it heard in half a minute."""
    LOOP = "loop"
    """How much shorter its own text gets by compression: it says the same over and over."""
    REPEATED = "repeated"
    """It says again what the segment before it has said."""
    WORDS_PER_SECOND = "words_per_second"
    VAD_PROB = "vad_prob"
    """What the detector that marked the chunks thought of those underneath."""
    LANGUAGE = "language"
    """It is in another language, or alphabet, than what is around it."""
    LANGUAGE_PROB = "language_prob"
    """The server was not sure what language it heard."""


THRESHOLDS: Final[Mapping[str, float]] = {"strict": 2.5, "normal": 3.0}
"""Points at which a segment is dropped."""

POINTS: Final[Mapping[Reason, float]] = {
    Reason.BLANK: 10.0,
    Reason.SOUND_TAG: 10.0,
    Reason.KNOWN_PHRASE: 7.0,
    Reason.COMMON_PHRASE: 2.0,
    Reason.OWN_PHRASE: -20.0,
    Reason.ALONE: 1.0,
    Reason.LANGUAGE: 1.5,
}
"""Of what is there or is not."""

_Steps = tuple[tuple[float, ...], tuple[float, ...]]


def _steps(*rows: tuple[float, float]) -> _Steps:
    """Rows of (from this value on, so many points), in rising order of the values."""
    limits, points = zip(*rows, strict=True)
    return limits, points


_LEAST: Final = float("-inf")

STEPS: Final[Mapping[Reason, _Steps]] = {
    Reason.SHORT: _steps((_LEAST, 0.5), (3, 0.0)),  # words
    Reason.NO_SPEECH_PROB: _steps((_LEAST, -1.0), (0.3, -0.5), (0.6, 1.0), (0.8, 2.0)),
    Reason.AVG_LOGPROB: _steps((_LEAST, 0.5), (-1.5, 0.0), (-0.5, -0.5)),
    Reason.COMPRESSION_RATIO: _steps((_LEAST, 0.0), (2.4, 1.0)),
    Reason.LOOP: _steps((_LEAST, 0.5), (2.4, 2.0), (4.0, 3.5)),
    Reason.REPEATED: _steps((_LEAST, 0.0), (1, 0.5), (2, 2.0), (4, 3.5)),  # times before
    Reason.WORDS_PER_SECOND: _steps((_LEAST, 0.0), (7.0, 1.5)),
    Reason.VAD_PROB: _steps((_LEAST, 2.0), (0.3, 1.5), (0.5, 0.5), (0.7, -0.5), (0.9, -2.0)),
    Reason.LANGUAGE_PROB: _steps((_LEAST, 0.5), (0.5, 0.0)),
}
"""Of what can be measured."""


def points_of(reason: Reason, value: float) -> float:
    """The points that a measured value gives."""
    limits, points = STEPS[reason]
    return points[bisect_right(limits, value) - 1]

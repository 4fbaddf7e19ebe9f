"""What each piece of evidence is worth: the filter's one table.

A segment's points are added up. Positive points say that nobody spoke, negative ones that somebody
did; a segment that reaches the threshold is dropped. No score from a server or a detector can drop
a segment on its own, or save a telltale phrase. Missing evidence counts for nothing.

The points were chosen on what the models tiny.en and base wrote for one half of a set of noises
and short answers, and tested on the other half: see tests/benchmarks/phantoms.
"""

from bisect import bisect_right
from collections.abc import Mapping
from enum import StrEnum
from operator import itemgetter
from typing import Final, NamedTuple


class Reason(StrEnum):
    """Kinds of evidence; stored with each dropped segment, and explained by `in_words`."""

    BLANK = "blank"
    SOUND_TAG = "sound_tag"
    KNOWN_PHRASE = "known_phrase"
    COMMON_PHRASE = "common_phrase"
    OWN_PHRASE = "own_phrase"
    SHORT = "short"
    """Number of words, without repetitions."""
    ALONE = "alone"
    NO_SPEECH_PROB = "no_speech_prob"
    AVG_LOGPROB = "avg_logprob"
    COMPRESSION_RATIO = "compression_ratio"
    """The server's ratio, which covers a whole window of up to 30 s."""
    LOOP = "loop"
    """The compression ratio of the text, or the number of rounds if it is short."""
    REPEATED = "repeated"
    WORDS_PER_SECOND = "words_per_second"
    VAD_PROB = "vad_prob"
    """The ingester's probability of speech for the chunks under the segment."""
    LANGUAGE = "language"
    LANGUAGE_PROB = "language_prob"


class Clue(NamedTuple):
    """One piece of evidence: its points, and the measured value behind them if there is one."""

    reason: Reason
    points: float
    value: float | None = None


THRESHOLDS: Final[Mapping[str, float]] = {"strict": 2.5, "normal": 3.0}
"""Points at which a segment is dropped, by filter level."""

POINTS: Final[Mapping[Reason, float]] = {
    Reason.BLANK: 10.0,
    Reason.SOUND_TAG: 10.0,
    Reason.KNOWN_PHRASE: 7.0,
    Reason.COMMON_PHRASE: 2.0,
    Reason.OWN_PHRASE: -20.0,
    Reason.ALONE: 1.0,
    Reason.LANGUAGE: 1.5,
}
"""Points for evidence that is either present or absent."""

_LEAST: Final = float("-inf")

STEPS: Final[Mapping[Reason, tuple[tuple[float, float], ...]]] = {
    Reason.SHORT: ((_LEAST, 0.5), (3, 0.0)),  # words
    Reason.NO_SPEECH_PROB: ((_LEAST, -1.0), (0.3, -0.5), (0.6, 1.0), (0.8, 2.0)),
    Reason.AVG_LOGPROB: ((_LEAST, 2.0), (-2.5, 1.0), (-2.0, 0.5), (-1.5, 0.0), (-0.5, -0.5)),
    Reason.COMPRESSION_RATIO: ((_LEAST, 0.0), (2.4, 1.0)),
    Reason.LOOP: ((_LEAST, 0.5), (2.4, 2.0), (4.0, 3.5)),
    Reason.REPEATED: ((_LEAST, 0.0), (1, 0.5), (2, 2.0), (4, 3.5)),  # preceding segments
    Reason.WORDS_PER_SECOND: ((_LEAST, 0.0), (7.0, 1.5)),
    Reason.VAD_PROB: ((_LEAST, 2.0), (0.3, 1.5), (0.7, -0.5), (0.9, -2.0)),
    Reason.LANGUAGE_PROB: ((_LEAST, 0.5), (0.5, 0.0)),
}
"""Points for measured evidence: pairs of the lowest value and its points, in rising order."""


def clue(reason: Reason, value: float | None = None) -> Clue:
    """Weigh a piece of evidence: its measured value, or None if it is present or absent."""
    if value is None:
        return Clue(reason, POINTS[reason])
    steps = STEPS[reason]
    _, points = steps[bisect_right(steps, value, key=itemgetter(0)) - 1]
    return Clue(reason, points, value)


_WORDS: Final[Mapping[Reason, str]] = {
    Reason.BLANK: "contains no words",
    Reason.SOUND_TAG: "names a sound, not speech",
    Reason.KNOWN_PHRASE: "a phrase that Whisper writes under noise and nobody says to a recorder",
    Reason.COMMON_PHRASE: "a phrase that people say, but that Whisper also writes under noise",
    Reason.OWN_PHRASE: "your phrase file says to keep it",
    Reason.SHORT: "number of words: {:.0f}",
    Reason.ALONE: "no longer speech nearby",
    Reason.NO_SPEECH_PROB: "no_speech_prob of the model: {:.2f}",
    Reason.AVG_LOGPROB: "avg_logprob of the model: {:.2f}",
    Reason.COMPRESSION_RATIO: "compression_ratio of the server: {:.1f}",
    Reason.LOOP: "the text repeats itself, at least {:.1f} times",
    Reason.REPEATED: "identical segments before it: {:.0f}",
    Reason.WORDS_PER_SECOND: "words per second: {:.1f}",
    Reason.VAD_PROB: "the detector's probability of speech: {:.2f}",
    Reason.LANGUAGE: "not in the language around it",
    Reason.LANGUAGE_PROB: "confidence in the detected language: {:.2f}",
}


def in_words(evidence: Clue) -> str:
    """Describe one piece of evidence for a person, points first."""
    return f"{evidence.points:+.1f} {_WORDS[evidence.reason].format(evidence.value)}"

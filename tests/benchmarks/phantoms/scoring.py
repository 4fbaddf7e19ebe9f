"""How many phantoms a filter leaves and how many true words it costs."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stt_lib import filtering
from stt_lib.domain.models import Detection, Segment
from stt_lib.domain.text import normal_form
from stt_lib.filtering import Surroundings
from tests.benchmarks.phantoms.cases import CHUNK_SECONDS
from tests.benchmarks.phantoms.first_filter import kept_at_first
from tests.benchmarks.phantoms.hearing import Heard

Judge = Callable[[Sequence[Segment], Surroundings], list[bool]]
"""Says of each segment whether it is kept."""

NEAR_SECONDS = 1.0
"""Whisper's times are off by so much."""

FASTEST = 10
"""Words per second."""


def _by(level: filtering.Level) -> Judge:
    policy = filtering.policy(level)

    def judge(segments: Sequence[Segment], around: Surroundings) -> list[bool]:
        kept = filtering.judge(segments, around, policy).kept
        return [any(_begins_with(segment, part) for part in kept) for segment in segments]

    return judge


def _begins_with(segment: Segment, part: Segment) -> bool:
    """A loop that is cut down to its first round counts as kept."""
    return part.start == segment.start and segment.text.startswith(part.text)


FILTERS: dict[str, Judge] = {
    "off": _by("off"),
    "the first filter": lambda segments, _: kept_at_first(segments),
    "normal": _by("normal"),
    "strict": _by("strict"),
}


@dataclass(frozen=True)
class Known:
    """What is given besides the text: the server's scores, the detector's probabilities."""

    name: str
    scores: bool = False
    detector: bool = False
    fooled: bool = False
    """Whether the detector takes everything for speech, with probability `FOOLED`."""


FOOLED = 0.95
ALL = Known("scores and vad.prob", scores=True, detector=True)
TEXT = Known("text only")
CONDITIONS = (
    ALL,
    Known("scores, vad.prob 0.95 everywhere", scores=True, fooled=True),
    Known("scores only", scores=True),
    Known("vad.prob only", detector=True),
    TEXT,
)


@dataclass
class Confusion:
    """Segments, and words of the true ones."""

    phantoms_dropped: int = 0
    phantoms_left: int = 0
    true_kept: int = 0
    true_lost: int = 0
    words_kept: int = 0
    words_lost: int = 0
    quiet: int = 0
    """Cases in which nobody speaks …"""
    quiet_with_text: int = 0
    """… and of which a transcript is made all the same."""

    def add(self, is_true: bool, is_kept: bool, words: int) -> None:
        if not is_true:
            self.phantoms_left += is_kept
            self.phantoms_dropped += not is_kept
            return
        self.true_kept += is_kept
        self.true_lost += not is_kept
        self.words_kept += words * is_kept
        self.words_lost += words * (not is_kept)

    @property
    def precision(self) -> float:
        """Of what was dropped, the share of phantoms."""
        dropped = self.phantoms_dropped + self.true_lost
        return self.phantoms_dropped / dropped if dropped else 1.0

    @property
    def recall(self) -> float:
        """Of the phantoms, the share that was dropped."""
        phantoms = self.phantoms_dropped + self.phantoms_left
        return self.phantoms_dropped / phantoms if phantoms else 1.0


def confusion(heard: Iterable[Heard], judge: Judge, known: Known) -> Confusion:
    """Count over cases; segments without any word count on neither side."""
    counted = Confusion()
    for case in heard:
        segments, around = given(case, known)
        kept = judge(segments, around)
        for segment, is_kept in zip(segments, kept, strict=True):
            words = len(normal_form(segment.text).split())
            if words:
                counted.add(is_true(case, segment), is_kept, words)
        counted.quiet += not case["spoken"]
        counted.quiet_with_text += not case["spoken"] and any(kept)
    return counted


def given(case: Heard, known: Known) -> tuple[list[Segment], Surroundings]:
    """What the filter is told of a case."""
    segments = [Segment(**segment) for segment in case["segments"]]
    language_prob: float | None = dict(case["top_language_probs"]).get(case["language"])
    if not known.scores:
        segments = [Segment(segment.start, segment.end, segment.text) for segment in segments]
        language_prob = None
    edges = [float(CHUNK_SECONDS * i) for i in range(len(case["chunks"]) + 1)]
    unknown = FOOLED if known.fooled else None
    probs = case["chunks"] if known.detector else [unknown] * len(case["chunks"])
    detections = tuple(
        Detection(*span, prob) for span, prob in zip(pairwise(edges), probs, strict=True)
    )
    return segments, Surroundings(case["language"], language_prob, detections)


def is_true(case: Heard, segment: Segment) -> bool:
    """Whether somebody speaks there: a word of it is said near by, or it is mostly speech.

    Of an answer that stands alone the times are often far off, but nothing else can be meant.
    Faster than `FASTEST` nobody speaks.
    """
    if len(segment.text.split()) > FASTEST * max(segment.end - segment.start, 1.0):
        return False
    if case["group"] == "alone":
        return True
    said: set[str] = set()
    spoken_seconds = 0.0
    for start, end, text in case["spoken"]:
        if start - NEAR_SECONDS <= segment.end and end + NEAR_SECONDS >= segment.start:
            said.update(_words(text))
            spoken_seconds += max(0.0, min(end, segment.end) - max(start, segment.start))
    if said & set(_words(segment.text)):
        return True
    return spoken_seconds >= min(0.3 * (segment.end - segment.start), 0.5)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())

"""The hallucination filter: decides which of a server's segments are speech.

Whisper also writes text where nobody speaks. No single clue decides: `weigh` collects evidence on
each segment, `weights` says what each piece is worth, and `judge` adds it up. All of it is pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stt_lib.domain.models import Dropped, Segment
from stt_lib.filtering import phrases as lists
from stt_lib.filtering.evidence import Surroundings, is_word_loop, weigh
from stt_lib.filtering.weights import THRESHOLDS, Clue, Reason, in_words

__all__ = ["Clue", "Reason", "Surroundings", "in_words", "weigh"]

Level = Literal["strict", "normal", "off"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How to judge; without a `threshold`, only blank segments are dropped."""

    level: Level
    threshold: float | None
    phrases: lists.Phrases


@dataclass(frozen=True, slots=True)
class Verdict:
    """The segments of an answer in order, each either kept or dropped."""

    kept: tuple[Segment, ...]
    dropped: tuple[Dropped, ...]


def policy(level: Level = "normal", own_phrases: Path | None = None) -> Policy:
    """Make a policy; the operator's own phrases add to the shipped ones and override them.

    Raises:
        ConfigurationError: the phrase file cannot be used.
    """
    phrases = lists.shipped()
    if own_phrases is not None:
        phrases |= lists.own(own_phrases)
    return Policy(level, THRESHOLDS.get(level), phrases)


def judge(segments: Sequence[Segment], around: Surroundings, by: Policy) -> Verdict:
    """Separate speech from hallucinations.

    A kept segment that repeats one word over and over is cut to the first of them, because models
    often repeat a short answer that somebody did give.
    """
    kept: list[Segment] = []
    dropped: list[Dropped] = []
    for segment, clues in zip(segments, weigh(segments, around, by.phrases), strict=True):
        if is_dropped(clues, by):
            dropped.append(_dropped(segment, clues))
        elif by.threshold is not None and is_word_loop(segment.text):
            first, others = _first_round(segment)
            kept.append(first)
            dropped.append(_dropped(others, clues))
        else:
            kept.append(segment)
    return Verdict(tuple(kept), tuple(dropped))


def _first_round(segment: Segment) -> tuple[Segment, Segment]:
    """Split a loop of one word behind its first round."""
    spellings = segment.text.split()
    at = segment.text.index(spellings[0]) + len(spellings[0])
    first, others = segment.words[:1], segment.words[1:]
    share = (segment.end - segment.start) / len(spellings)
    end = first[0].end if first else segment.start + share
    start = others[0].start if others else end
    return (
        replace(segment, end=end, text=segment.text[:at], words=first),
        replace(segment, start=start, text=segment.text[at:], words=others),
    )


def is_dropped(clues: Sequence[Clue], by: Policy) -> bool:
    """Whether the evidence on a segment is enough to drop it."""
    if by.threshold is None:
        return any(clue.reason is Reason.BLANK for clue in clues)
    return score(clues) >= by.threshold


def score(clues: Sequence[Clue]) -> float:
    """Add up the points."""
    return sum([clue.points for clue in clues])


def _dropped(segment: Segment, clues: Sequence[Clue]) -> Dropped:
    """Record the evidence against a segment, the strongest first."""
    against = sorted((c for c in clues if c.points > 0), key=lambda c: c.points, reverse=True)
    return Dropped(segment, tuple(str(clue.reason) for clue in against), score(clues))

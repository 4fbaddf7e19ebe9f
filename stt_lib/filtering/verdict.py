"""The verdict: which segments are speech, from the evidence and one threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stt_lib.domain.models import Dropped, Segment
from stt_lib.filtering import phrases as lists
from stt_lib.filtering.evidence import Clue, Surroundings, weigh
from stt_lib.filtering.phrases import Phrases
from stt_lib.filtering.weights import THRESHOLDS, Reason

Level = Literal["strict", "normal", "off"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How to judge; without a `threshold` only blank segments are dropped."""

    level: Level
    threshold: float | None
    phrases: Phrases


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every segment of an answer, in order, on one side or the other."""

    kept: tuple[Segment, ...]
    dropped: tuple[Dropped, ...]


def policy(level: Level = "normal", own_phrases: Path | None = None) -> Policy:
    """Make a policy; a person's own phrases add to those that come with stt, and win.

    Raises:
        ConfigurationError: the file of phrases cannot be used.
    """
    phrases = lists.shipped()
    if own_phrases is not None:
        phrases |= lists.own(own_phrases)
    return Policy(level, THRESHOLDS.get(level), phrases)


def judge(segments: Sequence[Segment], around: Surroundings, by: Policy) -> Verdict:
    """Separate speech from what the model makes up."""
    kept: list[Segment] = []
    dropped: list[Dropped] = []
    for segment, clues in zip(segments, weigh(segments, around, by.phrases), strict=True):
        if is_dropped(clues, by):
            dropped.append(_dropped(segment, clues))
        else:
            kept.append(segment)
    return Verdict(tuple(kept), tuple(dropped))


def is_dropped(clues: Sequence[Clue], by: Policy) -> bool:
    """Whether the evidence on a segment is enough to drop it."""
    if by.threshold is None:
        return any(clue.reason is Reason.BLANK for clue in clues)
    return score(clues) >= by.threshold


def score(clues: Sequence[Clue]) -> float:
    return sum([clue.points for clue in clues])


def _dropped(segment: Segment, clues: Sequence[Clue]) -> Dropped:
    """With what spoke against it, the strongest first."""
    against = sorted((c for c in clues if c.points > 0), key=lambda c: c.points, reverse=True)
    return Dropped(segment, tuple(str(clue.reason) for clue in against), score(clues))

"""The hallucination filter: decides which of a server's segments are speech.

Whisper also writes text where nobody speaks. No single clue decides: `weigh` collects evidence on
each segment, `weights` says what each piece is worth, and `judge` adds it up. All of it is pure.
"""

from stt_lib.domain.text import normal_form
from stt_lib.filtering.evidence import Surroundings, weigh
from stt_lib.filtering.verdict import Level, Policy, Verdict, is_dropped, judge, policy, score
from stt_lib.filtering.weights import Clue, Reason, in_words

__all__ = [
    "Clue",
    "Level",
    "Policy",
    "Reason",
    "Surroundings",
    "Verdict",
    "in_words",
    "is_dropped",
    "judge",
    "normal_form",
    "policy",
    "score",
    "weigh",
]

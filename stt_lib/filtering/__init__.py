"""Which of the server's segments are speech: evidence is weighed, nothing is decided by one clue.

Whisper writes text under noise and silence, too. `judge` is a pure function from segments, and
what is known around them, to a verdict; `weights` is the table that it goes by.
"""

from stt_lib.domain.text import normal_form
from stt_lib.filtering.evidence import Clue, Surroundings, weigh
from stt_lib.filtering.verdict import Level, Policy, Verdict, is_dropped, judge, policy, score
from stt_lib.filtering.weights import Reason
from stt_lib.filtering.wording import in_words

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

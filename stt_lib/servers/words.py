"""Words and their times, as far as a server gives them: inside its segments, or in a list beside.

They are an extra: what is wrong with them never costs the text.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stt_lib.domain.models import Segment, Word


def read(value: object, length: float | None) -> tuple[Word, ...]:
    """Words from `[{"word", "start", "end", "probability"}, …]`; none if that is something else.

    Their times lie within the audio of `length` seconds and never run backwards.
    """
    rows = value if isinstance(value, list) else []
    words: list[Word] = []
    earliest = 0.0
    for row in rows:
        word = _word(row, earliest, math.inf if length is None else length)
        if word is None:
            return ()
        words.append(word)
        earliest = word.start
    return tuple(words)


_ROW = ("start", "end", "word", "probability")
"""The order of faster-whisper's words as tuples."""


def _word(row: Any, earliest: float, latest: float) -> Word | None:
    if isinstance(row, list):
        row = dict(zip(_ROW, row, strict=False))
    if not isinstance(row, dict):
        return None
    text = row.get("word", row.get("text"))
    start, end = _number(row.get("start")), _number(row.get("end"))
    if not isinstance(text, str) or not text.strip() or start is None or end is None:
        return None
    start = min(max(start, earliest), latest)
    probability = _number(row.get("probability", row.get("score")))
    return Word(start, min(max(start, end), latest), text, probability)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def shared_out(segments: Sequence[Segment], words: Sequence[Word]) -> tuple[Segment, ...]:
    """Give each segment its words from one list for all: by their number, else by their times."""
    counts = [len(segment.text.split()) for segment in segments]
    if sum(counts) != len(words):
        return tuple(
            replace(segment, words=_between(words, segment, following))
            for segment, following in zip(segments, [*segments[1:], None], strict=True)
        )
    given: list[Segment] = []
    at = 0
    for segment, count in zip(segments, counts, strict=True):
        given.append(replace(segment, words=tuple(words[at : at + count])))
        at += count
    return tuple(given)


def _between(
    words: Sequence[Word], segment: Segment, following: Segment | None
) -> tuple[Word, ...]:
    """What begins in the segment or in the pause behind it."""
    beyond = math.inf if following is None else following.start
    return tuple(word for word in words if segment.start <= word.start < beyond)


def whole(tokens: Sequence[Word]) -> tuple[Word, ...]:
    """Words from a model's tokens: what follows without a blank belongs to the one before."""
    words: list[Word] = []
    for token in tokens:
        if words and not token.text[0].isspace():
            last = words[-1]
            words[-1] = replace(last, end=token.end, text=last.text + token.text)
        else:
            words.append(token)
    return tuple(words)

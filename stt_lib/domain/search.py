"""Full-text search: what a person typed, and where in a transcript it was said."""

import dataclasses
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final

from stt_lib.domain.text import FIRST_UNSPACED, one_line
from stt_lib.domain.utterances import Stretch

NEAR: Final = 300
"""Characters. Maximum distance between words that are searched for together: about 20 s."""

AROUND: Final = 60
"""Characters. Length of the text that is shown on each side of a hit."""

_LAST_WITH_ACCENTS: Final = "\u1fff"
_TERM: Final = re.compile(r'"([^"]*)"|([^"\s]+)')


@dataclass(frozen=True, slots=True)
class Hit:
    """Where something was said; `start` (UTC) is that of its segment."""

    start: datetime
    recording: str
    transcript: str
    before: str
    text: str
    after: str


@dataclass(frozen=True, slots=True)
class Query:
    """Words and phrases that were all said near each other."""

    terms: tuple[tuple[str, ...], ...]

    @property
    def rarest(self) -> str:
        """The longest word, preferably of a script with spaces: a text index holds only those."""
        words = [word for term in self.terms for word in term]
        return max(words, key=lambda word: (is_spaced(word), len(word)))

    def is_in(self, text: str) -> bool:
        """Whether a text contains all terms, at any distance; fast."""
        folded = _folded(unicodedata.normalize("NFC", text))
        return all(_pattern(term).search(folded) for term in self.terms)

    def hits(self, stretch: Stretch) -> Iterator[Hit]:
        """Yield the places in a transcript, newest first; phrases may span segments."""
        said = [dataclasses.replace(u, text=one_line(u.text)) for u in stretch.utterances]
        starts = [0, *accumulate(len(u.text) + 1 for u in said)]
        text = " ".join(u.text for u in said)
        for start, end in reversed(self._places(_folded(text))):
            utterance = said[bisect_right(starts, start) - 1]
            yield Hit(
                utterance.start,
                utterance.recording,
                utterance.transcript,
                _tail(text[:start]),
                text[start:end],
                _head(text[end:]),
            )

    def _places(self, text: str) -> list[tuple[int, int]]:
        first, *others = map(_pattern, self.terms)
        places: list[tuple[int, int]] = []
        for match in first.finditer(text):
            start, end = match.span()
            is_new = not others or not places or start >= places[-1][1] + NEAR
            if is_new and all(_is_near(start, end, pattern, text) for pattern in others):
                places.append((start, end))
        return places


def query(arguments: Sequence[str]) -> Query:
    """Read what was typed: words, and phrases in quotes or as one argument with spaces.

    Raises:
        ValueError: there is no word in it.
    """
    typed = [
        quoted or word
        for argument in arguments
        for quoted, word in (_TERM.findall(argument) if '"' in argument else [(argument, "")])
    ]
    terms = tuple(filter(None, map(_words, typed)))
    if not terms:
        raise ValueError("no words")
    return Query(terms)


def is_spaced(word: str) -> bool:
    """Whether the script of a word separates words by spaces."""
    return max(_folded(word)) < FIRST_UNSPACED


def _words(text: str) -> tuple[str, ...]:
    letters = (c if unicodedata.category(c)[0] in "LMN" else " " for c in one_line(text))
    return tuple("".join(letters).split())


def _folded(text: str) -> str:
    """Return a text of the same length without case and accents, as MongoDB compares it."""
    return text.lower() if text.isascii() else "".join(map(_folded_letter, text))


def _folded_letter(letter: str) -> str:
    base = unicodedata.normalize("NFD", letter)[0] if letter <= _LAST_WITH_ACCENTS else letter
    return base.lower()[0]


def _pattern(term: tuple[str, ...]) -> re.Pattern[str]:
    """Whole words, or any letters in a script without spaces."""
    words = [re.escape(_folded(word)) for word in term]
    if all(map(is_spaced, term)):
        return re.compile(r"(?<!\w)" + r"[\W_]+".join(words) + r"(?!\w)")
    return re.compile(r"[\W_]*".join(words))


def _is_near(start: int, end: int, pattern: re.Pattern[str], text: str) -> bool:
    found = pattern.search(text, max(0, start - NEAR), end + NEAR)
    return found is not None and pattern.match(text, found.start()) is not None  # not cut short


def _tail(text: str) -> str:
    """The end of a text, from the beginning of a word."""
    if len(text) <= AROUND:
        return text
    end = text[-AROUND:]
    return f"…{end[end.find(' ') + 1 :]}"


def _head(text: str) -> str:
    """The beginning of a text, to the end of a word."""
    if len(text) <= AROUND:
        return text
    beginning = text[:AROUND]
    return f"{beginning[: beginning.rfind(' ')] if ' ' in beginning.strip() else beginning}…"

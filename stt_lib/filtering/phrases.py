"""Phrases that Whisper writes where nobody speaks, read from a file that people can edit.

Each line is a phrase. Braces hold alternatives, one of which may be empty: `Thank you {so much|}`
stands for two phrases. A line in brackets says what the phrases below it are, and in which
languages: `[telltale en]`, `[common de nl]`, `[keep]`. Without languages they count in all of
them. Phrases before the first such line are telltale. Lines that begin with # are comments.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import NamedTuple

from stt_lib.domain.text import normal_form
from stt_lib.errors import ConfigurationError
from stt_lib.filtering.weights import POINTS, Reason

SHIPPED = Path(__file__).with_name("phrases.txt")
MAX_BYTES = 1_000_000
"""Bytes. Largest phrase file that is read."""
MAX_WORDS = 60
"""Words. Longest segment that is looked up; half a minute of phrases is a loop."""
MAX_VARIANTS = 10_000
"""Phrases. Most that the alternatives of one line may stand for."""

KINDS = {
    "telltale": Reason.KNOWN_PHRASE,  # nobody says it to a recorder: credits, farewells to viewers
    "common": Reason.COMMON_PHRASE,  # people say it, but Whisper also writes it under noise
    "keep": Reason.OWN_PHRASE,  # the operator wants it kept
}
"""What it means that a segment consists of phrases below such a heading."""


class Phrase(NamedTuple):
    """What a phrase means, and its languages; an empty set stands for all languages."""

    reason: Reason
    languages: frozenset[str]


class Phrases:
    """Phrases by their normal form; finds texts that consist of nothing but phrases."""

    def __init__(self, by_text: Mapping[str, Phrase]) -> None:
        self.by_text = by_text
        lengths: dict[str, set[int]] = defaultdict(set)
        for words in map(str.split, by_text):
            lengths[words[0]].add(len(words))
        self._lengths = {word: sorted(found, reverse=True) for word, found in lengths.items()}
        """In words, by the first word."""

    def __or__(self, other: "Phrases") -> "Phrases":
        """Combine both; the other's entry wins where both have a phrase."""
        return Phrases({**self.by_text, **other.by_text})

    def whole(self, words: Sequence[str]) -> Phrase | None:
        """Return the phrase that the whole text is, or the weightiest of several in a row.

        What a word repeats three times or more counts once: "Ahhhh" is "Ah", and "Hahaha" is "Ha".
        """
        if not words or len(words) > MAX_WORDS or _said_once(words[0]) not in self._lengths:
            return None
        words = [_said_once(word) for word in words]
        parts = []
        at = 0
        while at < len(words):
            length = self._longest_at(words, at)
            if not length:
                return None
            parts.append(self.by_text[" ".join(words[at : at + length])])
            at += length
        return max(parts, key=lambda part: abs(POINTS[part.reason]))

    def _longest_at(self, words: Sequence[str], at: int) -> int:
        left = len(words) - at
        for length in self._lengths.get(words[at], ()):
            if length <= left and " ".join(words[at : at + length]) in self.by_text:
                return length
        return 0


_REPEATED = re.compile(r"(\S{1,2}?)\1{2,}")
_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_HEADING = re.compile(rf"\[({'|'.join(KINDS)})((?: [a-z]{{2,3}})*)\]")


@cache
def shipped() -> Phrases:
    """Read the phrases that are shipped with stt."""
    return _parsed(SHIPPED.read_text(encoding="utf-8"), SHIPPED)


def own(path: Path) -> Phrases:
    """Read the operator's own phrases.

    Raises:
        ConfigurationError: the file cannot be read, or one of its lines is not valid.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _unusable(path, "it is larger than 1 MB")
        return _parsed(path.read_text("utf-8-sig"), path)
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise _unusable(path, "it is not UTF-8 text") from None


def _parsed(text: str, path: Path) -> Phrases:
    found: dict[str, Phrase] = {}
    reason, languages = Reason.KNOWN_PHRASE, frozenset[str]()
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if line.startswith("["):
            reason, languages = _heading(line, number, path)
        elif line and not line.startswith("#"):
            for phrase in _phrases(line, number, path):
                found[phrase] = Phrase(reason, _joined(found.get(phrase), languages))
    return Phrases(found)


def _phrases(line: str, number: int, path: Path) -> Iterator[str]:
    """The normal forms of all phrases that a line stands for."""
    parts = _ALTERNATIVES.split(line)  # text, alternatives, text, alternatives, …, text
    options = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    if prod(map(len, options)) > MAX_VARIANTS:
        raise _unusable(path, f"line {number} stands for more than {MAX_VARIANTS:,} phrases")
    for phrase in map(normal_form, map("".join, product(*options))):
        if not phrase:
            raise _unusable(path, f"line {number} has neither letters nor digits")
        yield _said_once(phrase)


def _said_once(text: str) -> str:
    return _REPEATED.sub(r"\1", text)


def _heading(line: str, number: int, path: Path) -> Phrase:
    match = _HEADING.fullmatch(line)
    if match is None:
        raise _unusable(
            path, f"line {number} is not a heading like [telltale en], [common] or [keep]"
        )
    return Phrase(KINDS[match[1]], frozenset(match[2].split()))


def _joined(known: Phrase | None, languages: frozenset[str]) -> frozenset[str]:
    """A phrase listed under several languages belongs to all of them."""
    if known is None:
        return languages
    return known.languages | languages if known.languages and languages else frozenset()


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"--filter-phrases {path} cannot be used: {why}")

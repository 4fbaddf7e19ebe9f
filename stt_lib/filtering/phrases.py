"""Phrases that Whisper writes where nobody speaks, read from a file that people can edit.

Each line is a phrase. Braces hold alternatives, one of which may be empty: `Thank you {so much|}`
stands for two phrases. A line in brackets says what the phrases below it are, and in which
languages: `[telltale en]`, `[common de nl]`, `[keep]`. Without languages they count in all of
them. Phrases before the first such line are telltale. Lines that begin with # are comments.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import product
from math import prod
from pathlib import Path

from stt_lib.domain.text import normal_form
from stt_lib.errors import ConfigurationError

SHIPPED = Path(__file__).with_name("phrases.txt")
MAX_BYTES = 1_000_000
"""Bytes. Largest phrase file that is read."""

MAX_WORDS = 60
"""Words. Longest segment that is looked up; half a minute of phrases is rather a loop."""

MAX_VARIANTS = 10_000
"""Phrases. Most that the alternatives of one line may stand for."""


class Kind(StrEnum):
    """What it means that a segment consists of such phrases."""

    TELLTALE = "telltale"
    """Nobody says it to a recorder: subtitle credits, farewells to viewers."""
    COMMON = "common"
    """People say it, but Whisper also writes it under noise."""
    KEEP = "keep"
    """The operator wants it kept."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A kind of phrase and its languages; an empty set stands for all languages."""

    kind: Kind
    languages: frozenset[str]


class Phrases:
    """Phrases by their normal form; finds texts that consist of nothing but phrases."""

    def __init__(self, by_text: Mapping[str, Phrase]) -> None:
        self.by_text = by_text
        self._lengths: dict[str, list[int]] = {}  # in words, by first word, longest first
        for text in sorted(by_text, key=lambda text: text.count(" "), reverse=True):
            lengths = self._lengths.setdefault(text.partition(" ")[0], [])
            if text.count(" ") + 1 not in lengths:
                lengths.append(text.count(" ") + 1)

    def __or__(self, other: "Phrases") -> "Phrases":
        """Combine both; the other's entry wins where both have a phrase."""
        return Phrases({**self.by_text, **other.by_text})

    def whole(self, words: Sequence[str]) -> Phrase | None:
        """Return the phrase that the whole text is, or the weightiest of several in a row."""
        if not words or words[0] not in self._lengths or len(words) > MAX_WORDS:
            return None
        parts = []
        at = 0
        while at < len(words):
            length, part = self._longest_at(words, at)
            if part is None:
                return None
            parts.append(part)
            at += length
        return min(parts, key=lambda part: _WEIGHT[part.kind])

    def _longest_at(self, words: Sequence[str], at: int) -> tuple[int, Phrase | None]:
        for length in self._lengths.get(words[at], ()):
            part = self.by_text.get(" ".join(words[at : at + length]))
            if part is not None:
                return length, part
        return 0, None


_WEIGHT = {Kind.KEEP: 0, Kind.TELLTALE: 1, Kind.COMMON: 2}

_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
_HEADING = re.compile(r"\[(telltale|common|keep)((?: [a-z]{2,3})*)\]")


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
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise _unusable(path, "it is not UTF-8 text") from None
    if len(data) > MAX_BYTES:
        raise _unusable(path, "it is larger than 1 MB")
    return _parsed(text, path)


def _parsed(text: str, path: Path) -> Phrases:
    found: dict[str, Phrase] = {}
    kind, languages = Kind.TELLTALE, frozenset[str]()
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if line.startswith("["):
            kind, languages = _heading(line, number, path)
        elif line and not line.startswith("#"):
            for phrase in _phrases(line, number, path):
                found[phrase] = Phrase(kind, _joined(found.get(phrase), languages))
    return Phrases(found)


def _phrases(line: str, number: int, path: Path) -> Iterator[str]:
    """The normal forms of all phrases that a line stands for."""
    if prod(option.count("|") + 1 for option in _ALTERNATIVES.findall(line)) > MAX_VARIANTS:
        raise _unusable(path, f"line {number} stands for more than {MAX_VARIANTS:,} phrases")
    for text in _variants(line):
        phrase = normal_form(text)
        if not phrase:
            raise _unusable(path, f"line {number} has neither letters nor digits")
        yield phrase


def _variants(line: str) -> Iterator[str]:
    parts = _ALTERNATIVES.split(line)  # text, alternatives, text, alternatives, …, text
    options = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    return map("".join, product(*options))


def _heading(line: str, number: int, path: Path) -> tuple[Kind, frozenset[str]]:
    match = _HEADING.fullmatch(line)
    if match is None:
        raise _unusable(
            path, f"line {number} is not a heading like [telltale en], [common] or [keep]"
        )
    return Kind(match[1]), frozenset(match[2].split())


def _joined(known: Phrase | None, languages: frozenset[str]) -> frozenset[str]:
    """A phrase listed under several languages belongs to all of them."""
    if known is None:
        return languages
    return known.languages | languages if known.languages and languages else frozenset()


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"--filter-phrases {path} cannot be used: {why}")

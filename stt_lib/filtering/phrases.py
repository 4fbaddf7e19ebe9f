"""Phrases that Whisper writes where nobody speaks, read from a file that people can read too.

A line is a phrase; one in brackets says what the phrases below it are, and in which languages:
`[telltale en]`, `[common de nl]`, `[keep]`. Without languages they count in every language. What
stands before the first such line is telltale. Lines that begin with # are comments.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from stt_lib.domain.text import normal_form
from stt_lib.errors import ConfigurationError

SHIPPED = Path(__file__).with_name("phrases.txt")
MAX_BYTES = 1_000_000
MAX_WORDS = 60
"""Of a segment that is looked up; half a minute of phrases in a row is more like a loop."""


class Kind(StrEnum):
    """What it means that a whole segment is a phrase."""

    TELLTALE = "telltale"
    """Nobody says that to a recorder: credits of subtitles, farewells to viewers."""
    COMMON = "common"
    """People say that, but the model also writes it under noise, again and again."""
    KEEP = "keep"
    """A person wants it kept."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase and the languages it belongs to; none: all of them."""

    kind: Kind
    languages: frozenset[str]


class Phrases:
    """Phrases by their normal form, and texts that are nothing but such phrases."""

    def __init__(self, by_text: Mapping[str, Phrase]) -> None:
        self.by_text = by_text
        self._lengths: dict[str, list[int]] = {}  # of those that begin with a word, in words
        for text in sorted(by_text, key=lambda text: text.count(" "), reverse=True):
            lengths = self._lengths.setdefault(text.partition(" ")[0], [])
            if text.count(" ") + 1 not in lengths:
                lengths.append(text.count(" ") + 1)

    def __or__(self, other: "Phrases") -> "Phrases":
        """Both; where both have a phrase, the other's counts."""
        return Phrases({**self.by_text, **other.by_text})

    def whole(self, words: Sequence[str]) -> Phrase | None:
        """The phrase that a whole text is, or the weightiest where it is several in a row."""
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

_HEADING = re.compile(r"\[(telltale|common|keep)((?: [a-z]{2,3})*)\]")


@cache
def shipped() -> Phrases:
    """Read the phrases that come with stt."""
    return _parsed(SHIPPED.read_text(encoding="utf-8"), SHIPPED)


def own(path: Path) -> Phrases:
    """Read a person's own phrases.

    Raises:
        ConfigurationError: the file cannot be read, or a line of it makes no sense.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise _unusable(path, "it is not text in UTF-8") from None
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
            phrase = normal_form(line)
            if not phrase:
                raise _unusable(path, f"line {number} has neither letters nor digits")
            found[phrase] = Phrase(kind, _joined(found.get(phrase), languages))
    return Phrases(found)


def _heading(line: str, number: int, path: Path) -> tuple[Kind, frozenset[str]]:
    match = _HEADING.fullmatch(line)
    if match is None:
        raise _unusable(path, f"line {number} is no heading: use [telltale en], [common] or [keep]")
    return Kind(match[1]), frozenset(match[2].split())


def _joined(known: Phrase | None, languages: frozenset[str]) -> frozenset[str]:
    """A phrase that stands in several languages' lists belongs to all of them."""
    if known is None:
        return languages
    return known.languages | languages if known.languages and languages else frozenset()


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"--filter-phrases {path} cannot be used: {why}")

"""Text as programs compare it and as people may safely see it."""

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

_TAG = r"\*[^*]*\*|\[[^\]]*\]|\([^)]*\)|（[^）]*）|【[^】]*】|♪[^♪]*♪?"
_ONLY_TAGS = re.compile(rf"(?:(?:{_TAG})[\s.,!?…]*)+")
FIRST_UNSPACED = "\u0e00"
"""First character (Thai) of the scripts that put no spaces between words."""
LETTERS_PER_WORD = 2
"""Letters of an average word in those scripts, Chinese and Japanese above all."""
LONGEST_UNIT = 8
"""Words. Longest unit whose repetition is looked for."""

_SPACES: Final = re.compile(r"[^\S\u00a0\u2007\u202f]+")
_UNSEEN: Final = frozenset({"Cc", "Cs"})
_BLANK: Final = frozenset({"Cc", "Cf", "Cs", "Mn", "Mc", "Me", "Zs", "Zl", "Zp"})


def one_line(text: str) -> str:
    """Return a text on one line with single spaces and without control characters.

    Control characters could steer the reader's terminal or end a subtitle early. A text of
    nothing but invisible characters comes back empty.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    spaced = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    seen = "".join(c for c in spaced if unicodedata.category(c) not in _UNSEEN and c != "\ufeff")
    is_blank = all(unicodedata.category(c) in _BLANK for c in seen)
    return "" if is_blank else _SPACES.sub(" ", seen).strip()


def normal_form(text: str) -> str:
    """Return a text for comparisons: compatibility characters folded, no case, no punctuation."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.lower().translate(_LETTERS).split())


class _Letters(dict[int, int | str | None]):
    """A translation table filled on demand: letters, marks and numbers stay."""

    def __missing__(self, code: int) -> int | str:
        is_letter = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = made = code if is_letter else " "
        return made


_LETTERS = _Letters({ord("'"): None, ord("’"): None})


def is_sound_tag(text: str) -> bool:
    """Whether a text consists of sound tags, such as [music] or *sighs*."""
    return _ONLY_TAGS.fullmatch(text.strip()) is not None


def word_count(words: list[str]) -> float:
    """Return the number of words in a split normal form, whether or not its script has spaces."""
    if max(words, default="") < FIRST_UNSPACED:
        return len(words)
    return sum(len(w) / LETTERS_PER_WORD if w[0] >= FIRST_UNSPACED else 1 for w in words)


def repeated_unit(words: Sequence[str]) -> int:
    """Return how many words a text repeats from beginning to end; 0 if it does not.

    The last round may be incomplete.
    """
    for size in range(1, min(LONGEST_UNIT, len(words) // 2) + 1):
        if all(word == words[at] for at, word in enumerate(words[size:])):
            return size
    return 0


def compression_ratio(text: str) -> float:
    """Return how many times shorter zlib makes a text, as openai/whisper defines it."""
    data = text.encode(errors="replace")
    return len(data) / len(zlib.compress(data))


def runs(
    items: Iterable[Item], begins_anew: Callable[[list[Item], Item], bool]
) -> Iterator[list[Item]]:
    """Divide items wherever `begins_anew`, given the run so far and the next item, says so."""
    run: list[Item] = []
    for item in items:
        if run and begins_anew(run, item):
            yield run
            run = []
        run.append(item)
    if run:
        yield run

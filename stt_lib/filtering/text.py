"""Text as the filter compares it: one form, its words, and how often it says the same."""

import re
import unicodedata
import zlib

_TAG = r"\*[^*]*\*|\[[^\]]*\]|\([^)]*\)|（[^）]*）|【[^】]*】|♪[^♪]*♪?"
_ONLY_TAGS = re.compile(rf"(?:(?:{_TAG})[\s.,!?…]*)+")
_FIRST_UNSPACED = "\u0e00"
"""From Thai on come the scripts that put no spaces between words: Chinese, Japanese, Korean …"""

LETTERS_PER_WORD = 2
"""Of these scripts: a Chinese or Japanese word has about two characters."""


def normal_form(text: str) -> str:
    """One form for comparing: compatibility characters folded, no case, no punctuation."""
    if text.isascii():
        return " ".join(text.lower().translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = (c if _is_word_character(c) else " " for c in folded if c not in "'’")
    return " ".join("".join(letters).split())


_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()} | {ord("'"): None}
"""The same for plain ASCII, in a tenth of the time."""


def _is_word_character(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def is_sound_tag(text: str) -> bool:
    """Whether a text says what can be heard, as [music] or *sighs*, and nothing else."""
    return _ONLY_TAGS.fullmatch(text.strip()) is not None


def word_count(words: list[str]) -> float:
    """How many words the pieces of a normal form are, spaces or not."""
    return sum(len(w) / LETTERS_PER_WORD if w[0] >= _FIRST_UNSPACED else 1 for w in words)


def without_repetition(words: list[str]) -> str:
    """A text that says one thing over and over, said once: "bye bye bye" is "bye"."""
    for period in range(1, len(words) // 2 + 1):
        if len(words) % period == 0 and words[period:] == words[:-period]:
            return " ".join(words[:period])
    return " ".join(words)


def compression_ratio(text: str) -> float:
    """How much shorter zlib makes a text, as openai/whisper defines it."""
    data = text.encode(errors="replace")
    return len(data) / len(zlib.compress(data))

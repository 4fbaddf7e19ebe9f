"""Text as it is set in lines: where it may be broken, and how wide it is.

Where scripts put no spaces between words (Chinese, Japanese), a line may end between any two
characters, except before a closing and after an opening mark (Unicode Standard Annex 14 has the
rules in full; this is the part that speech needs). Wider pieces than a line are cut between
characters, never inside one that is made of several code points.
"""

import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

WIDE: Final = 2.5
"""The width of a Chinese, Japanese or Korean character, so that 42 units hold 16 of them, which is
what Netflix's style guides allow a line of Chinese and of Korean."""

_SPACES: Final = re.compile(r"[^\S\u00a0\u2007\u202f]+")
_UNSEEN: Final = frozenset({"Cc", "Cs"})
_BLANK: Final = frozenset({"Cc", "Cf", "Cs", "Mn", "Mc", "Me", "Zs", "Zl", "Zp"})
_CLOSING: Final = frozenset({"Pe", "Pf", "Po", "Lm", "Mn", "Mc", "Me", "Sk", "Cf"})
_OPENING: Final = frozenset({"Ps", "Pi"})
_SMALL_KANA: Final = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶー")
_SPACELESS: Final = re.compile(
    r"[\u2e80-\u30ff\u31f0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
_JOINER: Final = "\u200d"
_SENTENCE_END: Final = re.compile(r"[.!?…。！？।؟۔][\"'”’»)\]」』）]*$")
_CLAUSE_END: Final = re.compile(r"[.!?…。！？।؟۔,;:，、；：،؛–—][\"'”’»)\]」』）]*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """What stays together on a line; `spaced` when a space is before it.

    `at` and `to` count the characters of the text that are no spaces, before and up to its end.
    """

    text: str
    spaced: bool
    at: int
    to: int


def clean(text: str) -> str:
    """On one line, with single spaces, without what nobody sees; empty when nothing is left.

    Control characters would steer the reader's terminal, or end a subtitle too early.
    """
    spaced = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    seen = "".join(c for c in spaced if unicodedata.category(c) not in _UNSEEN and c != "\ufeff")
    is_blank = all(unicodedata.category(c) in _BLANK for c in seen)
    return "" if is_blank else _SPACES.sub(" ", seen).strip()


def width(text: str) -> float:
    """How wide a text is, in characters of a line."""
    if text.isascii():
        return float(len(text))
    return sum(WIDE if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in text)


def ends_sentence(text: str) -> bool:
    return _SENTENCE_END.search(text) is not None


def ends_clause(text: str) -> bool:
    """Whether there is a comma or the like at its end, or the end of a sentence."""
    return _CLAUSE_END.search(text) is not None


def pieces(text: str, widest: float) -> list[Piece]:
    """A clean text in pieces no wider than `widest`."""
    found: list[Piece] = []
    for word in text.split(" "):
        spaced = bool(found)
        for part in _parts(word, widest):
            at = found[-1].to if found else 0
            found.append(Piece(part, spaced, at, at + len(part)))
            spaced = False
    return found


def _parts(word: str, widest: float) -> Iterator[str]:
    """A word cut where lines may end, and where they have to."""
    if word.isascii() and len(word) <= widest:
        yield word
        return
    part = ""
    for cluster in _clusters(word):
        may_end = bool(part) and _may_break(part[-1], cluster[0])
        if may_end or (part and width(part + cluster) > widest):
            yield part
            part = ""
        part += cluster
    yield part


def _may_break(before: str, after: str) -> bool:
    if not (_SPACELESS.match(before) or _SPACELESS.match(after)):
        return False
    is_glued = unicodedata.category(after) in _CLOSING or after in _SMALL_KANA
    return not is_glued and unicodedata.category(before) not in _OPENING


def _clusters(word: str) -> Iterator[str]:
    """Characters as people see them: with their accents, and emoji of several parts in one."""
    cluster = ""
    for c in word:
        if cluster and not _belongs(cluster, c):
            yield cluster
            cluster = ""
        cluster += c
    yield cluster


def _belongs(cluster: str, c: str) -> bool:
    if len(cluster) >= _LONGEST_CLUSTER:
        return False
    is_flag = len(cluster) == 1 and _is_regional(cluster) and _is_regional(c)
    is_mark = unicodedata.category(c) in ("Mn", "Mc", "Me") or c == _JOINER or _is_skin_tone(c)
    return is_mark or cluster[-1] == _JOINER or is_flag


_LONGEST_CLUSTER: Final = 16
"""Code points; what has more is no writing."""


def _is_regional(c: str) -> bool:
    return "\U0001f1e6" <= c <= "\U0001f1ff"


def _is_skin_tone(c: str) -> bool:
    return "\U0001f3fb" <= c <= "\U0001f3ff"


def set_behind(before: Piece, piece: Piece) -> Piece:
    """The first piece of a text, set behind another text: with a space if the script has any."""
    spaced = _is_spaced(before.text, piece.text)
    return dataclasses.replace(piece, spaced=spaced) if piece.at == 0 else piece


def run_on(texts: Sequence[str]) -> str:
    """Texts one behind the other."""
    whole = texts[0]
    for before, text in itertools.pairwise(texts):
        whole += " " * _is_spaced(before, text) + text
    return whole


def _is_spaced(before: str, after: str) -> bool:
    return not (_SPACELESS.match(before[-1]) and _SPACELESS.match(after[0]))


def joined(parts: Sequence[Piece]) -> str:
    """Pieces set on one line."""
    return "".join(" " * (part.spaced and at > 0) + part.text for at, part in enumerate(parts))


def fold(text: str, widest: float) -> Iterator[str]:
    """A clean text as a paragraph of lines no wider than `widest`."""
    line: list[Piece] = []
    used = 0.0
    for piece in pieces(text, widest):
        needed = width(piece.text) + piece.spaced
        if line and used + needed > widest:
            yield joined(line)
            line, used = [], 0.0
        used += needed if line else width(piece.text)
        line.append(piece)
    if line:
        yield joined(line)

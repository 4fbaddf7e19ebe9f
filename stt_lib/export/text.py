"""Plain text: where lines may break, how wide text is, and the transcript as paragraphs.

In scripts without spaces between words (Chinese, Japanese), a line may end between any two
characters, except before a closing and after an opening mark. Unicode Standard Annex 14 has the
rules in full; this is the part that speech needs. A piece wider than a line is divided between
characters, never inside one that consists of several code points.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from stt_lib.domain.text import runs
from stt_lib.domain.units import duration
from stt_lib.domain.utterances import Stretch, Utterance
from stt_lib.export.scope import Scope

COLUMNS: Final = 88
_INDENT: Final = " " * 12
BREATH: Final = timedelta(seconds=3)
"""Duration. Shortest pause that begins a paragraph."""
SILENCE: Final = timedelta(minutes=1)
"""Duration. Shortest pause that is mentioned."""
_LONG: Final = timedelta(seconds=45)
_TOO_LONG: Final = timedelta(seconds=90)

WIDE: Final = 2.5
"""Width of a Chinese, Japanese or Korean character: 42 units hold 16 of them, as Netflix's style
guides allow for a line of Chinese and of Korean."""

_CLOSING: Final = frozenset({"Pe", "Pf", "Po", "Lm", "Mn", "Mc", "Me", "Sk", "Cf"})
_OPENING: Final = frozenset({"Ps", "Pi"})
_SMALL_KANA: Final = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶー")
_SPACELESS: Final = re.compile(
    r"[\u2e80-\u30ff\u31f0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
_JOINER: Final = "\u200d"
_FLAG: Final = re.compile("[\U0001f1e6-\U0001f1ff]{2}$")
_SKIN_TONE: Final = re.compile("[\U0001f3fb-\U0001f3ff]")
_LONGEST_CLUSTER: Final = 16
"""Code points. Longer clusters are not writing."""
_SENTENCE_END: Final = re.compile(r"[.!?…。！？।؟۔][\"'”’»)\]」』）]*$")
_CLAUSE_END: Final = re.compile(r"[.!?…。！？।؟۔,;:，、；：،؛–—][\"'”’»)\]」』）]*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that stays together on a line; `spaced` if a space precedes it.

    `at` and `to` are its position in the text, counted in characters other than spaces.
    """

    text: str
    spaced: bool
    at: int
    to: int


def width(text: str) -> float:
    """Return the width of a text in characters of a line."""
    if text.isascii():
        return float(len(text))
    return sum(WIDE if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in text)


def ends_sentence(text: str) -> bool:
    """Whether a text ends with a full stop or the like, which a quotation mark may follow."""
    return _SENTENCE_END.search(text) is not None


def ends_clause(text: str) -> bool:
    """Whether a text ends with a comma or the like, or with the end of a sentence."""
    return _CLAUSE_END.search(text) is not None


def pieces(text: str, widest: float) -> list[Piece]:
    """Divide a clean text into pieces no wider than `widest`."""
    found: list[Piece] = []
    for word in text.split(" "):
        spaced = bool(found)
        for part in _parts(word, widest):
            at = found[-1].to if found else 0
            found.append(Piece(part, spaced, at, at + len(part)))
            spaced = False
    return found


def _parts(word: str, widest: float) -> Iterable[str]:
    """A word, divided where lines may end and where they have to."""
    if word.isascii() and len(word) <= widest:
        return [word]

    def ends_before(part: list[str], cluster: str) -> bool:
        may_end = _may_break(part[-1][-1], cluster[0])
        return may_end or width("".join([*part, cluster])) > widest

    clusters = map("".join, runs(word, _is_apart))
    return map("".join, runs(clusters, ends_before))


def _may_break(before: str, after: str) -> bool:
    if not (_SPACELESS.match(before) or _SPACELESS.match(after)):
        return False
    is_glued = unicodedata.category(after) in _CLOSING or after in _SMALL_KANA
    return not is_glued and unicodedata.category(before) not in _OPENING


def _is_apart(cluster: list[str], c: str) -> bool:
    """Whether a code point begins a character as people see them, with accents or several parts."""
    is_mark = unicodedata.category(c).startswith("M") or _SKIN_TONE.match(c) is not None
    is_glued = is_mark or _JOINER in (cluster[-1], c) or _FLAG.match("".join([*cluster, c]))
    return not is_glued or len(cluster) >= _LONGEST_CLUSTER


def run_on(texts: Sequence[str]) -> str:
    """Join texts, with spaces if the script has any."""
    whole = texts[0]
    for before, text in itertools.pairwise(texts):
        whole += " " * is_spaced(before, text) + text
    return whole


def is_spaced(before: str, after: str) -> bool:
    """Whether the script puts a space between two texts."""
    return not (_SPACELESS.match(before[-1]) and _SPACELESS.match(after[0]))


def joined(parts: Sequence[Piece]) -> str:
    """Join pieces on one line."""
    return "".join(" " * (part.spaced and at > 0) + part.text for at, part in enumerate(parts))


def fold(text: str, widest: float) -> Iterator[str]:
    """Break a clean text into lines no wider than `widest`."""
    lines = runs(pieces(text, widest), lambda line, piece: width(joined([*line, piece])) > widest)
    return map(joined, lines)


# -- the transcript as paragraphs ---------------------------------------------------------------


def write(stretches: Iterable[Stretch], scope: Scope) -> Iterator[str]:
    """Yield a heading for each recording and day, then its paragraphs.

    Where recordings overlap, each transcript stays in one piece.
    """
    last: Utterance | None = None
    said = (utterance for stretch in stretches for utterance in stretch.utterances)
    for paragraph in runs(said, _begins_anew):
        yield _before(paragraph[0], last, scope)
        yield _set(paragraph, scope)
        last = paragraph[-1]


def _begins_anew(paragraph: list[Utterance], utterance: Utterance) -> bool:
    first, last = paragraph[0], paragraph[-1]
    lasted = utterance.end - first.start
    return (
        utterance.recording != last.recording
        or utterance.start - last.end >= BREATH
        or lasted > _TOO_LONG
        or (lasted > _LONG and ends_sentence(last.text))
    )


def _before(first: Utterance, last: Utterance | None, scope: Scope) -> str:
    """The text between two paragraphs."""
    day = scope.local(first.start).date()
    if last is None or last.recording != first.recording or scope.local(last.start).date() != day:
        heading = f"{day} · {scope.title(first.recording)} · {scope.zone_of(first.start)}"
        return ("" if last is None else "\n") + heading + "\n"
    gap = first.start - last.end
    if gap >= SILENCE:
        return f"\n{_INDENT}— {duration(gap)} without speech —\n\n"
    return "\n" if gap >= BREATH else ""


def _set(paragraph: list[Utterance], scope: Scope) -> str:
    text = run_on([utterance.text for utterance in paragraph])
    time = f"  {scope.clock(paragraph[0].start)}  "
    lines = fold(text, COLUMNS - len(_INDENT))
    return "".join(f"{_INDENT if at else time}{line}\n" for at, line in enumerate(lines))

"""How well words were heard: word errors, and what happened to the words at the seams."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer  # type: ignore[import-untyped]
from whisper_normalizer.english import EnglishTextNormalizer  # type: ignore[import-untyped]

REACH = 5
"""Words on either side of a seam that belong to it: about two seconds of speech."""

Gap = int
"""A place between two words of the reference, by the number of words before it."""


@dataclass(frozen=True)
class Part:
    """Text that was made in one piece, from the chunks `first` to `last` of a recording."""

    first: int
    last: int
    text: str


@dataclass(frozen=True)
class Score:
    """A text beside the reference; places are numbers of reference words.

    `sentences` has the number of the sentence of each reference word.
    """

    reference: tuple[str, ...]
    sentences: tuple[int, ...]
    heard: tuple[str, ...]
    lost: frozenset[int]
    misheard: frozenset[int]
    extra: tuple[Gap, ...]
    """One entry for each word too many."""
    seams: tuple[Gap, ...]
    heard_seams: tuple[int, ...]

    @property
    def errors(self) -> int:
        return len(self.lost) + len(self.misheard) + len(self.extra)

    @property
    def percent(self) -> float:
        """Word error rate."""
        return 100 * self.errors / len(self.reference)

    @property
    def words_by_sentence(self) -> list[int]:
        return [self.sentences.count(number) for number in range(self.sentences[-1] + 1)]

    @property
    def errors_by_sentence(self) -> list[int]:
        """Words too many count for the sentence before them."""
        places = [*self.lost, *self.misheard, *(max(0, gap - 1) for gap in self.extra)]
        counted = Counter(self.sentences[place] for place in places)
        return [counted[number] for number in range(self.sentences[-1] + 1)]


@dataclass(frozen=True)
class Seam:
    """What is wrong at one seam that is right in the text of the whole recording."""

    lost: int
    misheard: int
    extra: int
    reference: str
    heard: str

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.misheard or self.extra)


def words(text: str, language: str = "en") -> list[str]:
    """What is compared: Whisper's own normal form, so that rates compare with published ones."""
    return _normalizer(language)(text).split()


@cache
def _normalizer(language: str) -> Callable[[str], str]:
    made: Callable[[str], str]
    made = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    return made


def score(reference: Sequence[str], parts: Sequence[Part], language: str = "en") -> Score:
    """Align the parts of a text, in their order, with the sentences that were said.

    Between two parts is a seam if the second begins with the chunk after the last of the first.
    """
    said = [(word, n) for n, text in enumerate(reference) for word in words(text, language)]
    heard = [words(part.text, language) for part in parts]
    flat = [word for part in heard for word in part]
    joints = list(_joints(parts, [len(part) for part in heard]))
    plain, sentences = tuple(word for word, _ in said), tuple(number for _, number in said)
    if not flat:
        everything = frozenset(range(len(said)))
        return Score(plain, sentences, (), everything, frozenset(), (), (), ())
    [alignment] = jiwer.process_words(" ".join(plain), " ".join(flat)).alignments
    return Score(
        reference=plain,
        sentences=sentences,
        heard=tuple(flat),
        lost=_places(alignment, "delete"),
        misheard=_places(alignment, "substitute"),
        extra=tuple(_extra(alignment)),
        seams=tuple(_gap(alignment, joint) for joint in joints),
        heard_seams=tuple(joints),
    )


def _joints(parts: Sequence[Part], lengths: Sequence[int]) -> Iterator[int]:
    """The number of words heard before each seam."""
    before = 0
    for (part, following), length in zip(pairwise(parts), lengths, strict=False):
        before += length
        if following.first == part.last + 1:
            yield before


def _places(alignment: Iterable[jiwer.AlignmentChunk], kind: str) -> frozenset[int]:
    found = (range(c.ref_start_idx, c.ref_end_idx) for c in alignment if c.type == kind)
    return frozenset(place for places in found for place in places)


def _extra(alignment: Iterable[jiwer.AlignmentChunk]) -> Iterator[Gap]:
    for chunk in alignment:
        if chunk.type == "insert":
            yield from [chunk.ref_start_idx] * (chunk.hyp_end_idx - chunk.hyp_start_idx)


def _gap(alignment: Sequence[jiwer.AlignmentChunk], joint: int) -> Gap:
    """Where in the reference so many words have been heard."""
    for chunk in alignment:
        if joint <= chunk.hyp_end_idx:
            return int(min(chunk.ref_start_idx + joint - chunk.hyp_start_idx, chunk.ref_end_idx))
    return int(alignment[-1].ref_end_idx)


def seams(ours: Score, whole: Score) -> list[Seam]:
    """Each seam of a text, judged by the text of the whole recording at the same words.

    So errors that the model makes anyway are not counted here.
    """
    return [_seam(ours, whole, *place) for place in zip(ours.seams, ours.heard_seams, strict=True)]


def _seam(ours: Score, whole: Score, gap: Gap, joint: int) -> Seam:
    near = range(max(0, gap - REACH), min(len(ours.reference), gap + REACH))
    extra = _count(ours.extra, near) - _count(whole.extra, near)
    wrong = whole.lost | whole.misheard
    return Seam(
        lost=len((ours.lost - wrong).intersection(near)),
        misheard=len((ours.misheard - wrong).intersection(near)),
        extra=max(0, extra),
        reference=_around(ours.reference, gap),
        heard=_around(ours.heard, joint),
    )


def _count(gaps: Iterable[Gap], near: range) -> int:
    return sum(near.start <= gap <= near.stop for gap in gaps)


def _around(text: Sequence[str], place: int) -> str:
    before, after = text[max(0, place - 2 * REACH) : place], text[place : place + 2 * REACH]
    return f"{' '.join(before)} | {' '.join(after)}"

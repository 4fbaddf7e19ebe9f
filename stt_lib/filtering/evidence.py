"""What speaks for and against each segment: pure functions that look and measure."""

import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

from stt_lib.domain.models import Answer, Chunk, Segment, Stretch
from stt_lib.domain.text import compression_ratio, is_sound_tag, normal_form, word_count
from stt_lib.filtering.phrases import Kind, Phrase, Phrases
from stt_lib.filtering.weights import POINTS, Reason, points_of

SHORT_WORDS = 4
"""A segment of fewer words is brief: so are 69 % of what Whisper makes up (ICASSP 2025)."""

NEAR_SECONDS = 10.0
"""What was said so close to a segment keeps it company."""

MIN_OVERLAP = 0.25
"""A chunk counts for a segment when it holds so much of it, or is so much filled by it."""

REPETITIVE_LETTERS = 40
"""Shorter texts cannot be shortened to less than half, whatever they say."""

LONG_WORD = 15
"""Words of more letters on average are none, or of a script without spaces."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known besides the segments; what is not known is None or left out.

    `language_prob` is that of `language`; `stretches` are in order.
    """

    language: str | None = None
    language_prob: float | None = None
    stretches: tuple[Stretch, ...] = ()

    @classmethod
    def of(cls, answer: Answer, chunks: Sequence[Chunk]) -> Self:
        """What surrounds the segments of an answer to a request of these chunks."""
        ends = tuple(accumulate((chunk.seconds for chunk in chunks), initial=0.0))
        return cls(
            answer.language,
            dict(answer.top_language_probs or ()).get(answer.language or ""),
            tuple(
                Stretch(start, end, chunk.prob)
                for chunk, (start, end) in zip(chunks, pairwise(ends), strict=True)
            ),
        )


class Clue(NamedTuple):
    """One piece of evidence: points for "nobody spoke", and the value that gave them, if any."""

    reason: Reason
    points: float
    value: float | None = None


class _Reading:
    """A segment as it is looked at: its text in normal form, and what phrase that is."""

    __slots__ = ("alphabet", "count", "phrase", "segment", "text", "words")

    def __init__(self, segment: Segment, phrases: Phrases) -> None:
        self.segment = segment
        self.text = normal_form(segment.text)
        self.words = self.text.split()
        self.count = word_count(self.words)
        self.phrase = phrases.whole(self.words)
        self.alphabet = _alphabet_of(max(self.text)) if self.text else None

    @property
    def is_solid(self) -> bool:
        return self.count >= SHORT_WORDS and self.phrase is None


def weigh(
    segments: Sequence[Segment], around: Surroundings, phrases: Phrases
) -> list[tuple[Clue, ...]]:
    """All evidence on each segment, in order."""
    readings = [_Reading(segment, phrases) for segment in segments]
    solid = [(r.segment.start, r.segment.end) for r in readings if r.is_solid]
    alphabet = _usual_alphabet(readings)
    starts = [stretch.start for stretch in around.stretches]
    unsure = _of_language_prob(around)
    weighed = []
    repeats = 0
    before: _Reading | None = None
    for reading in readings:
        repeats = repeats + 1 if before is not None and before.text == reading.text else 0
        before = reading
        clues = [*_of_text(reading), *_of_scores(reading), *unsure]
        if repeats:
            clues.append(_measured(Reason.REPEATED, repeats))
        if not reading.is_solid and not _has_company(reading.segment, solid):
            clues.append(_ALONE)
        if _is_foreign(reading, alphabet, around.language):
            clues.append(_LANGUAGE)
        prob = _speech_underneath(reading.segment, around.stretches, starts)
        if prob is not None:
            clues.append(_measured(Reason.VAD_PROB, prob))
        weighed.append(tuple(clues))
    return weighed


def _measured(reason: Reason, value: float) -> Clue:
    return Clue(reason, points_of(reason, value), value)


def _plain(reason: Reason) -> Clue:
    return Clue(reason, POINTS[reason])


_ALONE = _plain(Reason.ALONE)
_LANGUAGE = _plain(Reason.LANGUAGE)
_BLANK = _plain(Reason.BLANK)
_SOUND_TAG = _plain(Reason.SOUND_TAG)
_PHRASES = {
    Kind.TELLTALE: _plain(Reason.KNOWN_PHRASE),
    Kind.COMMON: _plain(Reason.COMMON_PHRASE),
    Kind.KEEP: _plain(Reason.OWN_PHRASE),
}


# -- the text ---------------------------------------------------------------------------------


def _of_text(reading: _Reading) -> Iterator[Clue]:
    if is_sound_tag(reading.segment.text):
        yield _SOUND_TAG
    elif not reading.words:
        yield _BLANK
    if reading.phrase is not None:
        yield _PHRASES[reading.phrase.kind]
    yield _measured(Reason.SHORT, reading.count)
    seconds = reading.segment.end - reading.segment.start
    if seconds > 0:
        yield _measured(Reason.WORDS_PER_SECOND, reading.count / seconds)
    if _may_be_repetitive(reading):
        yield _measured(Reason.LOOP, compression_ratio(reading.segment.text))


def _has_company(segment: Segment, solid: list[tuple[float, float]]) -> bool:
    earliest, latest = segment.start - NEAR_SECONDS, segment.end + NEAR_SECONDS
    return any(start <= latest and end >= earliest for start, end in solid)


def _is_foreign(reading: _Reading, alphabet: str | None, language: str | None) -> bool:
    if reading.alphabet and alphabet and reading.alphabet != alphabet:
        return True
    return _is_of_another_language(reading.phrase, language)


def _is_of_another_language(phrase: Phrase | None, language: str | None) -> bool:
    if phrase is None or not phrase.languages or not language:
        return False
    return language not in phrase.languages


def _usual_alphabet(readings: list[_Reading]) -> str | None:
    """The alphabet of most words; None where that is not clear."""
    letters: dict[str, int] = defaultdict(int)
    for reading in readings:
        if reading.alphabet is not None:
            letters[reading.alphabet] += len(reading.text)
    if len(letters) < 2:
        return None
    most, second, *_ = sorted(letters.values(), reverse=True)
    return max(letters, key=letters.__getitem__) if most >= 2 * second else None


@lru_cache(maxsize=4096)
def _alphabet_of(character: str) -> str | None:
    """The first word of a letter's name says its alphabet; Japanese and Chinese share theirs.

    It is asked of a text's last letter in the order of Unicode, in which Latin comes first.
    """
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "?").split()[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name


# -- the server's scores --------------------------------------------------------------------


def _of_scores(reading: _Reading) -> Iterator[Clue]:
    """What lies outside the possible is a constant that some servers fill in, and no evidence."""
    segment = reading.segment
    if segment.no_speech_prob is not None and 0 < segment.no_speech_prob < 1:
        yield _measured(Reason.NO_SPEECH_PROB, segment.no_speech_prob)
    if segment.avg_logprob is not None and segment.avg_logprob < 0:
        yield _measured(Reason.AVG_LOGPROB, segment.avg_logprob)
    ratio = segment.compression_ratio
    if ratio is not None and ratio > 0 and ratio != 1:
        yield _measured(Reason.COMPRESSION_RATIO, ratio)


def _may_be_repetitive(reading: _Reading) -> bool:
    """Whether it is worth the time of compressing; text of few spaces always is."""
    if len(reading.text) < REPETITIVE_LETTERS:
        return False
    if len(reading.text) > LONG_WORD * len(reading.words):
        return True
    return 2 * len(set(reading.words)) <= len(reading.words)


def _of_language_prob(around: Surroundings) -> tuple[Clue, ...]:
    prob = around.language_prob
    if prob is None or not 0 < prob < 1:
        return ()
    return (_measured(Reason.LANGUAGE_PROB, prob),)


# -- the detector ---------------------------------------------------------------------------


def _speech_underneath(
    segment: Segment, stretches: tuple[Stretch, ...], starts: list[float]
) -> float | None:
    """The highest probability of speech among the chunks under a segment."""
    best: float | None = None
    first = max(bisect_right(starts, segment.start) - 1, 0)
    for stretch in stretches[first:]:
        if stretch.start >= segment.end and best is not None:
            break
        shared = min(segment.end, stretch.end) - max(segment.start, stretch.start)
        least = MIN_OVERLAP * min(segment.end - segment.start, stretch.end - stretch.start)
        if stretch.prob is not None and shared >= max(least, 0.0):
            best = stretch.prob if best is None else max(best, stretch.prob)
        elif stretch.start > segment.end:
            break
    return best

"""Evidence for and against each segment: pure functions that look and measure."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, pairwise
from typing import Self

from stt_lib.domain.models import Answer, Chunk, Detection, Segment
from stt_lib.domain.text import (
    compression_ratio,
    is_sound_tag,
    normal_form,
    repeated_unit,
    word_count,
)
from stt_lib.filtering.phrases import Phrases
from stt_lib.filtering.weights import Clue, Reason, clue

SHORT_WORDS = 4
"""Words. Shorter segments are brief, as are 69 % of Whisper's hallucinations (ICASSP 2025)."""
NEAR_SECONDS = 10.0
"""Seconds. Maximum distance at which a solid segment keeps a brief one company."""
MIN_OVERLAP = 0.25
"""Share of the segment or of the chunk, whichever is shorter, that both must have in common."""
REPETITIVE_LETTERS = 40
"""Letters. Compression says nothing about shorter texts, whose rounds are counted instead."""
ROUNDS = 3
"""Repetitions of several words that make a short text a loop."""
ROUNDS_OF_A_WORD = 4
"""Repetitions of one word that make a text a loop: people do say "no, no, no"."""
LONG_WORD = 15
"""Letters per word beyond which a text has no real words, or a script without spaces."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known besides the segments; unknown values are None or missing.

    `language_prob` belongs to `language`; `detections` are in order of time.
    """

    language: str | None = None
    language_prob: float | None = None
    detections: tuple[Detection, ...] = ()

    @classmethod
    def of(cls, answer: Answer, chunks: Sequence[Chunk]) -> Self:
        """Collect what surrounds the segments of an answer about these chunks."""
        ends = tuple(accumulate((chunk.seconds for chunk in chunks), initial=0.0))
        return cls(
            answer.language,
            dict(answer.top_language_probs or ()).get(answer.language or ""),
            tuple(
                Detection(start, end, chunk.prob)
                for chunk, (start, end) in zip(chunks, pairwise(ends), strict=True)
            ),
        )


class _Reading:
    """A segment prepared for weighing: its text in normal form, its rounds, its phrase."""

    def __init__(self, segment: Segment, phrases: Phrases) -> None:
        self.segment = segment
        self.text = normal_form(segment.text)
        self.words = self.text.split()
        self.count = word_count(self.words)
        self.is_long = len(self.text) >= REPETITIVE_LETTERS
        self.rounds = 1.0 if self.is_long else _rounds(self.words)
        self.brief_count = self.count / self.rounds
        self.phrase = phrases.whole(self.words)
        self.is_solid = self.brief_count >= SHORT_WORDS and self.phrase is None
        self.alphabet = _alphabet_of(max(self.text)) if self.text else None


def _rounds(words: Sequence[str]) -> float:
    """How often a text repeats its first words; 1 unless that makes it a loop."""
    size = repeated_unit(words)
    is_loop = size > 0 and len(words) >= size * (ROUNDS_OF_A_WORD if size == 1 else ROUNDS)
    return len(words) / size if is_loop else 1.0


def is_word_loop(text: str) -> bool:
    """Whether a text is one word, repeated often enough to be a loop."""
    spellings = text.split()
    if len(spellings) < ROUNDS_OF_A_WORD:
        return False
    first = normal_form(spellings[0])
    return all(normal_form(spelling) == first for spelling in spellings[1:])


def weigh(
    segments: Sequence[Segment], around: Surroundings, phrases: Phrases
) -> list[tuple[Clue, ...]]:
    """Collect all evidence on each segment, in order."""
    readings = [_Reading(segment, phrases) for segment in segments]
    solid = [(r.segment.start, r.segment.end) for r in readings if r.is_solid]
    alphabet = _usual_alphabet(readings)
    by_text = groupby(readings, key=lambda reading: reading.text)
    places = (place for _, same in by_text for place, _ in enumerate(same))
    weighed = []
    for reading, repeats in zip(readings, places, strict=True):
        clues = [*_of_text(reading), *_of_scores(reading, around.language_prob)]
        if repeats:
            clues.append(clue(Reason.REPEATED, repeats))
        if not reading.is_solid and not _has_company(reading.segment, solid):
            clues.append(clue(Reason.ALONE))
        if _is_foreign(reading, alphabet, around.language):
            clues.append(clue(Reason.LANGUAGE))
        prob = _speech_underneath(reading.segment, around.detections)
        if prob is not None:
            clues.append(clue(Reason.VAD_PROB, prob))
        weighed.append(tuple(clues))
    return weighed


# -- the text ---------------------------------------------------------------------------------


def _of_text(reading: _Reading) -> Iterator[Clue]:
    if is_sound_tag(reading.segment.text):
        yield clue(Reason.SOUND_TAG)
    elif not reading.words:
        yield clue(Reason.BLANK)
    if reading.phrase is not None:
        yield clue(reading.phrase.reason)
    yield clue(Reason.SHORT, reading.brief_count)
    seconds = reading.segment.end - reading.segment.start
    if seconds > 0:
        yield clue(Reason.WORDS_PER_SECOND, reading.count / seconds)
    if _is_worth_compressing(reading):
        yield clue(Reason.LOOP, compression_ratio(reading.segment.text))
    elif reading.rounds > 1:  # in a short text, more rounds prove no more
        yield clue(Reason.LOOP, ROUNDS)


def _is_worth_compressing(reading: _Reading) -> bool:
    """Compression takes time; a text without spaces may always be repetitive."""
    has_spaces = len(reading.text) <= LONG_WORD * len(reading.words)
    is_repetitive = 2 * len(set(reading.words)) <= len(reading.words)
    return reading.is_long and (is_repetitive or not has_spaces)


def _has_company(segment: Segment, solid: list[tuple[float, float]]) -> bool:
    earliest, latest = segment.start - NEAR_SECONDS, segment.end + NEAR_SECONDS
    return any(start <= latest and end >= earliest for start, end in solid)


def _is_foreign(reading: _Reading, alphabet: str | None, language: str | None) -> bool:
    if reading.alphabet and alphabet and reading.alphabet != alphabet:
        return True
    languages = reading.phrase.languages if reading.phrase else frozenset()
    return bool(languages and language and language not in languages)


def _usual_alphabet(readings: list[_Reading]) -> str | None:
    """The alphabet of most of the text; None unless it clearly leads another one."""
    letters: Counter[str] = Counter()
    for reading in readings:
        if reading.alphabet is not None:
            letters[reading.alphabet] += len(reading.text)
    if len(letters) < 2:
        return None
    (first, most), (_, second) = letters.most_common(2)
    return first if most >= 2 * second else None


@lru_cache(maxsize=4096)
def _alphabet_of(character: str) -> str | None:
    """The first word of a letter's Unicode name; Japanese and Chinese count as one alphabet.

    Callers pass the highest letter of a text, because Latin comes first in Unicode.
    """
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "?").split()[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name


# -- the server's scores --------------------------------------------------------------------


def _of_scores(reading: _Reading, language_prob: float | None) -> Iterator[Clue]:
    """Values at or beyond the end of their range are constants of some servers, not evidence."""
    segment = reading.segment
    if segment.no_speech_prob is not None and 0 < segment.no_speech_prob < 1:
        yield clue(Reason.NO_SPEECH_PROB, segment.no_speech_prob)
    if segment.avg_logprob is not None and segment.avg_logprob < 0:
        yield clue(Reason.AVG_LOGPROB, segment.avg_logprob)
    ratio = segment.compression_ratio
    if ratio is not None and ratio > 0 and ratio != 1:
        yield clue(Reason.COMPRESSION_RATIO, ratio)
    if language_prob is not None and 0 < language_prob < 1:
        yield clue(Reason.LANGUAGE_PROB, language_prob)


# -- the detector ---------------------------------------------------------------------------


def _speech_underneath(segment: Segment, detections: tuple[Detection, ...]) -> float | None:
    """The highest probability of speech among the chunks under a segment."""
    start, end = segment.start, segment.end
    near = [d for d in detections if d.start <= end and start < d.end]
    probs = [d.prob for d in near if d.prob is not None and _is_under(segment, d)]
    return max(probs, default=None)


def _is_under(segment: Segment, detection: Detection) -> bool:
    shared = min(segment.end, detection.end) - max(segment.start, detection.start)
    return shared >= MIN_OVERLAP * min(segment.end - segment.start, detection.end - detection.start)

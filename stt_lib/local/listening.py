"""How a window is heard: as a whole, in halves if the model is lost, and what it passes over."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from faster_whisper.transcribe import Segment, TranscriptionInfo
from faster_whisper.transcribe import Word as AlignedWord

from stt_lib.audio.decoding import WHISPER_RATE, Samples
from stt_lib.domain.text import normal_form
from stt_lib.local.vad import Span, Window, halves, part

LOOPING = 2.4
"""Compression ratio. A text that compresses better repeats itself."""

GUESSING = -1.0
"""Average log-probability of the tokens of a text; below it, the model is guessing. Both are the
thresholds of openai/whisper (whisper/transcribe.py)."""

SHORTEST_LOOP = 5
"""Tokens. The shortest loop that a model which repeats itself is kept from."""

SHORTEST_MISSED = 0.5
"""Seconds of speech without a word that the model has passed over."""

EARLY = 0.1
"""Seconds that a word may start before its speech."""

FEW = 2
"""Words. So few are not heard a second time beside the same words."""

MARGIN = 0.1
"""Seconds that a word may go on after the detector has found an end of speech."""

Hear = Callable[[Samples, str | None, int], tuple[Segment | None, TranscriptionInfo]]
"""Has the model hear a sound in a language, or in any. A number other than 0 is the length in
tokens of what the text must not repeat."""


class Word(NamedTuple):
    """A word with its leading blank; seconds from the start of the sound."""

    text: str
    start: float
    end: float
    probability: float | None = None


class Heard(NamedTuple):
    """What the model made of a window, and of stretches of it that it had passed over."""

    window: Window
    segment: Segment
    info: TranscriptionInfo
    passed_over: "tuple[Heard, ...]" = ()

    @property
    def is_looping(self) -> bool:
        """Whether the model repeats itself, or somebody who does is quoted."""
        return bool(self.segment.compression_ratio > LOOPING)

    @property
    def is_lost(self) -> bool:
        """Whether the model repeats itself or guesses."""
        return self.is_looping or bool(self.segment.avg_logprob < GUESSING)

    def words(self) -> list[Word]:
        """Return the words in order, within the speech of the window."""
        if self.segment.words is None:
            return _spread(self.segment.text, self.window)
        return [_in_speech(self.window, word) for word in self.segment.words]


def listen(
    window: Window, audio: Samples, hear: Hear, *, language: str | None = None
) -> list[Heard]:
    """Return what is said in a window: nothing, one text, or those of its parts.

    Where the model repeats itself or guesses, the halves of the window are heard instead. Whisper's
    own way out, to draw tokens at random, gives another text each time. Speech in which no word
    begins is heard once more, because the model leaves out sentences that it has just heard.
    """
    heard = _heard(window, audio, hear, language)
    if heard and heard.is_lost and (parts := halves(window)):
        return [one for half in parts for one in listen(half, audio, hear, language=language)]
    if heard and heard.is_looping:
        heard = _heard(window, audio, hear, language, no_repeat=SHORTEST_LOOP)
    if heard is None:
        return []
    return [heard._replace(passed_over=tuple(_passed_over(heard, audio, hear)))]


def _heard(
    window: Window, audio: Samples, hear: Hear, language: str | None, *, no_repeat: int = 0
) -> Heard | None:
    sound = audio[round(window.start * WHISPER_RATE) : round(window.end * WHISPER_RATE)]
    segment, info = hear(sound, language, no_repeat)
    return Heard(window, segment, info) if segment else None


def _passed_over(heard: Heard, audio: Samples, hear: Hear) -> Iterator[Heard]:
    if heard.segment.words is None or heard.is_lost:
        return
    words = heard.words()
    for missed in _without_words(heard.window, words):
        for again in listen(missed, audio, hear, language=heard.info.language):
            if not again.is_lost and not _is_beside(again, words):
                yield again._replace(passed_over=())
                yield from again.passed_over


def _without_words(window: Window, words: list[Word]) -> Iterator[Window]:
    """Yield the stretches of speech in which no word begins."""
    numbered = enumerate(window.spans)
    for has_word, run in groupby(numbered, key=lambda each: _has_word(each[1], words)):
        spans = list(run)
        speech = sum(span.end - span.start for _, span in spans)
        if not has_word and speech >= SHORTEST_MISSED and len(spans) < len(window.spans):
            yield part(window, spans[0][0], spans[-1][0] + 1)


def _has_word(span: Span, words: list[Word]) -> bool:
    return any(span.start - EARLY <= word.start < span.end for word in words)


def _is_beside(again: Heard, words: list[Word]) -> bool:
    """Whether a few words are the next ones, which alignment has put beside their speech."""
    found = normal_form(again.segment.text).split()
    plain = [normal_form(word.text) for word in words]
    at = sum(word.start < again.window.start for word in words)
    beside = (plain[max(0, at - len(found)) : at], plain[at : at + len(found)])
    return len(found) <= FEW and found in beside


def _in_speech(window: Window, word: AlignedWord) -> Word:
    """Keep a word within its speech: alignment draws those around a pause out into it."""
    start, end = window.start + word.start, window.start + word.end
    span = max(window.spans, key=lambda s: min(s.end, end) - max(s.start, start))
    latest = span.end + MARGIN
    start = min(max(start, span.start), latest)
    end = min(max(end, start), latest)
    return Word(word.word, round(start, 2), round(end, 2), round(float(word.probability), 4))


def _spread(text: str, window: Window) -> list[Word]:
    """Give each word a share of the window by its letters."""
    first, last = window.spans[0].start, window.spans[-1].end
    per_letter = (last - first) / max(1, len(text.strip()))
    words: list[Word] = []
    start = first
    for word in text.split():
        end = start + per_letter * (len(word) + 1)
        words.append(Word(f" {word}", round(start, 2), round(min(end, last), 2)))
        start = end
    return words

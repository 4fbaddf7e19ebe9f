"""What is done when the model repeats itself, guesses, or passes over what was said."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode
from stt_lib.local import vad
from stt_lib.local.listening import SHORTEST_LOOP, Heard, listen
from stt_lib.local.transcriber import Transcriber
from stt_lib.local.vad import Span, Window
from tests.local.sounds import noise, sample

SECONDS = 40
SOUND = (np.arange(SECONDS * WHISPER_RATE) / WHISPER_RATE).astype(np.float32)
"""The value of each sample is its time in seconds."""


@dataclass
class Model:
    """Hears words at given seconds, but only those that it does not pass over at first."""

    words: dict[float, str]
    passes_over: tuple[float, ...] = ()
    loops_beyond: float = 100.0
    """Seconds of sound beyond which it repeats itself."""
    guesses_below: float = 0.0
    """Seconds of sound below which it guesses."""
    asked: list[tuple[float, float, str | None, int]] = field(default_factory=list)

    def hear(self, sound: Samples, language: str | None, no_repeat: int) -> tuple[Any, Any]:
        start, seconds = float(sound[0]), sound.size / WHISPER_RATE
        self.asked.append((round(start), round(seconds), language, no_repeat))
        hidden = self.passes_over if len(self.asked) == 1 else ()
        words = [
            SimpleNamespace(word=f" {text}", start=at - start, end=at - start + 0.5, probability=1)
            for at, text in self.words.items()
            if start <= at < start + seconds and at not in hidden
        ]
        if not words:
            return None, None
        segment = SimpleNamespace(
            text="".join(word.word for word in words),
            words=words,
            avg_logprob=-2.0 if seconds < self.guesses_below else -0.2,
            compression_ratio=9.0 if seconds > self.loops_beyond and not no_repeat else 1.0,
            no_speech_prob=0.1,
        )
        return segment, SimpleNamespace(language="fr")


def window(*spans: tuple[float, float]) -> Window:
    found = tuple(Span(start, end, 0.9) for start, end in spans)
    return Window(found[0].start, found[-1].end, found)


def said(heard: list[Heard]) -> list[str]:
    words = [word for one in heard for each in (one, *one.passed_over) for word in each.words()]
    return [word.text.strip() for word in sorted(words, key=lambda word: word.start)]


def test_a_window_in_which_the_model_repeats_itself_is_heard_in_halves() -> None:
    model = Model({1: "one", 8: "two", 15: "three"}, loops_beyond=12)
    heard = listen(window((1, 4), (8, 12), (15, 18)), SOUND, model.hear)
    assert said(heard) == ["one", "two", "three"]
    # The pause of four seconds is the longest one.
    assert [(start, seconds) for start, seconds, _, _ in model.asked] == [(1, 17), (1, 3), (8, 10)]
    assert not any(one.is_lost for one in heard)


def test_a_loop_without_a_pause_in_it_is_heard_again_without_repeats() -> None:
    model = Model({1: "one"}, loops_beyond=3)
    [heard] = listen(window((1, 9)), SOUND, model.hear)
    assert not heard.is_looping
    assert [no_repeat for _, _, _, no_repeat in model.asked] == [0, SHORTEST_LOOP]


def test_a_guess_without_a_pause_in_it_stays_for_the_filter_to_judge() -> None:
    model = Model({1: "one"}, guesses_below=20)
    [heard] = listen(window((1, 9)), SOUND, model.hear)
    assert heard.is_lost
    assert len(model.asked) == 1


def test_speech_that_the_model_passed_over_is_heard_again_in_its_place() -> None:
    model = Model({1: "one", 6: "two", 9: "three", 15: "four"}, passes_over=(6, 9))
    [heard] = listen(window((1, 4), (6, 8), (9, 12), (15, 18)), SOUND, model.hear)
    assert said([heard]) == ["one", "two", "three", "four"]
    _, (start, _, language, _) = model.asked
    assert (start, language) == (6, "fr"), "both at once, in the language of the window"


def test_what_is_passed_over_twice_is_heard_alone() -> None:
    class Forgetful(Model):
        def hear(self, sound: Samples, language: str | None, no_repeat: int) -> tuple[Any, Any]:
            segment, info = super().hear(sound, language, no_repeat)
            segment.words = segment.words[:1]
            return segment, info

    model = Forgetful({1: "say it again", 6: "say it again", 11: "say it again"})
    [heard] = listen(window((1, 4), (6, 9), (11, 14)), SOUND, model.hear)
    starts = [word.start for one in (heard, *heard.passed_over) for word in one.words()]
    assert starts == pytest.approx([1, 6, 11], abs=0.01)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (4.0, 6.4, (6.0, 6.4)),  # the first word of a sentence, drawn out into the pause before it
        (3.5, 6.1, (3.5, 4.1)),  # the last word, drawn out into the pause after it
        (4.2, 4.6, (4.1, 4.1)),
        (5.5, 5.9, (6.0, 6.0)),
    ],
)
def test_a_word_belongs_to_the_speech_with_most_of_it(
    start: float, end: float, expected: tuple[float, float]
) -> None:
    words = [SimpleNamespace(word=" one", start=start - 1, end=end - 1, probability=1)]
    segment: Any = SimpleNamespace(text=" one", words=words)
    info: Any = None
    [word] = Heard(window((1, 4), (6, 8)), segment, info).words()
    assert (word.start, word.end) == pytest.approx(expected)


@pytest.mark.parametrize("end", [6.4, 8.0])
def test_short_speech_without_a_word_is_not_heard_again(end: float) -> None:
    model = Model({1: "one", 6: "two"}, passes_over=(6,))
    listen(window((1, 4), (6, end)), SOUND, model.hear)
    assert (len(model.asked) == 1) == (end < 6.5)


def test_a_guess_at_what_was_passed_over_is_left_out() -> None:
    model = Model({1: "one", 6: "two"}, passes_over=(6,), guesses_below=5)
    heard = listen(window((1, 4), (6, 8)), SOUND, model.hear)
    assert said(heard) == ["one"]


@pytest.mark.parametrize(("text", "expected"), [("Paris", 1), ("this is Paris", 2)])
def test_a_word_that_was_put_beside_its_speech_is_not_doubled(text: str, expected: int) -> None:
    """Alignment errs by a span at times; then the words are there already."""

    class Misaligned(Model):
        def hear(self, sound: Samples, language: str | None, no_repeat: int) -> tuple[Any, Any]:
            segment, info = super().hear(sound, language, no_repeat)
            if len(self.asked) == 1:
                segment.words = [
                    SimpleNamespace(word=f" {word}", start=0.5, end=0.5, probability=1)
                    for word in f"in {text}".split()
                ]
            return segment, info

    model = Misaligned({1: "in", 6: text}, passes_over=(6,))
    heard = listen(window((1, 4), (6, 8)), SOUND, model.hear)
    assert " ".join(said(heard)).count("Paris") == expected


def test_of_a_window_without_words_nothing_is_heard_again() -> None:
    model = Model({})
    assert listen(window((1, 4), (6, 8)), SOUND, model.hear) == []
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("library", "everyone who agrees please raise a hand"), ("birds", "singing in the trees")],
)
def test_a_sentence_that_is_said_five_times_is_written_five_times(name: str, sentence: str) -> None:
    """And the same text comes each time, whatever else is transcribed."""
    transcriber = Transcriber()
    sound = decode(sample(name), name)
    at = {"library": 30.3, "birds": 8.5}[name]
    spans = vad.spans(vad.probabilities([sound]))
    span = min(spans, key=lambda span: abs(span.start - at))
    said = sound[round((span.start - 0.1) * 16_000) : round((span.end + 0.1) * 16_000)]
    repeated = np.concatenate([noise(0.75, 0.0005), said] * 5)
    first, second = (transcriber.transcribe(repeated, lambda: False) for _ in range(2))
    text = "".join(segment["text"] for segment in first["segments"]).lower().replace(",", "")
    assert text.count(sentence) == 5
    assert second == first

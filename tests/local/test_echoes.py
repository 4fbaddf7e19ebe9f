from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from faster_whisper.transcribe import Segment

from stt_lib.audio.decoding import Samples
from stt_lib.local.repetition import repeats_itself
from stt_lib.local.transcriber import Transcriber

HERON = "The heron took three slow steps, and looked into the water."
ECHO = "the heron took three slow steps and looked into the water"
OTHER = "Then the sun came up and the whole marsh began to sing."


@pytest.mark.parametrize(
    "texts",
    [
        (HERON, OTHER, ECHO),
        (HERON, f"It was late when {ECHO}"),
        ("no " * 9,),
    ],
)
def test_eight_words_that_come_back_are_an_echo(texts: tuple[str, ...]) -> None:
    assert repeats_itself(texts)


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("",),
        (HERON, OTHER),
        ("Yes.", "Yes.", "Okay.", "Yes.", "Okay.", "Thank you.", "Yes."),
        (HERON, "The heron took three slow steps, and then it flew away."),
    ],
)
def test_what_people_say_again_is_none(texts: tuple[str, ...]) -> None:
    assert not repeats_itself(texts)


def test_what_comes_back_after_minutes_is_none() -> None:
    """It cannot have been in the context."""
    between = " ".join(f"number{n}" for n in range(200))
    assert not repeats_itself([HERON, between, ECHO])


class ForgetfulModel:
    """Repeats its context instead of listening, if it has one."""

    def __init__(self) -> None:
        self.with_context: list[bool] = []

    def transcribe(
        self, audio: Samples, *, condition_on_previous_text: bool, **_: Any
    ) -> tuple[Iterator[Segment], Any]:
        self.with_context.append(condition_on_previous_text)
        texts = [HERON, HERON if condition_on_previous_text else OTHER]
        info = SimpleNamespace(language="en", language_probability=1.0, all_language_probs=None)
        scores = {"no_speech_prob": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0}
        found = (SimpleNamespace(text=t, start=0, end=1, words=None, **scores) for t in texts)
        return cast(Iterator[Segment], found), info


def test_an_echo_is_heard_again_without_context() -> None:
    model = ForgetfulModel()
    transcriber = Transcriber.__new__(Transcriber)
    transcriber.model = "forgetful"
    transcriber._whisper = cast(Any, model)
    answer = transcriber.transcribe(np.zeros(16_000, np.float32), lambda: False)
    assert [segment["text"] for segment in answer["segments"]] == [HERON, OTHER]
    assert model.with_context == [True, False]

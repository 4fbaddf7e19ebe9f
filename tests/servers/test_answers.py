"""What is made of the answers of every kind of server."""

from typing import Any

import pytest

from stt_lib.domain.models import Segment, Word
from stt_lib.errors import (
    FailureKind,
    ServerMisconfigured,
)
from stt_lib.servers.protocols import IGNORE_MODEL, NAMES, Options
from tests.servers.asking import ALL, SECRET, Ask, answer
from tests.support.speech import (
    fake_chunk,
)

SCORED = {"no_speech_prob": 0.1, "avg_logprob": -0.2, "compression_ratio": 1.5}
SPEACHES_SEGMENT = {"id": 1, "seek": 0, "tokens": [1], "temperature": 0.0, "words": None}

ANSWERS: dict[str, tuple[str, dict[str, Any], list[Segment], str | None]] = {
    "faster-whisper-server": (
        "openai",
        {
            "task": "transcribe",
            "language": "en",
            "duration": 33.76375,
            "text": " Hello there. More.",
            "segments": [
                {**SPEACHES_SEGMENT, "start": 0.0, "end": 7.5, "text": " Hello there.", **SCORED},
                {**SPEACHES_SEGMENT, "start": 30, "end": 304.0, "text": " More.", **SCORED},
            ],
        },
        [
            Segment(0.0, 7.5, " Hello there.", 0.1, -0.2, 1.5),
            Segment(30.0, 33.76375, " More.", 0.1, -0.2, 1.5),
        ],
        "en",
    ),
    "open-asr-server, whose scores are constants": (
        "openai",
        {
            "language": "unknown",
            "duration": 33.0,
            "text": "Hello",
            "words": None,
            "segments": [
                {
                    "id": 0,
                    "start": 0.0,
                    "end": 33.0,
                    "text": "Hello",
                    "avg_logprob": 0.0,
                    "compression_ratio": 1.0,
                    "no_speech_prob": 0.0,
                }
            ],
        },
        [Segment(0.0, 33.0, "Hello")],
        None,
    ),
    "the cloud, with times as text": (
        "openai",
        {"task": "transcribe", "language": "english", "duration": "33.759", "text": "Hello."},
        [Segment(0.0, 33.76375, "Hello.")],
        "en",
    ),
    "text only": ("openai", {"text": "Hello."}, [Segment(0.0, 33.76375, "Hello.")], None),
    "text and no segments": (
        "openai",
        {"text": "Hello.", "segments": []},
        [Segment(0.0, 33.76375, "Hello.")],
        None,
    ),
    "nothing heard, null": ("openai", {"text": "", "segments": None, "duration": 33.8}, [], None),
    "nothing heard, absent": ("openai", {"text": " ", "language": None}, [], None),
    "nothing heard, empty": ("asr", {"text": "", "segments": [], "language": "de"}, [], "de"),
    "whisper.cpp": (
        "whispercpp",
        {
            "task": "transcribe",
            "language": "english",
            "duration": 33.763,
            "text": " Hello\n there.\n",
            "segments": [
                {
                    "id": 0,
                    "text": " Hello\n there.\n",
                    "start": 0.0,
                    "end": 7.5,
                    "tokens": [1, 2],
                    "temperature": 0.0,
                    "avg_logprob": -0.2,
                    "words": [
                        {"word": " Hello", "start": 0.0, "end": 1.0, "probability": 0.9},
                        {"word": " there", "start": 1.0, "end": 2.0, "probability": 0.8},
                        {"word": ".", "start": 2.0, "end": 2.0, "probability": 0.7},
                    ],
                    "no_speech_prob": 0.1,
                }
            ],
        },
        [
            Segment(
                *(0.0, 7.5, "Hello there.", 0.1, -0.2),
                words=(Word(0.0, 1.0, " Hello", 0.9), Word(1.0, 2.0, " there.", 0.8)),
            )
        ],
        "en",
    ),
    "whisper-asr-webservice": (
        "asr",
        {
            "text": " Hello",
            "segments": [{**SPEACHES_SEGMENT, "start": 0.0, "end": 20, "text": " Hello", **SCORED}],
            "language": "en",
        },
        [Segment(0.0, 20.0, " Hello", 0.1, -0.2, 1.5)],
        "en",
    ),
    "whisper-asr-webservice, segments as rows": (
        "asr",
        {
            "language": "haitian creole",
            "segments": [[1, 0, 0.0, 20.0, " Hello", [1], 0.0, -0.2, 1.5, 0.1, None]],
            "text": " Hello",
        },
        [Segment(0.0, 20.0, " Hello", 0.1, -0.2, 1.5)],
        "ht",
    ),
    "a language for each segment": (
        "openai",
        {
            "language": "en",
            "segments": [
                {"start": 0, "end": 2, "text": "Yes.", "language": "en"},
                {"start": 2, "end": 4, "text": "Oui.", "language": "French"},
                {"start": 4, "end": 6, "text": "Hm.", "language": ["en"]},
            ],
        },
        [
            Segment(0.0, 2.0, "Yes.", language="en"),
            Segment(2.0, 4.0, "Oui.", language="fr"),
            Segment(4.0, 6.0, "Hm."),
        ],
        "en",
    ),
    "odd but usable": (
        "openai",
        {
            "language": "tlh",
            "segments": [
                {"start": -1, "end": 2, "text": "a", "no_speech_prob": None},
                {"start": 5, "end": 4, "text": "b", "compression_ratio": float("inf")},
                {"start": 99, "end": 100, "text": "c", "avg_logprob": float("nan"), "extra": {}},
            ],
        },
        [
            Segment(0.0, 2.0, "a"),
            Segment(5.0, 5.0, "b"),
            Segment(33.76375, 33.76375, "c"),
        ],
        "tlh",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_all_kinds_are_taken(ask: Ask, kind: str) -> None:
    protocol, body, segments, language = ANSWERS[kind]
    got = ask(protocol, answer(**body))
    assert list(got.segments) == segments
    assert got.language == language
    assert got.model is None
    assert got.server == "http://stt"
    assert got.top_language_probs is None


BESIDE = [{"word": text, "start": i, "end": i + 0.5} for i, text in enumerate(["a", "b", "c"])]


@pytest.mark.parametrize(
    ("texts", "beside", "expected"),
    [
        (("A, b.", "C."), BESIDE, (("a", "b"), ("c",))),  # by their number
        (("A", "b-b C."), [*BESIDE, {**BESIDE[2], "end": 9}], (("a", "b"), ("c", "c"))),
        (("A b.", "C."), [*BESIDE[:2], {"word": "c"}], ((), ())),
        (("A b.", "C."), "nonsense", ((), ())),
        (("A b.", "C."), [[0, 1, "a", 0.5], [1, 2, "b", 1], [2, 3, "c", 1]], (("a", "b"), ("c",))),
    ],
)
def test_words_that_come_beside_the_segments_are_shared_out(
    ask: Ask, texts: tuple[str, ...], beside: Any, expected: tuple[tuple[str, ...], ...]
) -> None:
    segments = [{"start": 2 * i, "end": 2 * i + 1, "text": t} for i, t in enumerate(texts)]
    got = ask("openai", answer(text=" ".join(texts), segments=segments, words=beside))
    assert tuple(tuple(word.text for word in s.words) for s in got.segments) == expected


def test_word_times_lie_within_the_audio_and_do_not_run_backwards(ask: Ask) -> None:
    times = [(-1, 2), (1, 0.5), (0, 1), (40, 50)]
    words = [{"word": f"w{i}", "start": a, "end": b} for i, (a, b) in enumerate(times)]
    segment = {"start": 0, "end": 30, "text": "w0 w1 w2 w3", "words": words}
    [got] = ask("asr", answer(segments=[segment])).segments
    assert [(word.start, word.end) for word in got.words] == [
        (0.0, 2.0),
        (1.0, 1.0),
        (1.0, 1.0),
        (33.76375, 33.76375),
    ]


def test_ours_cuts_times_at_the_end_of_the_audio(ask: Ask) -> None:
    got = ask("transcribe", answer(segments=[{"start": 30, "end": 304.0, "text": "x"}]))
    assert got.segments == (Segment(30.0, 33.76375, "x"),)


def test_times_stay_where_the_length_of_the_audio_is_unknown(ask: Ask) -> None:
    odd = (fake_chunk(0, b"not to be measured"),)
    got = ask("transcribe", answer(segments=[{"start": 3, "end": 304, "text": "x"}]), audio=odd)
    assert got.segments == (Segment(3.0, 304.0, "x"),)


def test_probabilities_of_languages_come_from_who_tells_them(ask: Ask) -> None:
    probs = {"de": 0.01, "en": 0.9, "nl": 0.02, "fr": 0.03, "es": 0.015, "pt": 0.002}
    got = ask("whispercpp", answer(text="", language_probabilities=probs))
    assert got.top_language_probs is not None
    assert got.top_language_probs[0] == ("en", 0.9)
    assert len(got.top_language_probs) == 5


@pytest.mark.parametrize("protocol", ["openai", "transcribe"])
def test_another_model_than_the_one_asked_for_is_the_servers_error(ask: Ask, protocol: str) -> None:
    reply = answer(text="", segments=[], duration=33.0, model="Systran/faster-whisper-tiny")
    with pytest.raises(ServerMisconfigured) as caught:
        ask(protocol, reply, options=Options(model="large-v3"))
    assert caught.value.kind == FailureKind.WRONG_SERVER
    assert "uses the model Systran/faster-whisper-tiny, not large-v3" in str(caught.value)
    assert "omit --model" in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "asked", "told", "expected"),
    [
        *(
            (p, "tiny.en", "Systran/faster-whisper-tiny.en", "Systran/faster-whisper-tiny.en")
            for p in NAMES
        ),
        *((p, None, "whatever", "whatever") for p in NAMES),
        *((p, None, f"{SECRET} is not a name", None) for p in NAMES),
        *((p, None, 7, None) for p in NAMES),
        *((p, None, None, None) for p in NAMES),
        ("openai", "tiny.en", None, "tiny.en"),
        ("transcribe", "tiny.en", None, "tiny.en"),
        *((p, "tiny.en", None, None) for p in NAMES if p in IGNORE_MODEL),
    ],
)
def test_the_model_is_what_the_server_reports_or_what_it_was_asked_for(
    ask: Ask, protocol: str, asked: str | None, told: Any, expected: str | None
) -> None:
    reply = answer(text="", segments=[], duration=33.0, model=told)
    assert ask(protocol, reply, options=Options(model=asked)).model == expected


PARAMETERS = {
    "transcribe": {},
    "openai": {"model": "tiny.en", "language": "en", "prompt": ALL.prompt},
    "whispercpp": {"language": "en", "prompt": ALL.prompt},
    "asr": {"language": "en", "prompt": ALL.prompt},
}


@pytest.mark.parametrize("protocol", PARAMETERS)
def test_an_answer_says_how_it_came_about(ask: Ask, protocol: str) -> None:
    """No parameter that the server never got, and no key."""
    got = ask(protocol, options=ALL)
    assert got.protocol == protocol
    assert got.parameters == PARAMETERS[protocol]
    assert ask(protocol).parameters == ({"model": "whisper-1"} if protocol == "openai" else {})

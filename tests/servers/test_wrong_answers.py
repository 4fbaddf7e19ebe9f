"""Answers that are errors: of which kind, and what they advise; none is quoted."""

import json
import re
from typing import Any

import pytest

from stt_lib.domain.models import Segment
from stt_lib.errors import (
    AttemptError,
    AudioRejected,
    FailureKind,
    ServerBusy,
    ServerMisconfigured,
    Suspect,
)
from stt_lib.servers.protocols import NAMES
from tests.servers.asking import SECRET, SEGMENT, Ask, answer, text
from tests.support.whisper import Reply


def missing(field: str) -> Reply:
    """FastAPI's complaint about a form without this field."""
    return answer(422, detail=[{"type": "missing", "loc": ["body", field]}])


WORD = {"word": SECRET, "start": 0, "end": 1}

BAD = {
    "not JSON": text(200, SECRET),
    "a page": text(200, f"<html>{SECRET}</html>", Content_Type="text/html"),
    "nothing": text(200, ""),
    "a list": text(200, json.dumps([SECRET])),
    "neither text nor segments": answer(task=SECRET),
    "an error with status 200": answer(error=SECRET),
    "text is a list": answer(text=[SECRET]),
    "segments is text": answer(segments=SECRET),
    "a segment is text": answer(segments=[SECRET]),
    "a short row": answer(segments=[[1, 0, 0.0]]),
    "a time is text": answer(segments=[{**SEGMENT, "text": SECRET, "end": "7.5"}]),
    "a time is NaN": answer(segments=[{**SEGMENT, "text": SECRET, "end": float("nan")}]),
    "a time is missing": answer(segments=[{"text": SECRET}]),
    "a score is text": answer(segments=[{**SEGMENT, "text": SECRET, "avg_logprob": "high"}]),
    "language is a number": answer(text=SECRET, language=7),
    "deeply nested": text(200, '{"text": ' + "[" * 100_000),
    "a time of 400 digits": answer(segments=[{**SEGMENT, "text": SECRET, "end": 10**400}]),
    "a time beyond 64 bits": answer(segments=[{**SEGMENT, "text": SECRET, "start": 2**70}]),
    "a time in the next century": answer(segments=[{**SEGMENT, "text": SECRET, "end": 4e9}]),
    "words without text": answer(text="", segments=None, words=[WORD]),
    "a language that is a text": answer(text=SECRET, segments=[], language=20 * SECRET),
    "half a surrogate pair": text(200, '{"segments": [{"start": 0, "end": 1, "text": "\\ud800"}]}'),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("protocol", NAMES)
def test_a_wrong_answer_is_an_error_that_quotes_nothing(ask: Ask, protocol: str, name: str) -> None:
    with pytest.raises(Suspect) as caught:
        ask(protocol, BAD[name])
    assert caught.value.kind is FailureKind.INVALID_ANSWER
    assert str(caught.value).startswith("the answer of http://stt ")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "more",
    [
        {"language_probabilities": {SECRET: "high"}},
        {"language_probabilities": {SECRET: 10**400}},
        {"segments": [{**SEGMENT, SECRET: 1, "end": SECRET}]},
    ],
)
def test_keys_of_the_server_are_not_quoted(ask: Ask, more: dict[str, Any]) -> None:
    with pytest.raises(Suspect) as caught:
        ask("openai", answer(**{"text": "", **more}))
    assert SECRET not in str(caught.value)


def test_numbers_that_make_no_sense_cost_scores_and_words_but_not_the_text(ask: Ask) -> None:
    huge = 10**400
    segment = {**SEGMENT, "no_speech_prob": huge, "avg_logprob": 2**70, "words": [WORD]}
    [got] = ask("openai", answer(segments=[segment], duration=huge)).segments
    assert (got.text, got.no_speech_prob, got.avg_logprob) == (SEGMENT["text"], None, None)
    assert len(got.words) == 1
    segment["words"] = [{**WORD, "end": huge}]
    [got] = ask("openai", answer(segments=[segment])).segments
    assert got.words == ()


def test_a_segment_that_ends_before_it_starts_keeps_its_text(ask: Ask) -> None:
    [got] = ask("transcribe", answer(segments=[{"start": 20, "end": 5, "text": "x"}])).segments
    assert got == Segment(20.0, 20.0, "x")


def test_the_answer_of_another_protocol_is_recognised(ask: Ask) -> None:
    with pytest.raises(Suspect, match=r"looks like openai: write openai\+http://stt or set --prot"):
        ask("transcribe", answer(text=SECRET))


NOT_FOUND = answer(404, detail="Not Found")

WRONG: list[tuple[str, Reply, FailureKind, str]] = [
    ("transcribe", NOT_FOUND, FailureKind.WRONG_SERVER, r"try openai or asr, written openai\+http"),
    ("openai", NOT_FOUND, FailureKind.WRONG_SERVER, "try asr or transcribe"),
    (
        "openai",
        text(404, f"File Not Found ({SECRET})", Server="whisper.cpp"),
        FailureKind.WRONG_SERVER,
        r"looks like whispercpp: write whispercpp\+http",
    ),
    (
        "asr",
        answer(404, error={"message": SECRET, "type": "invalid_request_error"}),
        FailureKind.WRONG_SERVER,
        r"looks like openai: write openai\+http",
    ),
    (
        "whispercpp",
        text(404, f"<html>{SECRET}</html>", Content_Type="text/html"),
        FailureKind.WRONG_SERVER,
        "web page: is STT_SERVER_URL the right address",
    ),
    ("asr", text(405, SECRET), FailureKind.WRONG_SERVER, "Whisper server with POST /asr"),
    ("openai", text(307, "", Location="/x"), FailureKind.WRONG_SERVER, "transcribe, openai, wh"),
    (
        "openai",
        answer(422, detail=[{"type": "missing", "loc": ["body", "files"], "msg": SECRET}]),
        FailureKind.WRONG_SERVER,
        r"looks like transcribe: write transcribe\+http",
    ),
    (
        "transcribe",
        answer(422, detail=[{"type": "missing", "loc": ["body", "file"]}]),
        FailureKind.WRONG_SERVER,
        "looks like openai",
    ),
    (
        "openai",
        answer(404, detail=f"Model '{SECRET}' is not installed locally."),
        FailureKind.WRONG_SERVER,
        "name one of its own with --model",
    ),
    (
        "openai",
        answer(400, detail={"error": {"message": f"unknown model: {SECRET}"}}),
        FailureKind.WRONG_SERVER,
        "name one of its own with --model",
    ),
    (
        "openai",
        answer(404, error={"message": "The model `x` does not exist", "code": "model_not_found"}),
        FailureKind.WRONG_SERVER,
        "name one of its own with --model",
    ),
    ("openai", answer(403, detail="Model not allowed"), FailureKind.WRONG_SERVER, "--model"),
    ("openai", text(401, SECRET), FailureKind.UNAUTHORIZED, "set STT_API_KEY"),
    (
        "openai",
        answer(400, error={"message": f"Language '{SECRET}' is not supported"}),
        FailureKind.WRONG_SERVER,
        "change --language",
    ),
    (
        "asr",
        answer(422, detail=[{"type": "enum", "loc": ["query", "language"], "msg": SECRET}]),
        FailureKind.WRONG_SERVER,
        "change --language",
    ),
    (
        "transcribe",
        text(400, "<h1>400 Bad Request</h1>The plain HTTP request was sent to HTTPS port"),
        FailureKind.WRONG_SERVER,
        "expects https: write https://stt",
    ),
    (
        "transcribe",
        text(400, "Client sent an HTTP request to an HTTPS server."),
        FailureKind.WRONG_SERVER,
        "expects https: write https://stt",
    ),
    ("openai", answer(403, detail="Invalid API key"), FailureKind.UNAUTHORIZED, "set STT_API_KEY"),
]


@pytest.mark.parametrize(("protocol", "reply", "kind", "wanted"), WRONG)
def test_a_server_set_up_otherwise_is_named_with_what_to_try(
    ask: Ask, protocol: str, reply: Reply, kind: FailureKind, wanted: str
) -> None:
    with pytest.raises(ServerMisconfigured, match=wanted) as caught:
        ask(protocol, reply)
    assert caught.value.kind is kind
    assert str(caught.value).startswith(f"http://stt answered {reply.status}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "protocol", "reply", "address"),
    [
        ("http://stt/v1", "openai", answer(404, detail="Not Found"), "transcribe+http://stt"),
        ("http://stt/v1", "openai", text(404, "<html>"), None),
        ("http://stt/v1", "transcribe", answer(404, error={}), "openai+http://stt"),
        ("http://stt/a/v1", "openai", missing("audio_file"), "asr+http://stt/a"),
        ("http://stt/v1", "openai", missing("files"), "transcribe+http://stt"),
        ("http://stt/v1/audio/transcriptions", "openai", text(405, ""), "transcribe+http://stt"),
    ],
)
def test_the_address_for_another_protocol_has_no_path_of_this_one(
    ask: Ask, url: str, protocol: str, reply: Reply, address: str | None
) -> None:
    with pytest.raises(ServerMisconfigured) as caught:
        ask(protocol, reply, shown=url)
    named = re.findall(r"writ(?:e|ten) (\S+\+\S+)", str(caught.value))
    assert named == ([] if address is None else [address])


@pytest.mark.parametrize("protocol", NAMES)
@pytest.mark.parametrize(
    ("reply", "error", "kind"),
    [
        (text(429, ""), ServerBusy, FailureKind.BUSY),
        (text(503, SECRET), ServerBusy, FailureKind.BUSY),
        (answer(500, error="Server is busy"), ServerBusy, FailureKind.BUSY),
        (text(502, "BUSY, come back later"), ServerBusy, FailureKind.BUSY),
        (text(500, "busy " * 2000), Suspect, FailureKind.SERVER_ERROR),
        (text(400, "we are busy"), AudioRejected, FailureKind.INVALID_AUDIO),
        (text(500, "Internal Server Error"), Suspect, FailureKind.SERVER_ERROR),
        (text(500, f"<html>{SECRET}</html>"), Suspect, FailureKind.SERVER_ERROR),
        (answer(415, detail=f"Failed to decode {SECRET}"), AudioRejected, "invalid_audio"),
        (answer(400, error="failed to read audio data"), AudioRejected, "invalid_audio"),
        (answer(422, detail="cannot decode"), AudioRejected, "invalid_audio"),
        (text(413, SECRET), AudioRejected, FailureKind.REJECTED),
    ],
)
def test_errors_are_told_apart_by_status_and_words(
    ask: Ask, protocol: str, reply: Reply, error: type[AttemptError], kind: str
) -> None:
    with pytest.raises(error) as caught:
        ask(protocol, reply)
    assert type(caught.value) is error
    assert caught.value.kind == kind
    assert SECRET not in str(caught.value)

"""Our own Whisper server as clients of OpenAI's API see it."""

import re
from pathlib import Path

import pytest
import requests

from tests.local.running import Server
from tests.local.sounds import encoded, sample, speech

TOO_BIG = b"x" * (5 * 1024 * 1024)


def post(
    server: Server, sound: bytes, headers: dict[str, str] | None = None, /, **fields: str
) -> requests.Response:
    return requests.post(
        f"{server.url}/v1/audio/transcriptions",
        files={"file": ("meeting.ogg", sound)},
        data=fields,
        headers={"Authorization": f"Bearer {server.key}"} if headers is None else headers,
        timeout=60,
    )


@pytest.fixture(scope="module")
def short() -> bytes:
    return encoded(speech(8), "wav", "pcm_s16le", rate=16_000)


def test_json_is_the_default(server: Server, short: bytes) -> None:
    answer = post(server, short, model="whisper-1")
    assert answer.status_code == 200
    assert set(answer.json()) == {"text"}
    assert answer.json()["text"].startswith("Thank you all for coming to the library")


def test_verbose_json_has_times_and_scores(server: Server, short: bytes) -> None:
    answer = post(server, short, model="tiny.en", response_format="verbose_json").json()
    assert answer["task"] == "transcribe"
    assert answer["language"] == "en"
    assert answer["duration"] == 8.0
    assert answer["model"] == "tiny.en"
    assert answer["text"].startswith("Thank you all")
    assert [segment["id"] for segment in answer["segments"]] == [*range(len(answer["segments"]))]
    for segment in answer["segments"]:
        assert 0 <= segment["start"] <= segment["end"] <= 8
        assert segment["avg_logprob"] < 0
        assert {"text", "no_speech_prob", "compression_ratio"} <= set(segment)


def test_plain_text_and_subtitles(server: Server, short: bytes) -> None:
    plain = post(server, short, response_format="text")
    assert plain.headers["content-type"].startswith("text/plain")
    assert plain.text.startswith("Thank you all")
    clock = r"00:00:\d\d{}\d{{3}}"
    times = f"{clock} --> {clock}\n"
    srt = post(server, short, response_format="srt")
    assert re.match("1\n" + times.format(",", ",") + "Thank you all", srt.text)
    vtt = post(server, short, response_format="vtt")
    assert vtt.headers["content-type"].startswith("text/vtt")
    assert re.match("WEBVTT\n\n" + times.format(r"\.", r"\.") + "Thank you all", vtt.text)


def test_language_prompt_and_fields_that_it_does_not_know(server: Server, short: bytes) -> None:
    answer = post(
        server, short, language="English", prompt="A library.", temperature="0", stream="", user="x"
    )
    assert "library" in answer.json()["text"]


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"model": "large-v3"}, 404, "model not found: this server has tiny.en"),
        ({"language": "de"}, 400, "the language is not supported by tiny.en"),
        ({"language": "klingon"}, 400, "the language is not supported by tiny.en"),
        ({"response_format": "docx"}, 400, "response_format must be one of json, text, verbose"),
    ],
)
def test_what_it_cannot_do_is_refused(
    server: Server, short: bytes, fields: dict[str, str], status: int, detail: str
) -> None:
    answer = post(server, short, **fields)
    assert answer.status_code == status
    assert detail in answer.json()["detail"]


def test_the_key_comes_in_either_header(server: Server, short: bytes) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {server.key}"},
        {"Authorization": "Bearer"},
    ]
    for headers in wrong:
        answer = post(server, short, headers)
        assert answer.status_code == 401
        assert "Bearer" in answer.json()["detail"]
    assert post(server, short, {"X-Api-Key": server.key}).status_code == 200
    assert post(server, short, {"authorization": f"bearer {server.key}"}).ok


def test_bad_requests(server: Server, short: bytes) -> None:
    url = f"{server.url}/v1/audio/transcriptions"
    key = {"Authorization": f"Bearer {server.key}"}
    answers = [
        requests.post(url, headers=key, timeout=5),
        requests.post(url, headers=key, files={"files": ("a.wav", short)}, timeout=5),
        requests.post(url, headers=key, data={"file": "a text"}, timeout=5),
        requests.post(url, headers=key, files=[("file", ("a", short))] * 2, timeout=5),
        post(server, b"garbage" * 100),
        post(server, b""),
    ]
    assert [answer.status_code for answer in answers] == [400] * len(answers)
    assert "parts named file" in answers[1].json()["detail"]
    assert answers[3].json()["detail"] == "more than one part named file"
    assert answers[4].json()["detail"] == "meeting.ogg is not audio"
    assert requests.get(url, timeout=5).status_code == 405
    assert "Traceback" not in server.log


def test_too_much_is_refused(server: Server) -> None:
    answer = post(server, TOO_BIG)
    assert answer.status_code == 413
    assert "4194304 bytes" in answer.json()["detail"]


def test_both_endpoints_share_one_queue(server: Server, short: bytes) -> None:
    with server.unanswered(sample("tides")):
        server.until_busy(in_progress=1, waiting=0)
        with server.unanswered(sample("tides")):
            server.until_busy(in_progress=1, waiting=1)
            answer = post(server, short)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1
    server.until_busy(in_progress=0, waiting=0)


def test_the_log_has_no_text(server: Server, short: bytes, tmp_path: Path) -> None:
    post(server, short, prompt="A secret of somebody")
    assert "POST /v1/audio/transcriptions | 200" in server.log
    assert "secret" not in server.log
    assert "library" not in server.log

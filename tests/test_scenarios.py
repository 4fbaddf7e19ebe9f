"""Every row of the description's table of error scenarios, by its name, and their relatives.

The worker is a process, MongoDB is real, the server answers over real HTTP.
"""

import json
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from stt_lib import __version__
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status, transcription
from tests.support.world import START, World

QUICK = {"STT_TIMEOUT_BASE": "0.5", "STT_TIMEOUT_PER_CHUNK": "0", "STT_RETRIES": "1"}


def only_for(marker: str, script: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    """Play `script` for requests with this text in their audio, and behave otherwise."""

    def play(request: Request) -> Reply:
        return script(request) if marker.encode() in b"".join(request.audio) else echo(request)

    return play


def reset(_: Request) -> Reply:
    return Reply(raw=b"")


def hang(whisper: FakeWhisper) -> Callable[[Request], Reply]:
    def play(_: Request) -> Reply:
        whisper.released.wait(30)
        return Reply(raw=b"")

    return play


# -- the table --------------------------------------------------------------------------------


def test_network_error_to_stt_server_logs_error_and_continues_to_next(
    world: World, whisper: FakeWhisper
) -> None:
    bad = world.record(range(3), original_id="bad", start=START + timedelta(hours=1))
    world.record(range(3), original_id="good")
    whisper.script = only_for("bad/", reset)
    done = world.run()
    assert done.returncode == 1
    assert [d["original"] for d in world.transcriptions.find()] == ["good"]
    left = world.pending()
    assert {c["original_id"] for c in left} == {bad}
    assert {c["stt"]["error"]["kind"] for c in left} == {"connection"}
    assert all("failures" not in c["stt"] for c in left), "the audio is blameless"
    whisper.script = echo
    assert world.run().returncode == 0, "the next run tries again at once"
    world.assert_all_done()


def test_stt_server_timeout_logs_error_and_continues(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2), original_id="slow", start=START + timedelta(hours=1))
    world.record(range(2), original_id="good")
    whisper.script = only_for("slow/", hang(whisper))
    done = world.run(env=QUICK)
    assert done.returncode == 1
    assert [d["original"] for d in world.transcriptions.find()] == ["good"]
    assert {c["stt"]["error"]["kind"] for c in world.pending()} == {"timeout"}
    assert re.search(
        r"ERROR - Error processing sequence at [-0-9]+ [:0-9]+ after \d+\.\d\ds: Connection "
        r"timeout",
        world.log,
    )
    whisper.script = echo
    assert world.run().returncode == 0
    world.assert_all_done()


def test_invalid_audio_data_logs_error_and_continues(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2), original_id="noise", start=START + timedelta(hours=1))
    world.record(range(2), original_id="good")
    whisper.script = only_for("noise/", lambda _: status(400))
    assert world.run().returncode == 1
    assert [d["original"] for d in world.transcriptions.find()] == ["good"]
    left = world.pending()
    assert {c["stt"]["error"]["kind"] for c in left} == {"invalid_audio"}
    assert {c["stt"]["failures"] for c in left} == {1}
    asked = len(whisper.sequences)
    assert world.run().returncode == 0
    assert len(whisper.sequences) == asked, "not before its delay is over"
    whisper.script = echo
    assert world.run("--retry-errors").returncode == 0
    world.assert_all_done()


def test_script_crashes_stops_processing_and_resumes_on_restart(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(3))
    whisper.script = hang(whisper)
    process = world.start("--lease", "3")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    process.kill()
    process.communicate()
    whisper.script = echo
    again = world.run("--lease", "3")
    assert again.returncode == 0
    assert "until the claims of other workers" in again.stderr
    world.assert_all_done()


def test_successfully_transcribed_marks_chunks_and_saves_transcription(
    world: World, whisper: FakeWhisper
) -> None:
    recording = world.record(range(2))
    assert world.run().returncode == 0
    [document] = world.transcriptions.find()
    assert set(document) == {
        "_id",
        "original",
        "start",
        "end",
        "duration",
        "language",
        "top_language_probs",
        "segments",
        "chunk_ids",
        "joined",
        "model",
        "server",
        "protocol",
        "parameters",
        "version",
        "created_at",
    }
    assert document["original"] == recording
    assert document["start"] == START
    assert document["end"] == START + timedelta(seconds=20)
    assert document["top_language_probs"] == [["en", 0.99]]
    assert document["server"] == whisper.url
    assert document["protocol"] == "transcribe"
    assert document["parameters"] == {"filter": "normal"}
    assert document["version"] == __version__
    for marked in world.chunks.find():
        assert isinstance(marked["transcribed_at"], datetime)
        assert "stt" not in marked
    asked = len(whisper.requests)
    assert world.run().returncode == 0
    assert len(whisper.requests) == asked, "done is done"


def test_no_speech_detected_marks_chunks_and_saves_no_transcription(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2))
    whisper.script = lambda _: transcription([{"start": 0, "end": 9, "text": " [BLANK_AUDIO]"}])
    done = world.run()
    assert done.returncode == 0
    assert world.pending() == []
    assert world.transcriptions.count_documents({}) == 0
    assert "transcribed=0 empty=1 errors=0" in done.stderr
    assert re.search(r"Completed sequence: .* \| 2 chunks \| \d+\.\d\ds \| empty", world.log)


# -- servers that are away or in trouble ------------------------------------------------------


def test_with_the_server_down_the_run_ends_by_itself_after_a_handful_of_attempts(
    world: World,
) -> None:
    for number in range(20):
        world.record(range(3), original_id=number)
    world.server_url = "http://127.0.0.1:9"
    done = world.run("--server-wait", "2", "--max-workers", "3")
    assert done.returncode == 3
    assert done.stderr.count("refused the connection") < 20
    assert "no STT server is available" in done.stderr
    assert "60 chunks left pending, untouched" in done.stderr
    assert "in flight" not in done.stderr, "nothing is"
    assert all("stt" not in chunk for chunk in world.pending())


def test_a_server_that_fails_everything_leaves_the_audio_blameless(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(10):
        world.record(range(3), original_id=number)
    whisper.script = lambda _: status(500)
    done = world.run("--server-wait", "2", "--max-workers", "3")
    assert done.returncode == 3
    assert all("failures" not in chunk.get("stt", {}) for chunk in world.pending())
    assert len(whisper.requests) < 30


def test_a_server_that_comes_back_finds_everything_waiting(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(6):
        world.record(range(3), original_id=number)
    port = whisper.port
    whisper.stop()
    process = world.start("--server-wait", "30", "--max-workers", "2")
    try:
        deadline = time.monotonic() + 20
        while "rests until" not in world.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        back = FakeWhisper(port=port)
        try:
            _, err = process.communicate(timeout=40)
        finally:
            back.stop()
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "answers again" in err
    world.assert_all_done()


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "none"])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_and_no_attempt_is_spent(
    world: World, whisper: FakeWhisper, code: int, form: str
) -> None:
    for number in range(3):
        world.record(range(2), original_id=number)
    refusals: list[float] = []

    def busy_at_first(request: Request) -> Reply:
        if len(refusals) < 3:
            refusals.append(time.monotonic())
            later = datetime.now(UTC) + timedelta(seconds=2)
            headers = {"seconds": "1", "date": format_datetime(later, usegmt=True)}
            return status(code, **({"Retry_After": headers[form]} if form in headers else {}))
        return echo(request)

    whisper.script = busy_at_first
    done = world.run("--retries", "0", "--max-workers", "1")
    assert done.returncode == 0, done.stderr
    world.assert_all_done()
    if form != "none":
        pauses = [
            b.started - a.started
            for a, b in zip(whisper.requests, whisper.requests[1:], strict=False)
        ]
        assert all(pause >= 0.9 for pause in pauses[:3])


def test_a_pause_holds_for_all_threads_together(world: World, whisper: FakeWhisper) -> None:
    for number in range(8):
        world.record(range(2), original_id=number)
    refused: list[float] = []

    def busy_once(request: Request) -> Reply:
        if not refused:
            refused.append(time.monotonic())
            return status(503, Retry_After="1")
        return echo(request)

    whisper.script = busy_once
    assert world.run("--max-workers", "1").returncode == 0
    after = [r.started for r in whisper.requests if r.started > refused[0]]
    assert min(after) - refused[0] >= 0.9


@pytest.mark.parametrize(
    ("code", "hint"),
    [(401, "STT_API_KEY"), (403, "STT_API_KEY"), (404, "STT_SERVER_URL"), (307, "STT_SERVER_URL")],
)
def test_a_wrong_key_or_address_ends_the_run_at_once_and_says_what_to_do(
    world: World, whisper: FakeWhisper, code: int, hint: str
) -> None:
    for number in range(5):
        world.record(range(2), original_id=number)
    whisper.script = lambda _: status(code, Location="http://127.0.0.1:9/transcribe")
    done = world.run()
    assert done.returncode == 3
    assert hint in done.stderr
    assert len(whisper.requests) == 1
    assert all("stt" not in chunk for chunk in world.pending())


def test_a_server_that_reports_another_model_than_asked_for_is_out_with_a_hint(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2))
    whisper.script = lambda _: transcription([], model="Systran/faster-whisper-tiny.en")
    done = world.run("--model", "large-v3")
    assert done.returncode == 3
    assert "uses the model Systran/faster-whisper-tiny.en, not large-v3" in done.stderr
    assert "omit --model" in done.stderr
    assert len(whisper.requests) == 1
    assert all("stt" not in chunk for chunk in world.pending())
    assert world.run("--model", "tiny.en").returncode == 0


def test_an_error_that_only_this_sequence_gets_is_its_own(
    world: World, whisper: FakeWhisper
) -> None:
    """The user's server answers 500 when one file of many is not audio."""
    world.record(range(30), original_id="a")
    world.record(range(5), original_id="b", start=START + timedelta(hours=1))
    whisper.script = only_for("a/17", lambda _: status(500))
    assert world.run().returncode == 1
    [bad] = world.pending()
    assert bad["index"] == 17
    assert bad["stt"]["failures"] == 1
    pieces = list(world.transcriptions.find({"original": "a"}).sort("start"))
    assert [len(p["chunk_ids"]) for p in pieces] == [17, 12]
    assert pieces[1]["start"] == START + timedelta(seconds=180)
    assert [s["text"] for s in pieces[1]["segments"]] == [f" a/{i}" for i in range(18, 30)]
    assert len(whisper.requests) <= 2 + 2 + 2 * 5 + 2  # with the second try and two probes


def test_one_stray_error_does_not_cut_a_sequence(world: World, whisper: FakeWhisper) -> None:
    world.record(range(20))
    seen: list[Request] = []

    def fail_first(request: Request) -> Reply:
        seen.append(request)
        return status(500) if len(seen) == 1 else echo(request)

    whisper.script = fail_first
    assert world.run().returncode == 0
    assert world.transcriptions.count_documents({}) == 1
    world.assert_all_done()


def test_audio_that_fails_too_often_is_parked_until_somebody_asks(
    world: World, whisper: FakeWhisper
) -> None:
    world.record([0], original_id="bad")
    whisper.script = only_for("bad", lambda _: status(415))
    for _ in range(3):
        world.run("--max-failures", "3")
        world.chunks.update_many({}, {"$set": {"stt.retry_at": START}})  # the delay is over
    [parked] = world.pending()
    assert parked["stt"]["failures"] == 3
    assert isinstance(parked["stt"]["parked_at"], datetime)
    asked = len(whisper.requests)
    done = world.run()
    assert done.returncode == 0
    assert "Total pending chunks: 0" in done.stderr
    assert len(whisper.requests) == asked
    whisper.script = echo
    assert world.run("--retry-errors").returncode == 0
    world.assert_all_done()


def test_what_only_ever_times_out_does_not_take_a_place_in_every_run(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2), original_id="slow")
    whisper.script = only_for("slow", reset)
    for _ in range(2):
        assert world.run("--retries", "0", "--max-failures", "2").returncode == 1
    asked = len(whisper.sequences)
    assert world.run("--retries", "0", "--max-failures", "2").returncode == 0
    assert len(whisper.sequences) == asked
    assert all("parked_at" not in chunk["stt"] for chunk in world.pending())
    whisper.script = echo
    assert world.run("--retry-errors").returncode == 0
    world.assert_all_done()


def test_retry_errors_leaves_what_never_failed_alone(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2), original_id="bad")
    whisper.script = only_for("bad", lambda _: status(400))
    world.run()
    world.record(range(2), original_id="new")
    whisper.script = echo
    assert world.run("--retry-errors").returncode == 0
    assert {c["original_id"] for c in world.pending()} == {"new"}


# -- bad chunks -------------------------------------------------------------------------------

BAD_CHUNKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no data": ({"data": None}, "invalid_chunk", "has no data"),
    "empty data": ({"data": b""}, "invalid_chunk", "data is empty"),
    "text as data": ({"data": "AAAA"}, "invalid_chunk", "not binary but of type str"),
    "no index": ({"index": None}, "invalid_chunk", "has no index"),
    "text as index": ({"index": "4"}, "invalid_chunk", "not a whole number but of type str"),
    "half an index": ({"index": 4.5}, "invalid_chunk", "not a whole number but of type float"),
    "no start": ({"start": None}, "invalid_chunk", "has no start"),
    "text as start": ({"start": "now"}, "invalid_chunk", "not a date but of type str"),
    "no original_id": ({"original_id": None}, "invalid_chunk", "has no original_id"),
    "odd format": ({"format": "../opus"}, "invalid_chunk", "format"),
    "number as format": ({"format": 7}, "invalid_chunk", "format"),
    "duplicate index": ({"index": 3}, "duplicate_index", "index 3 too"),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunk_fails_alone_before_any_request(
    world: World, whisper: FakeWhisper, name: str
) -> None:
    change, kind, message = BAD_CHUNKS[name]
    world.record(range(9), original_id="r")
    [bad_id] = [c["_id"] for c in world.chunks.find({"index": 4})]
    world.chunks.update_one({"_id": bad_id}, {"$set": change})
    done = world.run()
    assert done.returncode == 1
    [bad] = world.pending()
    assert bad["stt"]["error"]["kind"] == kind
    assert message in bad["stt"]["error"]["message"]
    assert "claim" not in bad["stt"]
    assert len(world.owners()) == 8
    assert len(whisper.requests) == 2, "the neighbours on both sides, and nothing else"
    assert world.run().returncode == 0, "not tried again before its delay is over"


def test_missing_fields_are_as_good_as_null(world: World, whisper: FakeWhisper) -> None:
    world.chunks.insert_one({"vad": {"has_speech": True}})
    world.record(range(2))
    assert world.run().returncode == 1
    [bad] = world.pending()
    assert bad["stt"]["error"]["message"] == "chunk has no original_id"


def test_a_duplicate_stays_one_after_its_twin_was_transcribed(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(4), original_id="r")
    world.record([2], original_id="r")
    assert world.run().returncode == 1
    assert world.run("--retry-errors").returncode == 1
    [twin] = world.pending()
    assert twin["stt"]["error"]["kind"] == "duplicate_index"
    assert len(whisper.requests) == 1
    world.transcriptions.delete_many({})
    world.chunks.delete_many({"transcribed_at": {"$ne": None}})  # somebody kept the other one
    assert world.run("--retry-errors").returncode == 0
    world.assert_all_done()


@pytest.mark.parametrize(
    "original_id",
    [
        7,
        "a string",
        1.5,
        True,
        {"device": "x", "n": [1, 2]},
        b"\x00\x01",
        datetime(2026, 1, 1, tzinfo=UTC),
    ],
)
def test_any_value_may_name_a_recording(
    world: World, whisper: FakeWhisper, original_id: Any
) -> None:
    world.record(range(3), original_id=original_id, data=b"x")
    done = world.run()
    assert done.returncode == 0, done.stderr
    world.assert_all_done()


def test_a_list_cannot_name_a_recording(world: World, whisper: FakeWhisper) -> None:
    world.record([0], original_id=[1, 2])
    assert world.run().returncode == 1
    [bad] = world.pending()
    assert "original_id is a list" in bad["stt"]["error"]["message"]


def test_name_and_type_of_the_parts_follow_the_format(world: World, whisper: FakeWhisper) -> None:
    world.record([0], format="opus")
    world.record([1], format="wav")
    world.chunks.update_many({}, {"$set": {"original_id": "one"}})
    assert world.run(env={"STT_API_KEY": "k3y"}).returncode == 0
    [request] = whisper.requests
    assert [(file.name, file.media) for file in request.files] == [
        ("chunk_0.opus", "audio/opus"),
        ("chunk_1.wav", "audio/wav"),
    ]
    assert request.path == "/transcribe"
    assert request.headers["x-api-key"] == "k3y"


# -- bad answers ------------------------------------------------------------------------------

GOOD = {"start": 0.0, "end": 1.0, "text": "the text of somebody"}


def answer(**body: Any) -> Reply:
    return Reply(body=json.dumps(body).encode())


BAD_ANSWERS: dict[str, Reply] = {
    "not JSON": Reply(body=b"<html>the text of somebody</html>"),
    "nothing": Reply(body=b""),
    "a list": Reply(body=b"[1]"),
    "null": Reply(body=b"null"),
    "no segments": answer(language="en"),
    "segments is null": answer(segments=None),
    "segments is text": answer(segments="the text of somebody"),
    "a segment is text": answer(segments=["the text of somebody"]),
    "text is a number": answer(segments=[{**GOOD, "text": 7}]),
    "no text": answer(segments=[{"start": 0, "end": 1}]),
    "time is text": answer(segments=[{**GOOD, "start": "0"}]),
    "time is true": answer(segments=[{**GOOD, "start": True}]),
    "time is NaN": Reply(body=b'{"segments": [{"start": NaN, "end": 1, "text": "x"}]}'),
    "time is infinite": Reply(body=b'{"segments": [{"start": 0, "end": 1e999, "text": "x"}]}'),
    "language is a list": answer(segments=[GOOD], language=["en"]),
    "probabilities are text": answer(segments=[GOOD], top_language_probs=[["en", "high"]]),
    "half a surrogate pair": answer(segments=[{**GOOD, "text": "\ud800"}]),
    "not UTF-8": Reply(body=b'{"segments": [{"start": 0, "end": 1, "text": "\xff"}]}'),
    "deeply nested": Reply(body=b'{"segments": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "truncated": Reply(raw=b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"segments": ['),
    "not HTTP": Reply(raw=b"the text of somebody\r\n\r\n"),
    "no answer": Reply(raw=b""),
    "larger than any transcript": Reply(
        body=b'{"segments": [], "x": "' + b"x" * 17_000_000 + b'"}'
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_an_error_of_that_attempt(
    world: World, whisper: FakeWhisper, name: str
) -> None:
    world.record(range(2), original_id="odd", start=START + timedelta(hours=1))
    world.record(range(2), original_id="good")
    whisper.script = only_for("odd/", lambda _: BAD_ANSWERS[name])
    done = world.run(env={"STT_RETRIES": "1"})
    assert done.returncode == 1, done.stderr
    assert [d["original"] for d in world.transcriptions.find()] == ["good"]
    left = world.pending()
    assert {c["original_id"] for c in left} == {"odd"}
    assert {c["stt"]["error"]["kind"] for c in left} <= {"invalid_answer", "connection"}
    assert "the text of somebody" not in world.log + done.stderr
    assert "the text of somebody" not in str(left)
    whisper.script = echo
    assert world.run("--retry-errors").returncode == 0
    world.assert_all_done()


@pytest.mark.parametrize("where", ["head", "body"])
def test_an_answer_that_drips_is_cut_off_at_the_timeout(
    world: World, whisper: FakeWhisper, where: str
) -> None:
    world.record(range(2), original_id="odd")
    whisper.script = only_for("odd/", lambda _: Reply(drips=where))
    began = time.monotonic()
    done = world.run(env={**QUICK, "STT_TIMEOUT_BASE": "1", "STT_RETRIES": "0"})
    assert time.monotonic() - began < 15
    assert done.returncode == 1
    assert {c["stt"]["error"]["kind"] for c in world.pending()} == {"timeout"}


def test_odd_but_usable_answers_are_taken(world: World, whisper: FakeWhisper) -> None:
    world.record(range(1))
    whisper.script = lambda _: Reply(
        body=json.dumps(
            {
                "segments": [
                    {"id": 1, "start": -0.5, "end": 2, "text": "before the start", "tokens": [1]},
                    {"start": 3, "end": 2.5, "text": "backwards", "no_speech_prob": None},
                ],
                "something": {"else": 1},
            }
        ).encode()
    )
    assert world.run().returncode == 0
    [document] = world.transcriptions.find()
    first, second = document["segments"]
    assert (first["start"], first["end"], first["text"]) == (0.0, 2.0, "before the start")
    assert (second["start"], second["end"], second["text"]) == (3.0, 3.0, "backwards")
    assert set(second) == {"start", "end", "start_at", "end_at", "text"}, "nothing is invented"
    assert document["language"] is None
    assert document["top_language_probs"] == []


# -- stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_requests_finish_gives_the_rest_back_and_ends(
    world: World, whisper: FakeWhisper, number: signal.Signals, code: int
) -> None:
    for recording in range(10):
        world.record(range(2), original_id=recording)
    whisper.script = lambda request: (whisper.released.wait(30), echo(request))[1]
    process = world.start("--max-workers", "2")
    whisper.wait_for(lambda: len(whisper.requests) == 2)
    process.send_signal(number)
    deadline = time.monotonic() + 20  # intake has stopped when the other claims are given back
    while world.claims.count_documents({}) > 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    whisper.released.set()
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert world.transcriptions.count_documents({}) == 2
    assert all("stt" not in chunk for chunk in world.pending())
    assert len(whisper.requests) == 2
    assert world.run().returncode == 0
    world.assert_all_done()


def test_requests_that_outlast_the_grace_are_cut_off_and_have_not_failed(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2))
    whisper.script = hang(whisper)
    process = world.start("--grace", "0.5")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    began = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 8
    assert process.returncode == 143, err
    assert all("stt" not in chunk for chunk in world.pending())
    assert "1 given back" in err


def test_a_second_signal_exits_at_once(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2))
    whisper.script = hang(whisper)
    process = world.start("--lease", "3")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 10
    while process.poll() is None:  # the first one may not have been handled yet
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    process.communicate()
    assert process.returncode == 130
    whisper.script = echo
    assert world.run("--lease", "3").returncode == 0
    world.assert_all_done()


def test_a_stop_during_a_retry_delay_is_immediate(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2))
    whisper.script = reset
    process = world.start("--backoff-base", "600", "--backoff-max", "600")
    deadline = time.monotonic() + 20
    while "trying again" not in world.log:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 143
    assert all("stt" not in chunk for chunk in world.pending())

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from stt_lib.errors import LocalStackError
from stt_lib.local.ingest import read_recording
from stt_lib.local.server import service
from stt_lib.local.server.app import serve
from stt_lib.local.server.upload import Refusal, Upload
from stt_lib.local.transcriber import HungUp
from tests.local.running import Server, parts
from tests.local.sounds import SAMPLES, encoded, sample, speech
from tests.support.waiting import eventually

TOO_BIG = b"x" * (5 * 1024 * 1024)


@pytest.fixture(scope="module")
def chunks() -> list[bytes]:
    return [chunk.data for chunk in read_recording(SAMPLES / "library.opus")]


def words(answer: requests.Response) -> list[str]:
    text = " ".join(segment["text"] for segment in answer.json()["segments"])
    return re.findall(r"[a-z']+", text.lower())


def test_transcribes_the_files_in_their_order_as_one_sound(
    server: Server, chunks: list[bytes]
) -> None:
    answer = server.post(*chunks)
    assert answer.status_code == 200
    expected = re.findall(r"[a-z']+", (SAMPLES / "library.txt").read_text().lower())
    heard = words(answer)
    assert heard[:3] == expected[:3]
    assert len(set(heard) & set(expected)) > 0.9 * len(set(expected))
    assert answer.json()["segments"][-1]["end"] == pytest.approx(33, abs=2)
    assert answer.json()["model"] == "tiny.en"


def test_the_order_of_the_files_decides(server: Server, chunks: list[bytes]) -> None:
    heard = words(server.post(chunks[1], chunks[0]))
    assert "thank" not in heard[:3]
    assert "thank" in heard


def test_takes_other_formats_side_by_side(server: Server) -> None:
    wav = encoded(speech(4), "wav", "pcm_s16le", rate=16_000)
    flac = encoded(speech(4), "flac", "flac", rate=16_000)
    assert words(server.post(wav, flac)).count("library") == 2


@pytest.mark.parametrize("key", ["", "wrong", "sesame2", "séame"])
def test_a_wrong_key_is_refused(server: Server, key: str) -> None:
    answer = server.post(b"anything", key=key)
    assert answer.status_code == 401
    assert "X-Api-Key" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("bad", "detail"),
    [(b"garbage" * 100, "chunk_1.opus is not audio"), (b"", "chunk_1.opus is empty")],
)
def test_names_the_file_that_is_not_audio(
    server: Server, chunks: list[bytes], bad: bytes, detail: str
) -> None:
    answer = server.post(chunks[0], bad, chunks[1])
    assert answer.status_code == 400
    assert answer.json() == {"detail": detail, "file": "chunk_1.opus", "position": 1}


def test_no_files_is_a_bad_request(server: Server) -> None:
    headers = {"X-Api-Key": server.key}
    url = f"{server.url}/transcribe"
    multipart = {**headers, "Content-Type": "multipart/form-data; boundary=x"}
    answers = [
        requests.post(url, headers=headers, timeout=5),
        requests.post(url, headers=headers, json={"files": "no"}, timeout=5),
        requests.post(url, headers=headers, data={"files": "a text"}, timeout=5),
        requests.post(url, headers=headers, files={"other": b"x"}, timeout=5),
        requests.post(url, headers=multipart, data=b"no multipart", timeout=5),
        requests.post(url, headers={**multipart, "Content-Type": "multipart/form-data"}, timeout=5),
    ]
    assert [answer.status_code for answer in answers] == [400] * len(answers)
    assert all(set(answer.json()) == {"detail"} for answer in answers)
    assert "Traceback" not in server.log


def test_too_much_is_refused(server: Server) -> None:
    answer = server.post(TOO_BIG)
    assert answer.status_code == 413
    assert "4194304 bytes" in answer.json()["detail"]


def test_too_much_is_refused_without_a_length_too(server: Server) -> None:
    prepared = requests.Request("POST", server.url, files=parts(TOO_BIG)).prepare()
    assert isinstance(prepared.body, bytes)
    pieces = [prepared.body[i : i + 65_536] for i in range(0, len(prepared.body), 65_536)]
    answer = requests.post(
        f"{server.url}/transcribe",
        data=iter(pieces),
        headers={"X-Api-Key": server.key, "Content-Type": prepared.headers["Content-Type"]},
        timeout=10,
    )
    assert answer.request.headers["Transfer-Encoding"] == "chunked"
    assert answer.status_code == 413


def test_small_files_with_hours_of_silence_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_AUDIO_SECONDS", 5.0)
    two = encoded(np.zeros(2 * 8000, np.float32), "flac", "flac", rate=8000)
    files = [Upload("a.flac", two), Upload("b.flac", two)]
    assert service._joined(files, lambda: False).size == 4 * 16_000
    with pytest.raises(Refusal, match="more than 5 s of sound") as caught:
        service._joined([*files, Upload("c.flac", two)], lambda: False)
    assert caught.value.status == 413


def test_decoding_stops_when_nobody_waits() -> None:
    with pytest.raises(HungUp):
        service._joined([Upload("a.opus", sample("library"))], lambda: True)


def test_a_full_queue_says_when_to_come_back(server: Server) -> None:
    with server.unanswered(sample("tides")):
        server.until_busy(in_progress=1, waiting=0)
        with server.unanswered(sample("tides")):
            server.until_busy(in_progress=1, waiting=1)
            answer = server.post(sample("library"))
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1
        # Who hangs up in the queue leaves it at once.
        server.until_busy(in_progress=1, waiting=0)
    # Who hangs up while we compute costs at most the 30 s of sound in hand.
    server.until_busy(in_progress=0, waiting=0)
    eventually(lambda: server.log.count("| 499 |") >= 2)


def test_health_answers_at_once_while_computing(server: Server) -> None:
    with server.unanswered(sample("tides")):
        server.until_busy(in_progress=1, waiting=0)
        for _ in range(20):
            began = time.monotonic()
            assert server.health()["in_progress"] == 1
            assert time.monotonic() - began < 0.5
    server.until_busy(in_progress=0, waiting=0)
    assert server.health() == {
        "status": "ok",
        "model": "tiny.en",
        "in_progress": 0,
        "waiting": 0,
    }


def test_a_client_that_leaves_during_its_upload_is_forgotten(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    before = server.log.count("| 499 |")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /transcribe HTTP/1.1\r\nHost: x\r\nX-Api-Key: sesame\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
    eventually(lambda: server.log.count("| 499 |") > before)
    assert "Traceback" not in server.log


def test_there_is_nothing_else_to_see(server: Server) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/"):
        assert requests.get(server.url + path, timeout=5).status_code == 404
    answer = requests.get(f"{server.url}/transcribe", timeout=5)
    assert answer.status_code == 405
    assert "server" not in answer.headers


def test_the_log_tells_who_got_what_and_no_more(server: Server) -> None:
    server.post(encoded(speech(2), "wav", "pcm_s16le", rate=16_000))
    requests.get(f"{server.url}/a%0Ab?secret=sesame", timeout=5)
    assert re.search(r"POST /transcribe \| 200 \| \d+\.\d\ds \| 1 file\(s\)", server.log)
    eventually(lambda: "GET /a%0Ab | 404" in server.log)  # it is written after the answer
    assert "sesame" not in server.log
    assert "library" not in server.log


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Server]:
    """A server that is stopped in the test."""
    running = Server(tmp_path / "whisper.log", parallel=1)
    yield running
    running.process.kill()
    running.process.wait()


def test_stops_cleanly_and_lets_a_request_finish(other: Server) -> None:
    with other.unanswered(sample("library")) as connection:
        other.until_busy(in_progress=1, waiting=0)
        os.kill(other.process.pid, signal.SIGTERM)
        assert connection.getresponse().status == 200
    assert other.process.wait(10) == -signal.SIGTERM
    assert "Traceback" not in other.log


def test_a_second_signal_stops_at_once(other: Server) -> None:
    with other.unanswered(sample("tides")):
        other.until_busy(in_progress=1, waiting=0)
        os.kill(other.process.pid, signal.SIGTERM)
        # The first one closes the door.
        eventually(lambda: _refuses(other.url))
        os.kill(other.process.pid, signal.SIGTERM)
        assert other.process.wait(5) == -signal.SIGTERM


def _refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return True
    return False


def test_without_a_key_none_is_asked_for(other: Server) -> None:
    assert other.post(b"garbage").status_code == 400


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"cannot listen on 127.0.0.1 port {port}"):
            serve(port=port, announce=lambda _: None)

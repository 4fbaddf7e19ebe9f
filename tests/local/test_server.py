import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from uvicorn.server import ServerState

from stt_lib.errors import ConfigurationError
from stt_lib.local.batching import BatchedModel
from stt_lib.local.ingest import read_recording
from stt_lib.local.server import service
from stt_lib.local.server.app import Connection, _config, serve
from stt_lib.local.server.protocol import Refusal, Upload
from stt_lib.local.server.service import Service
from stt_lib.local.transcriber import HungUp, Transcriber
from tests.local.running import Server, parts
from tests.local.sounds import SAMPLES, encoded, sample, speech, tone
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


@pytest.mark.timeout(180)
def test_a_long_recording_takes_no_more_memory_than_its_samples(server: Server) -> None:
    minutes = 40
    silence = encoded(np.zeros(minutes * 60 * 8000, np.float32), "flac", "flac", rate=8000)
    assert len(silence) < 1_000_000
    assert server.post(encoded(speech(8), "flac", "flac", rate=16_000)).ok
    before = peak_memory(server)
    answer = server.post(silence, timeout=120)
    assert answer.json()["segments"] == []
    assert peak_memory(server) - before < 1.5 * minutes * 60 * 16_000 * 4


def peak_memory(server: Server) -> int:
    """Bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found.group(1)) * 1024


def test_sound_without_speech_is_not_transcribed(server: Server) -> None:
    assert server.post(encoded(tone(20), "wav", "pcm_s16le")).json()["segments"] == []


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
    before = server.log.count("| 499 |")
    with server.connect() as client:
        client.sendall(
            b"POST /transcribe HTTP/1.1\r\nHost: x\r\nX-Api-Key: sesame\r\nContent-Length: 9999\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
    eventually(lambda: server.log.count("| 499 |") > before)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: x\r\nA"])
def test_a_connection_without_complete_headers_is_closed(sent: bytes) -> None:
    async def closed() -> None:
        connection = Connection(_config(idle_service()), ServerState(), {})
        transport = Transport()
        connection.connection_made(transport)
        if sent:
            connection.data_received(sent)
            # More of the same does not buy more time.
            connection.data_received(b"x")
        await asyncio.wait_for(transport.aborted.wait(), 20)

    asyncio.run(closed())


def test_a_complete_request_stops_the_clock_and_the_next_one_starts_it_again() -> None:
    async def answered() -> None:
        connection = Connection(_config(idle_service()), ServerState(), {})
        transport = Transport()
        connection.connection_made(transport)
        for _ in range(2):
            connection.data_received(b"GET /health HTTP/1.1\r\nHost: x\r\n")
            assert connection._deadline is not None
            connection.data_received(b"\r\n")
            assert connection._deadline is None
            await asyncio.gather(*connection.tasks)
        assert transport.written.count(b"200 OK") == 2
        connection.data_received(b"GET ")
        await asyncio.wait_for(transport.aborted.wait(), 20)

    asyncio.run(answered())


class Transport(asyncio.Transport):
    """Remembers what was done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = asyncio.Event()
        self.written = b""

    def abort(self) -> None:
        self.aborted.set()

    def is_closing(self) -> bool:
        return self.aborted.is_set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For connections in this process; servers in processes of their own have the usual one."""
    monkeypatch.setattr("stt_lib.local.server.app.HEADER_SECONDS", 0.05)


def idle_service() -> Service:
    transcriber = Transcriber.__new__(Transcriber)
    transcriber._batched = BatchedModel(None, 1)
    transcriber.model, transcriber.parallel = "none", 1
    return Service(transcriber, api_key=None, queue=1, max_bytes=1000)


def test_more_connections_than_file_descriptors_do_not_flood_the_log(tmp_path: Path) -> None:
    crowded = Server(tmp_path / "whisper.log", open_files=64, parallel=1)
    try:
        before = crowded.log.count("\n")
        with ExitStack() as clients:
            for _ in range(200):
                clients.enter_context(crowded.connect())
            # They are let in one after the other, so the last one is answered after all others.
            eventually(lambda: open_sockets(crowded) >= 32)
        eventually(lambda: open_sockets(crowded) < 32)
        assert crowded.health()["status"] == "ok"
        assert crowded.log.count("\n") - before < 10
    finally:
        crowded.stop()


def open_sockets(server: Server) -> int:
    return len(psutil.Process(server.process.pid).net_connections("tcp"))


def test_metrics_for_prometheus(server: Server) -> None:
    name = 'stt_server_requests_total{path="/transcribe",status="200"}'
    before = figures(server)
    server.post(encoded(speech(2), "wav", "pcm_s16le", rate=16_000))
    requests.get(f"{server.url}/nowhere", timeout=5)
    eventually(lambda: figures(server).get(name, 0) == before.get(name, 0) + 1)
    after = figures(server)
    assert after["stt_server_audio_seconds_total"] - before["stt_server_audio_seconds_total"] == 2
    assert (
        after["stt_server_computing_seconds_total"] > before["stt_server_computing_seconds_total"]
    )
    assert after["stt_server_in_progress"] == after["stt_server_waiting"] == 0
    assert after['stt_server_requests_total{path="other",status="404"}'] >= 1


def figures(server: Server) -> dict[str, float]:
    answer = requests.get(f"{server.url}/metrics", timeout=5)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_there_is_nothing_else_to_see(server: Server) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/"):
        assert requests.get(server.url + path, timeout=5).status_code == 404
    answer = requests.get(f"{server.url}/transcribe", timeout=5)
    assert answer.status_code == 405
    assert "server" not in answer.headers


def test_the_log_tells_who_got_what_and_no_more(server: Server) -> None:
    server.post(encoded(speech(2), "wav", "pcm_s16le", rate=16_000))
    requests.get(f"{server.url}/a%0Ab?secret=sesame", timeout=5)
    assert re.search(r"POST /transcribe \| 200 \| \d+\.\d\ds \| 1 file\n", server.log)
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
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}"):
            serve(idle_service, host="127.0.0.1", port=port, announce=lambda _: None)

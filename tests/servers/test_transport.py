"""What HTTP does to a request: interim answers, deadlines, and errors of the network."""

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stt_lib.errors import FailureKind, ServerMisconfigured, ServerTrouble
from stt_lib.servers import transport
from stt_lib.servers.transport import Channel, Part, Reply, http_channels
from tests.support.certificates import make_certificates
from tests.support.whisper import FakeWhisper, Request, echo, running
from tests.support.whisper import Reply as Answer

PARTS: list[Part] = [("files", ("a.opus", b"audio", "audio/opus"))]


@pytest.fixture
def channel() -> Iterator[Channel]:
    opened = http_channels()()
    yield opened
    opened.close()


def post(channel: Channel, whisper: FakeWhisper, seconds: float = 20.0) -> Reply:
    return channel.post(whisper.url, PARTS, {}, server="s", seconds=seconds)


def test_interim_answers_are_skipped(channel: Channel, whisper: FakeWhisper) -> None:
    """Taken for the answer, each would leave the real one to the next request."""

    def numbered(_: Request) -> Answer:
        return Answer(body=f"answer {len(whisper.requests)}".encode(), interim=True)

    whisper.script = numbered
    replies = [post(channel, whisper) for _ in range(3)]
    assert [reply.body for reply in replies] == [b"answer 1", b"answer 2", b"answer 3"]
    assert {reply.status for reply in replies} == {200}


def test_a_large_form_arrives_whole(channel: Channel, whisper: FakeWhisper) -> None:
    """It is sent in pieces, so that there is no copy of all the audio."""
    audio = [bytes([number]) * (transport.LARGE_BODY_BYTES // 2) for number in range(3)]
    parts: list[Part] = [
        ("files", (f"{n}.opus", data, "audio/opus")) for n, data in enumerate(audio)
    ]
    for _ in range(2):
        channel.post(whisper.url, parts, {}, server="s", seconds=20.0)
    assert [request.audio == audio for request in whisper.requests] == [True, True]


@pytest.mark.parametrize("status", [101, 199])
def test_an_interim_answer_without_a_final_one_is_no_answer(
    channel: Channel, whisper: FakeWhisper, status: int
) -> None:
    whisper.script = lambda _: Answer(raw=f"HTTP/1.1 {status} Odd\r\n\r\n".encode())
    with pytest.raises(ServerTrouble):
        post(channel, whisper)


def test_endless_interim_answers_end_with_the_deadline(
    channel: Channel, whisper: FakeWhisper
) -> None:
    whisper.script = lambda _: Answer(drips="interim")
    began = time.monotonic()
    with pytest.raises(ServerTrouble) as caught:
        post(channel, whisper, 1.0)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert time.monotonic() - began < 10


def test_what_is_known_once_a_request_is_sent_decides_on_its_deadline(
    channel: Channel, whisper: FakeWhisper
) -> None:
    whisper.gate.clear()
    with pytest.raises(ServerTrouble, match=r"within 0\.5 s"):
        channel.post(whisper.url, PARTS, {}, server="s", seconds=60.0, when_sent=lambda: 0.5)
    whisper.gate.set()
    whisper.script = lambda request: Answer(body=b"late", after=1.0)
    reply = channel.post(whisper.url, PARTS, {}, server="s", seconds=0.5, when_sent=lambda: 20.0)
    assert reply.body == b"late"
    whisper.script = echo
    assert post(channel, whisper).status == 200


def refused(channel: Channel, url: str) -> str:
    with pytest.raises(ServerMisconfigured) as caught:
        channel.post(url, PARTS, {}, server=url, seconds=10.0)
    assert caught.value.kind is FailureKind.WRONG_SERVER
    return str(caught.value)


def test_https_to_a_plain_port_says_so(channel: Channel, whisper: FakeWhisper) -> None:
    url = whisper.url.replace("http://", "https://")
    assert f"if it speaks plain http, write {whisper.url}" in refused(channel, url)


def test_http_to_a_tls_port_says_so(channel: Channel, whisper: FakeWhisper) -> None:
    """Go's and OpenSSL's servers send an alert; nginx an answer of its own."""
    whisper.script = lambda _: Answer(raw=b"\x15\x03\x01\x00\x02\x02\x46\r\n")
    assert "expects https: write https://127" in refused(channel, whisper.url)


@pytest.mark.parametrize("size", [100, 300_000])
def test_http_to_a_tls_port_that_hangs_up_says_what_may_be_wrong(
    channel: Channel, tmp_path: Path, size: int
) -> None:
    """Python's servers send no alert: the client sees that the connection is gone."""
    parts: list[Part] = [("files", ("a.opus", size * b"a", "audio/opus"))]
    with running_tls(tmp_path) as fake, pytest.raises(ServerTrouble) as caught:
        channel.post(fake.url, parts, {}, server=fake.url, seconds=10.0)
    assert caught.value.kind is FailureKind.CONNECTION
    assert str(caught.value).endswith(
        f": if it expects https, write {fake.url.replace('http://', 'https://')}"
    )


def test_a_server_that_answered_before_is_not_taken_for_one_that_expects_https(
    channel: Channel, whisper: FakeWhisper
) -> None:
    post(channel, whisper)
    whisper.script = lambda _: Answer(resets=True)
    with pytest.raises(ServerTrouble, match=r"broke \(ConnectionResetError\)$"):
        post(channel, whisper)


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch, whisper: FakeWhisper) -> str:
    """The address of a server behind a proxy."""
    monkeypatch.setenv("HTTP_PROXY", whisper.url)
    transport._proxies.cache_clear()
    return "http://whisper.example"


def test_a_request_by_way_of_a_proxy_has_the_same_deadlines(
    channel: Channel, whisper: FakeWhisper, proxied: str
) -> None:
    assert channel.post(proxied, PARTS, {}, server="s", seconds=20.0).status == 200
    whisper.gate.clear()
    with pytest.raises(ServerTrouble, match=r"within 0\.5 s"):
        channel.post(proxied, PARTS, {}, server="s", seconds=20.0, when_sent=lambda: 0.5)


def test_a_request_by_way_of_a_proxy_can_be_cut(
    channel: Channel, whisper: FakeWhisper, proxied: str
) -> None:
    whisper.gate.clear()
    with ThreadPoolExecutor(1) as elsewhere:
        request = elsewhere.submit(channel.post, proxied, PARTS, {}, server="s", seconds=20.0)
        whisper.wait_for(lambda: bool(whisper.requests))
        channel.cut()
        with pytest.raises(ServerTrouble, match="broke"):
            request.result(10.0)


@contextmanager
def running_tls(folder: Path) -> Iterator[FakeWhisper]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificates(folder).server)
    with running() as fake:
        # The handshake comes with the first read, so that no client holds up the others.
        fake._server.socket = context.wrap_socket(
            fake._server.socket, server_side=True, do_handshake_on_connect=False
        )
        yield fake


@pytest.mark.parametrize("read", [0, 1000])
def test_a_secure_connection_that_breaks_is_as_broken_as_any(tmp_path: Path, read: int) -> None:
    """In the handshake, or in the upload: nothing is wrong with the address."""
    with running_tls(tmp_path) as fake:
        hang_up_once(fake, read)
        url = fake.url.replace("http://", "https://")
        parts: list[Part] = [("files", ("a.opus", 3_000_000 * b"a", "audio/opus"))]
        channel = http_channels(tmp_path / "authority.pem")()
        with pytest.raises(ServerTrouble) as caught:
            channel.post(url, parts, {}, server=url, seconds=20.0)
        assert caught.value.kind is FailureKind.CONNECTION
        assert channel.post(url, parts, {}, server=url, seconds=20.0).status == 200
        channel.close()


def hang_up_once(fake: FakeWhisper, read: int) -> None:
    """End the first connection once so many bytes of the request have come."""
    accept = fake._server.get_request
    seen: list[Any] = []

    def get_request() -> Any:
        connection, address = accept()
        if not seen:
            seen.append(connection)
            if read:
                connection.recv(read)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            raise ConnectionAbortedError
        return connection, address

    fake._server.get_request = get_request  # type: ignore[method-assign]


def test_a_certificate_that_nobody_knows_is_named(channel: Channel, tmp_path: Path) -> None:
    with running_tls(tmp_path) as fake:
        message = refused(channel, fake.url.replace("http://", "https://"))
    assert "is not trusted: name the authority that signed it with --ca-file" in message
    assert "is it running" not in message

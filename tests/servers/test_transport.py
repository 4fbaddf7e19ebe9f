"""What HTTP does to a request: interim answers, deadlines, and errors of the network."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stt_lib.errors import FailureKind, ServerMisconfigured, ServerTrouble
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


def test_a_certificate_that_nobody_knows_is_named(channel: Channel, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificates(tmp_path).server)
    with running() as fake:
        fake._server.socket = context.wrap_socket(fake._server.socket, server_side=True)
        message = refused(channel, fake.url.replace("http://", "https://"))
    assert "is not trusted: name the authority that signed it with --ca-file" in message
    assert "is it running" not in message

"""A Whisper server for tests: real HTTP, scripted answers, and a record of every request."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """One request as the server saw it; `seconds` are of the monotonic clock."""

    path: str
    headers: dict[str, str]
    files: list[tuple[str, str, bytes]]  # file name, media type, content
    started: float
    ended: float | None = None

    @property
    def audio(self) -> list[bytes]:
        return [content for _, _, content in self.files]

    @property
    def is_probe(self) -> bool:
        return len(self.files) == 1 and self.files[0][2].startswith(b"OggS")


@dataclass
class Reply:
    """What to answer.

    `raw` replaces the whole answer on the wire; `drips` sends the head or the body of an answer
    byte by byte, for as long as the client listens.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    drips: str | None = None


Script = Callable[[Request], Reply]


def transcription(segments: list[dict[str, Any]], **more: Any) -> Reply:
    body = {"language": "en", "top_language_probs": [["en", 0.99]], "segments": segments, **more}
    return Reply(body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


def echo(request: Request) -> Reply:
    """Each chunk's bytes come back as its text, ten seconds after the one before."""
    return transcription(
        [
            {
                "start": 10.0 * i,
                "end": 10.0 * i + 9.0,
                "text": f" {audio.decode('latin-1')[:200] if audio[:4] != b'OggS' else 'testing'}",
                "no_speech_prob": 0.01,
            }
            for i, audio in enumerate(request.audio)
        ]
    )


def status(code: int, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(code, b"the text of somebody", named)


class FakeWhisper:
    """Answers by `script`; everything it was asked is in `requests`."""

    def __init__(self, script: Script = echo, port: int = 0) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self.released = threading.Event()  # set at the end, for scripts that hold requests
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def sequences(self) -> list[Request]:
        """The requests with users' audio, without the worker's own probes."""
        with self.changed:
            return [request for request in self.requests if not request.is_probe]

    @property
    def max_in_flight(self) -> int:
        events = []
        for request in self.sequences:
            events += [(request.started, 1), (request.ended or time.monotonic(), -1)]
        level = highest = 0
        for _, step in sorted(events):
            level += step
            highest = max(highest, level)
        return highest

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "the server waited in vain"

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


def _handler(fake: FakeWhisper) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = Request(
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                _files(self.headers["Content-Type"], body),
                time.monotonic(),
            )
            with fake.changed:
                fake.requests.append(request)
                fake.changed.notify_all()
            try:
                self._answer(fake.script(request))
            finally:
                with fake.changed:
                    request.ended = time.monotonic()
                    fake.changed.notify_all()

        def _answer(self, reply: Reply) -> None:
            if reply.drips is not None:
                self._drip(reply.drips)
                return
            if reply.raw is not None:
                self.wfile.write(reply.raw)
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def _drip(self, where: str) -> None:
            self.close_connection = True
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: " if where == "head" else head)
            while not fake.released.wait(0.05):
                self.wfile.write(b" ")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler


def _files(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    boundary = b"--" + content_type.partition("boundary=")[2].encode()
    files = []
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode()
        name = re.search(r'; name="([^"]*)"', text)
        filename = re.search(r'filename="([^"]*)"', text)
        media = re.search(r"Content-Type: (\S+)", text)
        assert name is not None
        assert name[1] == "files"
        assert filename is not None
        assert media is not None
        files.append((filename[1], media[1], content.removesuffix(b"\r\n")))
    return files


@contextmanager
def running(script: Script = echo) -> Iterator[FakeWhisper]:
    fake = FakeWhisper(script)
    try:
        yield fake
    finally:
        fake.stop()

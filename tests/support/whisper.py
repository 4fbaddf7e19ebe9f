"""A Whisper server for tests: real HTTP, scripted answers and faults, a record of every request.

It notices when a client hangs up while it waits, so that a request ends, as far as its record
goes, when its worker was killed or gave up, and not when the server would have answered.
"""

import json
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

HANG_SECONDS = 120.0
POLL_SECONDS = 0.1
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

DRIPS = {
    "head": (b"HTTP/1.1 200 OK\r\nX-Drip: ", b" "),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    "interim": (b"", INTERIM),
}


class File(NamedTuple):
    """A part with a file name."""

    field: str
    name: str
    media: str
    content: bytes


class Fault(StrEnum):
    """How a request may end when it does not end well."""

    SERVER_ERROR = "500"
    BUSY = "503"
    BUSY_UNTIL = "503 with Retry-After"
    TOO_LARGE = "413"
    RESET = "connection reset"
    HANG = "no answer"
    GARBAGE = "garbage"
    TRUNCATED = "truncated answer"
    WRONG_SHAPE = "wrong shape"
    INTERIM = "102 and 103 before the answer"


@dataclass(eq=False)
class Request:
    """One request as the server saw it; moments in seconds of the monotonic clock."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    fields: dict[str, str]
    files: list[File]
    started: float
    ended: float | None = None
    fault: Fault | None = None

    @property
    def audio(self) -> list[bytes]:
        return [file.content for file in self.files]

    @property
    def chunks(self) -> tuple[str, ...]:
        """The chunks of tests hold text that says which one it is."""
        return tuple(content.decode("latin-1") for content in self.audio)

    @property
    def worker(self) -> str:
        """The key, by which tests tell workers apart."""
        return self.headers.get("x-api-key", "")

    @property
    def is_probe(self) -> bool:
        return len(self.files) == 1 and self.files[0].content.startswith(b"OggS")


@dataclass
class Reply:
    """What to answer, `after` this many seconds.

    `raw` replaces the whole answer on the wire; `drips` sends the head or the body of an answer
    byte by byte, or interim answers, as long as the client listens; the last `missing` bytes are
    never sent; `resets` ends the connection instead; `interim` sends two answers first that are
    not final.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    drips: str | None = None
    after: float = 0.0
    missing: int = 0
    resets: bool = False
    interim: bool = False


Script = Callable[[Request], Reply]


# -- scripts ----------------------------------------------------------------------------------


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


class Faults:
    """A script that echoes, but fails `rate` of all requests.

    `pause` gives the shortest and the longest time that an answer takes, in seconds.
    """

    def __init__(self, rate: float, pause: tuple[float, float], seed: int) -> None:
        self.rate = rate
        self._pause = pause
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            is_bad = self._rng.random() < self.rate
            request.fault = self._rng.choice(list(Fault)) if is_bad else None
            seconds = self._rng.uniform(*self._pause)
        reply = _failing(request)
        reply.after = reply.after or seconds
        return reply


def _failing(request: Request) -> Reply:
    match request.fault:
        case Fault.SERVER_ERROR:
            return status(500)
        case Fault.BUSY:
            return Reply(503, b"busy")
        case Fault.BUSY_UNTIL:
            return Reply(503, b"busy", {"Retry-After": "1"})
        case Fault.TOO_LARGE if len(request.files) > 1:
            return status(413)
        case Fault.RESET:
            return Reply(resets=True)
        case Fault.HANG:
            return Reply(after=HANG_SECONDS)
        case Fault.GARBAGE:
            return Reply(body=b"<html>\xff\x00{")
        case Fault.WRONG_SHAPE:
            return Reply(body=b'{"segments": [{"text": 7}]}')
    reply = echo(request)
    if request.fault is Fault.TRUNCATED:
        reply.missing = 64
    reply.interim = request.fault is Fault.INTERIM
    return reply


# -- the server -------------------------------------------------------------------------------


class FakeWhisper:
    """Answers by `script`; everything it was asked is in `requests`."""

    def __init__(self, script: Script = echo, port: int = 0, host: str = "127.0.0.1") -> None:
        self.script = script
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self.gate = threading.Event()  # while it is clear, no request is answered
        self.gate.set()
        self.released = threading.Event()  # set at the end, for scripts that hold requests
        self._server = _Server((host, port), type("Handler", (_Handler,), {"fake": self}))
        self.port = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def sequences(self) -> list[Request]:
        """The requests with users' audio, without the worker's own probes."""
        with self.changed:
            return [request for request in self.requests if not request.is_probe]

    def posts(self) -> Counter[str]:
        """How often each chunk was posted."""
        return Counter(chunk for request in self.sequences for chunk in request.chunks)

    @property
    def faults(self) -> Counter[str]:
        with self.changed:
            return Counter(str(request.fault) for request in self.requests if request.fault)

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
        """Wait until a request came or ended that makes the condition true."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "the server waited in vain"

    def wait_for_more(self, count: int) -> None:
        """Wait until this many more requests with users' audio came."""
        wanted = len(self.sequences) + count
        self.wait_for(lambda: len(self.sequences) >= wanted, 90)

    def stop(self) -> None:
        self.released.set()
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- for the handler ----------------------------------------------------------------------

    def arrived(self, request: Request) -> None:
        with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    def ended(self, request: Request) -> None:
        with self.changed:
            request.ended = time.monotonic()
            self.changed.notify_all()

    def hangs_up_within(self, connection: socket.socket, seconds: float) -> bool:
        """Whether the client closes the connection first; a clear gate makes it wait longer."""
        deadline = time.monotonic() + seconds
        while not self.released.is_set():
            left = deadline - time.monotonic()
            if left <= 0 and self.gate.is_set():
                return False
            # A client waits for its answer before it sends anything else: what comes is the end.
            if select.select([connection], [], [], min(max(left, 0.01), POLL_SECONDS))[0]:
                return True
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client; the server is set in a subclass."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeWhisper

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers["content-length"]))
        request = _request(self.path, headers, body)
        self.fake.arrived(request)
        try:
            reply = self.fake.script(request)
            waits = reply.after > 0 or not self.fake.gate.is_set()
            if waits and self.fake.hangs_up_within(self.connection, reply.after):
                self.close_connection = True
            else:
                self._answer(reply)
        finally:
            self.fake.ended(request)

    def _answer(self, reply: Reply) -> None:
        if reply.resets:
            self._reset()
        elif reply.drips is not None:
            self._drip(reply.drips)
        elif reply.raw is not None:
            self.wfile.write(reply.raw)
            self.close_connection = True
        else:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        if reply.interim:
            self.wfile.write(INTERIM)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) - reply.missing])
        self.close_connection = self.close_connection or reply.missing > 0

    def _reset(self) -> None:
        linger_not = struct.pack("ii", 1, 0)  # closing then sends RST instead of FIN
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.connection.close()
        self.close_connection = True

    def _drip(self, what: str) -> None:
        self.close_connection = True
        begin, drop = DRIPS[what]
        self.wfile.write(begin)
        while not self.fake.released.wait(0.05):
            self.wfile.write(drop)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _request(address: str, headers: dict[str, str], body: bytes) -> Request:
    parts = urlsplit(address)
    query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    request = Request(parts.path, query, headers, {}, [], time.monotonic())
    boundary = b"--" + headers["content-type"].partition("boundary=")[2].encode()
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        _add(request, head.decode(), content.removesuffix(b"\r\n"))
    return request


def _add(request: Request, head: str, content: bytes) -> None:
    found = re.search(r'; name="([^"]*)"(?:; filename="([^"]*)"\r\nContent-Type: (\S+))?', head)
    assert found is not None, head
    name, filename, media = found.groups()
    if filename is not None:
        request.files.append(File(name, filename, media, content))
    else:
        assert name not in request.fields, "a field came twice"
        request.fields[name] = content.decode()


@contextmanager
def running(script: Script = echo) -> Iterator[FakeWhisper]:
    fake = FakeWhisper(script)
    try:
        yield fake
    finally:
        fake.stop()


@contextmanager
def faulty(
    *, rate: float = 0.0, pause: tuple[float, float] = (0.0, 0.0), seed: int = 0
) -> Iterator[FakeWhisper]:
    """A server of `Faults`."""
    with running(Faults(rate, pause, seed)) as fake:
        yield fake

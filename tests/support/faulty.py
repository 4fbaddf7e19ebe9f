"""A Whisper server that misbehaves: real HTTP, faults of many kinds, and a note of who posted what.

It notices when a client hangs up, so that a request ends, as far as its record goes, when its
worker was killed or lost its patience, and not when the server would have answered.
"""

import email
import email.policy
import json
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_SECONDS = 120.0
POLL_SECONDS = 0.1


class Fault(StrEnum):
    """How a request may end when it does not end well."""

    SERVER_ERROR = "500"
    BUSY = "503"
    BUSY_UNTIL = "503 with Retry-After"
    RESET = "connection reset"
    HANG = "no answer"
    GARBAGE = "garbage"
    TRUNCATED = "truncated answer"
    WRONG_SHAPE = "wrong shape"


@dataclass
class Visit:
    """One request: who posted which chunks, and when; seconds of the monotonic clock."""

    worker: str
    chunks: tuple[str, ...]
    fault: Fault | None
    started: float
    ended: float | None = None

    @property
    def is_probe(self) -> bool:
        return len(self.chunks) == 1 and self.chunks[0].startswith("OggS")


class FaultyWhisper:
    """Answers with each chunk's own bytes as its text, but fails `rate` of all requests.

    `pause` gives the shortest and the longest time that an answer takes, in seconds.
    """

    def __init__(
        self, *, rate: float = 0.0, pause: tuple[float, float] = (0.0, 0.0), seed: int = 0
    ) -> None:
        self.rate = rate
        self.pause = pause
        self.visits: list[Visit] = []
        self.changed = threading.Condition()
        self.gate = threading.Event()  # while it is clear, no request is answered
        self.gate.set()
        self._closing = threading.Event()
        self._rng = random.Random(seed)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def requests(self) -> list[Visit]:
        """The requests with users' audio, without the workers' own probes."""
        with self.changed:
            return [visit for visit in self.visits if not visit.is_probe]

    @property
    def faults(self) -> Counter[str]:
        with self.changed:
            return Counter(str(visit.fault) for visit in self.visits if visit.fault is not None)

    def posts(self) -> Counter[str]:
        """How often each chunk was posted."""
        return Counter(chunk for visit in self.requests for chunk in visit.chunks)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a request came or ended that makes the condition true."""
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    def stop(self) -> None:
        self._closing.set()
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- for the handler ----------------------------------------------------------------------

    def arrived(self, worker: str, chunks: tuple[str, ...]) -> tuple[Visit, float]:
        """Note a request, and decide its fate: its fault, if any, and how long it takes."""
        with self.changed:
            is_bad = self._rng.random() < self.rate
            fault = self._rng.choice(list(Fault)) if is_bad else None
            visit = Visit(worker, chunks, fault, time.monotonic())
            self.visits.append(visit)
            self.changed.notify_all()
            return visit, self._rng.uniform(*self.pause)

    def ended(self, visit: Visit) -> None:
        with self.changed:
            visit.ended = time.monotonic()
            self.changed.notify_all()

    def hangs_up_within(self, connection: socket.socket, seconds: float) -> bool:
        """Whether the client closes the connection before so many seconds are over."""
        deadline = time.monotonic() + seconds
        while not self._closing.is_set():
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
    """One connection of a client; `fake` is set by the subclass that `_handler` makes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FaultyWhisper

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        chunks = _files(self.headers["Content-Type"], body)
        visit, seconds = self.fake.arrived(self.headers.get("X-Api-Key", ""), chunks)
        try:
            if visit.fault is Fault.HANG:
                seconds = HANG_SECONDS
            if self.fake.hangs_up_within(self.connection, seconds):
                self.close_connection = True
            else:
                self._answer(visit)
        finally:
            self.fake.ended(visit)

    def _answer(self, visit: Visit) -> None:
        match visit.fault:
            case Fault.SERVER_ERROR:
                self._send(500, b"somebody's words")
            case Fault.BUSY:
                self._send(503, b"busy")
            case Fault.BUSY_UNTIL:
                self._send(503, b"busy", ("Retry-After", "1"))
            case Fault.RESET:
                self._reset()
            case Fault.GARBAGE:
                self._send(200, b"<html>\xff\x00{")
            case Fault.TRUNCATED:
                self._send(200, _heard(visit), missing=64)
            case Fault.WRONG_SHAPE:
                self._send(200, b'{"segments": [{"text": 7}]}')
            case _:
                self._send(200, _heard(visit))

    def _send(self, status: int, body: bytes, *headers: tuple[str, str], missing: int = 0) -> None:
        """Answer; so many of the bytes that are announced never come."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) - missing])
        self.close_connection = missing > 0

    def _reset(self) -> None:
        linger_not = struct.pack("ii", 1, 0)  # closing then sends RST instead of FIN
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _handler(server: FaultyWhisper) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"fake": server})


def _files(content_type: str, body: bytes) -> tuple[str, ...]:
    """What was posted; our chunks hold text, which says which chunk it is."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    parts = [part.get_payload(decode=True) for part in message.iter_parts()]
    return tuple(part.decode("latin-1") for part in parts if isinstance(part, bytes))


def _heard(visit: Visit) -> bytes:
    segments = [
        {"start": 10.0 * i, "end": 10.0 * i + 9.0, "text": f" {text[:100]}", "no_speech_prob": 0.01}
        for i, text in enumerate(visit.chunks)
    ]
    answer = {"language": "en", "top_language_probs": [["en", 0.99]], "segments": segments}
    return json.dumps(answer).encode()


@contextmanager
def faulty(
    *, rate: float = 0.0, pause: tuple[float, float] = (0.0, 0.0), seed: int = 0
) -> Iterator[FaultyWhisper]:
    server = FaultyWhisper(rate=rate, pause=pause, seed=seed)
    try:
        yield server
    finally:
        server.stop()

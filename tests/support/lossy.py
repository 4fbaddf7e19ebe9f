"""The way to MongoDB, on which answers get lost: a proxy that knows just enough of the protocol."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import bson

WRITES = frozenset({"insert", "update", "delete"})
HEADER_BYTES = 16
OP_MSG = 2013
BODY_AT = HEADER_BYTES + 4 + 1
"""Behind the header stand the flags, then the kind of the first section, which is the body."""


class LossyProxy:
    """Forwards to a mongod, which does all it is asked; but each write's first answer is lost.

    The connection breaks instead. When the same write is asked for again, all goes well.
    """

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._seen: set[bytes] = set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.lost: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"mongodb://127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    def stop(self) -> None:
        with self._lock:
            sockets = [self._listener, *self._sockets]
        for sock in sockets:
            _end(sock)
        for thread in self._threads:
            thread.join()
        for sock in sockets:
            sock.close()

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
            except OSError:
                return
            with self._lock:
                self._sockets += [client, server]
            loses_next = threading.Event()
            self._spawn(self._forward_requests, client, server, loses_next)
            self._spawn(self._forward_answers, server, client, loses_next)

    def _forward_requests(
        self, client: socket.socket, server: socket.socket, loses_next: threading.Event
    ) -> None:
        for message in _messages(client):
            name, what = _write(message)
            if name in WRITES and self._is_new(name, what):
                loses_next.set()
            try:
                server.sendall(message)
            except OSError:
                break
        _end(server)

    def _is_new(self, name: str, what: bytes) -> bool:
        with self._lock:
            is_new = what not in self._seen
            self._seen.add(what)
            self.lost[name] += is_new
            return is_new

    def _forward_answers(
        self, server: socket.socket, client: socket.socket, loses_next: threading.Event
    ) -> None:
        for message in _messages(server):
            if loses_next.is_set():
                break
            try:
                client.sendall(message)
            except OSError:
                break
        _end(client)
        _end(server)


def _messages(sock: socket.socket) -> Iterator[bytes]:
    """Whole messages of MongoDB's wire protocol, until the connection ends."""
    while True:
        head = _exactly(sock, HEADER_BYTES)
        if head is None:
            return
        body = _exactly(sock, int.from_bytes(head[:4], "little") - HEADER_BYTES)
        if body is None:
            return
        yield head + body


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    received = b""
    while len(received) < size:
        try:
            piece = sock.recv(size - len(received))
        except OSError:
            return None
        if not piece:
            return None
        received += piece
    return received


def _write(message: bytes) -> tuple[str, bytes]:
    """The name of the command, and what it is to write: the same when it is asked for again."""
    if int.from_bytes(message[12:16], "little") != OP_MSG:
        return "", b""
    size = int.from_bytes(message[BODY_AT : BODY_AT + 4], "little")
    body = bson.decode(message[BODY_AT : BODY_AT + size])
    rows = message[BODY_AT + size :]  # what insert and update write stands behind the body
    return next(iter(body)), repr((body.get("query"), body.get("update"), rows)).encode()


def _end(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended


@contextmanager
def lossy(port: int) -> Iterator[LossyProxy]:
    proxy = LossyProxy(port)
    try:
        yield proxy
    finally:
        proxy.stop()

"""A server that takes any multipart request, notes it as it came, and answers by a script."""

import email
import email.policy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.whisper import Reply


@dataclass(frozen=True)
class File:
    """A part with a file name."""

    field: str
    name: str
    media: str
    content: bytes


@dataclass(frozen=True)
class Post:
    """One request as it came over the wire."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    fields: dict[str, str] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)


Script = Callable[[Post], Reply]


class FormServer:
    """Everything it was asked is in `posts`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.posts: list[Post] = []
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: FormServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        post = _parsed(self.path, dict(self.headers.items()), body)
        self.server_.posts.append(post)
        reply = self.server_.script(post)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _parsed(address: str, headers: dict[str, str], body: bytes) -> Post:
    parts = urlsplit(address)
    named = {name.lower(): value for name, value in headers.items()}
    post = Post(parts.path, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))), named)
    head = f"Content-Type: {named['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    for part in message.iter_parts():
        disposition = part["Content-Disposition"].params
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if "filename" in disposition:
            media = part.get_content_type()
            file = File(disposition["name"], disposition["filename"], media, content)
            post.files.append(file)
        else:
            assert disposition["name"] not in post.fields, "a field came twice"
            post.fields[disposition["name"]] = content.decode()
    return post


@contextmanager
def form_server(script: Script) -> Iterator[FormServer]:
    server = FormServer(script)
    try:
        yield server
    finally:
        server.stop()

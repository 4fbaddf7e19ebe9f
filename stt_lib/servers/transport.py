"""One request over HTTP: the only module that knows requests.

What the network does becomes an error of ours here; what the answer means is decided elsewhere.
"""

import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakSet

import requests
import requests.utils
from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from stt_lib.errors import (
    ConfigurationError,
    FailureKind,
    ServerMisconfigured,
    ServerTrouble,
    Suspect,
)

CONNECT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Five minutes of speech are some 30 kB of JSON; word times and odd spacing some 500 kB."""

Part = tuple[str, tuple[str, bytes, str] | tuple[None, str]]
"""Name of the field, then file name, content and media type; or None and the value."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that came in whole, whatever it says; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_posting = threading.local()  # the channel by which this thread posts


def _nothing() -> None:
    """For requests of which nobody asked to be told that they are sent."""


class _OfChannel:
    """A connection that its channel knows, so that it can be cut, and tells when it has sent."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        # The channel bounds the request as a whole. The time for connecting must not become
        # the time for sending: a busy server may leave our upload in its queue for a while.
        self.sock.settimeout(None)
        _posting.channel.connections.add(self)

    def getresponse(self) -> Any:
        _posting.channel.when_sent()
        return super().getresponse()  # type: ignore[misc]


class _Http(_OfChannel, HTTPConnection):
    pass


class _Https(_OfChannel, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def __init__(self, trusted: ssl.SSLContext | None) -> None:
        self._trusted = trusted
        super().__init__(pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        if self._trusted is not None:
            kwargs["ssl_context"] = self._trusted
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def authorities(ca_file: Path | None) -> ssl.SSLContext | None:
    """Who is trusted if not only the usual authorities: those in `ca_file` (PEM) as well.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    if ca_file is None:
        return None
    trusted = ssl.create_default_context()
    try:
        trusted.load_verify_locations(ca_file)
    except ssl.SSLError:
        raise ConfigurationError(f"--ca-file holds no certificates (PEM): {ca_file}") from None
    except OSError as error:
        raise ConfigurationError(
            f"--ca-file cannot be read: {ca_file} ({error.strerror})"
        ) from None
    return trusted


class Channel:
    """Kept-alive connections for one request at a time; `cut` may be called by any thread."""

    def __init__(self, trusted: ssl.SSLContext | None = None) -> None:
        """Certificates are checked, by default against the usual authorities."""
        self.connections: WeakSet[Any] = WeakSet()
        self.deadline: float | None = None
        self.when_sent: Callable[[], None] = _nothing
        self._session = requests.Session()
        self._known: dict[str, PreparedRequest] = {}
        self._session.trust_env = False  # a .netrc must not add to what we send
        self._session.mount("http://", _Adapter(None))
        self._session.mount("https://", _Adapter(trusted))

    @contextmanager
    def telling(self, when_sent: Callable[[], None]) -> Iterator[None]:
        """Call this, in the thread that posts, whenever a request has been sent."""
        self.when_sent = when_sent
        try:
            yield
        finally:
            self.when_sent = _nothing

    def post(
        self,
        url: str,
        parts: list[Part],
        headers: Mapping[str, str],
        *,
        server: str,
        seconds: float,
    ) -> Reply:
        """Post a multipart request and read the whole answer, all within `seconds`.

        Redirects are answers, not followed: they would carry the key and the audio elsewhere.

        Raises:
            ServerTrouble: refused, broken, or too slow.
            ServerMisconfigured: the address cannot be used at all.
            Suspect: the answer is larger than any transcript.
        """
        _posting.channel = self
        body, media = _multipart(parts)
        deadline = time.monotonic() + seconds
        self.deadline = deadline
        try:
            with self._session.send(
                self._prepared(url, body, {**headers, "Content-Type": media}),
                timeout=(min(CONNECT_SECONDS, seconds), seconds),
                allow_redirects=False,
                stream=True,
                proxies=_proxies(url),
            ) as response:
                reply = Reply(
                    response.status_code,
                    {name.lower(): value for name, value in response.headers.items()},
                    _body(response, server),
                )
        except (requests.RequestException, urllib3_errors.HTTPError, OSError) as error:
            if time.monotonic() >= deadline:
                raise _too_late(server, seconds) from None
            # Without the cause: its text may quote what the server sent, and the log shows it.
            raise _translated(error, server, seconds) from None
        finally:
            self.deadline = None
        if time.monotonic() >= deadline:
            raise _too_late(server, seconds)  # what was cut off may look whole
        if reply.status >= 500:
            self._session.close()  # a server that failed so often hangs up, a moment later
        return reply

    def _prepared(self, url: str, body: bytes, headers: Mapping[str, str]) -> PreparedRequest:
        """A request to an address already known, without taking that to pieces once more."""
        if url not in self._known:
            self._known[url] = self._session.prepare_request(requests.Request("POST", url))
        prepared = self._known[url].copy()  # what one request carries is not the next one's
        prepared.headers.update(headers)
        prepared.headers["Content-Length"] = str(len(body))
        prepared.body = body
        return prepared

    def cut(self) -> None:
        """End the request under way, at once, by closing its connection under it."""
        for connection in list(self.connections):
            sock = connection.sock
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed already

    def close(self) -> None:
        self._session.close()


class Watchdog:
    """Cuts requests that have run past their deadline.

    A timeout of requests bounds the wait for the next byte; a server that sends a byte a second
    would hold a worker for ever.
    """

    _LOOK_EVERY_SECONDS = 0.5

    def __init__(self, channels: list[Channel]) -> None:
        self._channels = channels
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stt-watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(self._LOOK_EVERY_SECONDS):
            now = time.monotonic()
            for channel in self._channels:
                deadline = channel.deadline
                if deadline is not None and now >= deadline:
                    channel.cut()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def _multipart(parts: list[Part]) -> tuple[bytes, str]:
    """Body and media type of a form (RFC 7578), in a third of the time that requests takes.

    The names of fields and files are ours, so that nothing in them has to be escaped.
    """
    boundary = uuid.uuid4().hex
    pieces: list[bytes] = []
    for field, part in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"'
        match part:
            case (None, str(value)):
                pieces += [f"{head}\r\n\r\n{value}\r\n".encode()]
            case (name, content, media):
                head = f'{head}; filename="{name}"\r\nContent-Type: {media}\r\n\r\n'
                pieces += [head.encode(), content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def display_name(url: str) -> str:
    """A server's address without the user, password and query it may carry."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


_known_proxies: dict[str, Any] = {}


def _proxies(url: str) -> Any:
    """The proxies of the environment, looked up once per address: it costs as much as a post."""
    if url not in _known_proxies:
        _known_proxies[url] = requests.utils.get_environ_proxies(url)
    return _known_proxies[url]


def _body(response: requests.Response, server: str) -> bytes:
    pieces, size = [], 0
    for piece in response.iter_content(64 * 1024):
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise Suspect(
                FailureKind.INVALID_ANSWER,
                f"{server} sent more than {MAX_ANSWER_BYTES // 2**20} MiB",
                server,
            )
        pieces.append(piece)
    return b"".join(pieces)


def _translated(error: Exception, server: str, seconds: float) -> ServerTrouble:
    """Every failure of the network, in the words of the person who runs the server."""
    if isinstance(error, requests.ConnectTimeout):
        return _unreachable(f"Connection timeout: {server} does not accept connections", server)
    if isinstance(error, requests.Timeout | TimeoutError):
        return _too_late(server, seconds)
    if isinstance(error, _UNUSABLE):
        message = f"{server} is not an address that can be used ({type(error).__name__})"
        return ServerMisconfigured(FailureKind.WRONG_SERVER, message, server)
    if isinstance(error, requests.exceptions.SSLError):
        message = (
            f"no secure connection to {server}: check its certificate,"
            " or name the authority that signed it with --ca-file"
        )
        return ServerMisconfigured(FailureKind.CONNECTION, message, server)
    reason = _root(error)
    if isinstance(reason, urllib3_errors.NameResolutionError | socket.gaierror):
        return _unreachable(f"the name of {server} does not resolve", server)
    if isinstance(reason, urllib3_errors.NewConnectionError | ConnectionRefusedError):
        return _unreachable(f"{server} refused the connection: is it running?", server)
    message = f"the connection to {server} broke ({type(reason).__name__})"
    return ServerTrouble(FailureKind.CONNECTION, message, server)


def _too_late(server: str, seconds: float) -> ServerTrouble:
    message = f"Connection timeout: no complete answer from {server} within {seconds:g} s"
    return ServerTrouble(FailureKind.TIMEOUT, message, server)


_UNUSABLE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidHeader,
    urllib3_errors.LocationValueError,
)


def _unreachable(message: str, server: str) -> ServerTrouble:
    trouble = ServerTrouble(FailureKind.CONNECTION, message, server)
    trouble.unreachable = True
    return trouble


def _root(error: BaseException) -> BaseException:
    """What is at the bottom: requests wraps urllib3, which wraps the socket's error."""
    seen = error
    while True:
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in seen.args if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            return seen
        seen = inner

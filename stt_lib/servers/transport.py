"""One request over HTTP: the only module that knows requests and urllib3.

Failures of the network become errors of stt here; what an answer means is decided elsewhere.
"""

import functools
import http.client
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
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
from stt_lib.timing import REAL, Timing

CONNECT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Bytes. Five minutes of speech are about 30 kB of JSON; word times and indentation, 500 kB."""

LARGE_BODY_BYTES: Final = 8 * 1024 * 1024
"""Bytes. Audio of five minutes takes about 2 MB when it is coded."""

Part = tuple[str, tuple[str, bytes, str] | tuple[None, str]]
"""Name of the field, then file name, content and media type; or None and the value."""

WhenSent = Callable[[], float | None]
"""Called once a request has been sent; may return the seconds that it is allowed from its start."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer, whatever it says; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def do_nothing() -> None:
    """The default of callbacks."""


class Channel(Protocol):
    """Sends one request at a time; a simulation has channels of its own."""

    def post(
        self,
        url: str,
        parts: list[Part],
        headers: Mapping[str, str],
        *,
        server: str,
        seconds: float,
        when_sent: WhenSent = do_nothing,
    ) -> Reply:
        """Post a multipart request and return the complete answer.

        All of it takes at most `seconds`, or what `when_sent` returns.

        Raises:
            ServerTrouble: refused, broken, or too slow.
            ServerMisconfigured: the address cannot be used at all.
            Suspect: the answer is larger than any transcript.
        """

    def cut(self) -> None:
        """Abort the request in flight; callable from any thread."""

    def expire(self) -> None:
        """Let the request in flight run out of time now; callable from any thread."""

    def close(self) -> None: ...


# -- connections ------------------------------------------------------------------------------

_posting = threading.local()  # the channel through which this thread posts


class _FinalResponse(http.client.HTTPResponse):
    """Skips every interim answer (1xx), as RFC 9110 section 15.2 demands; http.client knows 100.

    Taken for the answer, it would leave the real one to the next request on the connection.
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while 100 <= status < 200:
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


class _OfChannel:
    """A connection that registers with its channel, and reports when a request has been sent."""

    response_class: Any = _FinalResponse
    sock: Any
    timeout: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        # The channel bounds the request as a whole. The timeout for connecting must not apply
        # to sending: a busy server may leave our upload in its queue for a while.
        self.sock.settimeout(None)
        _posting.channel.connections.add(self)

    def getresponse(self) -> Any:
        self.timeout = _posting.channel.seconds_left_once_sent()
        return super().getresponse()  # type: ignore[misc]


class _Http(_OfChannel, HTTPConnection):
    pass


class _Https(_OfChannel, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


class _Adapter(HTTPAdapter):
    """Sends over the connections of this module, also by way of a proxy."""

    def __init__(self, trusted: ssl.SSLContext | None) -> None:
        self._tls: dict[str, Any] = {} if trusted is None else {"ssl_context": trusted}
        super().__init__(pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **{**self._tls, **kwargs})
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **self._tls, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def _authorities(ca_file: Path | None) -> ssl.SSLContext | None:
    """The usual certificate authorities and those in `ca_file` (PEM); None without a file."""
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


# -- channels ---------------------------------------------------------------------------------


class HttpChannel:
    """Kept-alive connections for one request at a time."""

    def __init__(
        self, trusted: ssl.SSLContext | None, watchdog: "_Watchdog", timing: Timing
    ) -> None:
        self.connections: WeakSet[Any] = WeakSet()
        self.deadline: float | None = None
        self._began = 0.0
        self._when_sent: WhenSent = do_nothing
        self._timing = timing
        self._watchdog = watchdog
        self._known: dict[str, PreparedRequest] = {}
        self._answered: set[str] = set()
        self._session = requests.Session()
        self._session.trust_env = False  # a .netrc must not add to what we send
        self._session.mount("http://", _Adapter(None))
        self._session.mount("https://", _Adapter(trusted))
        watchdog.watch(self)

    def post(
        self,
        url: str,
        parts: list[Part],
        headers: Mapping[str, str],
        *,
        server: str,
        seconds: float,
        when_sent: WhenSent = do_nothing,
    ) -> Reply:
        """See `Channel`. Redirects are not followed: the key and the audio stay with the server."""
        pieces, media = _multipart(parts)
        prepared = self._prepared(url, pieces, {**headers, "Content-Type": media})
        _posting.channel = self
        self._when_sent = when_sent
        self._began = self._timing.monotonic()
        self.deadline = self._began + seconds
        try:
            reply = self._exchanged(prepared, url, server, seconds)
        except (requests.RequestException, urllib3_errors.HTTPError, OSError) as error:
            if self._is_late:
                raise self._too_late(server) from None
            is_new = server not in self._answered
            # Without the cause: its text may quote what the server sent, and the log shows it.
            raise _translated(error, server, is_new=is_new) or self._too_late(server) from None
        else:
            if self._is_late:
                raise self._too_late(server)  # what was cut off may look complete
        finally:
            self.deadline = None
        self._answered.add(server)
        if not 200 <= reply.status < 500:
            self._session.close()  # a server that fails like this hangs up a moment later
        return reply

    def _prepared(
        self, url: str, pieces: list[bytes], headers: Mapping[str, str]
    ) -> PreparedRequest:
        """A request; what is the same for every request to an address is prepared once."""
        if url not in self._known:
            self._known[url] = self._session.prepare_request(requests.Request("POST", url))
        prepared = self._known[url].copy()
        prepared.headers.update(headers)
        length = sum(map(len, pieces))
        prepared.headers["Content-Length"] = str(length)
        # In one piece it is sent at once; a large one is not copied for that.
        is_large = length > LARGE_BODY_BYTES
        prepared.body = pieces if is_large else b"".join(pieces)  # type: ignore[assignment]
        return prepared

    def _exchanged(self, prepared: PreparedRequest, url: str, server: str, seconds: float) -> Reply:
        with self._session.send(
            prepared,
            timeout=(min(CONNECT_SECONDS, seconds), seconds),
            allow_redirects=False,
            stream=True,
            proxies=_proxies(url),
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status_code, headers, _body(response, server))

    def seconds_left_once_sent(self) -> float:
        """For the connection: the request has been sent; returns the time left for its answer."""
        allowed = self._when_sent()
        if allowed is not None:
            self.deadline = self._began + allowed
        deadline = self.deadline or self._began
        return max(deadline - self._timing.monotonic(), 1e-3)

    @property
    def _is_late(self) -> bool:
        return self.deadline is not None and self._timing.monotonic() >= self.deadline

    def _too_late(self, server: str) -> ServerTrouble:
        seconds = (self.deadline or self._began) - self._began
        message = f"Connection timeout: no complete answer from {server} within {seconds:g} s"
        return ServerTrouble(FailureKind.TIMEOUT, message, server)

    def cut(self) -> None:
        for connection in list(self.connections):
            sock = connection.sock
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed already

    def expire(self) -> None:
        if self.deadline is not None:
            self.deadline = self._timing.monotonic()
            self.cut()

    def close(self) -> None:
        self._watchdog.forget(self)
        self._session.close()


def http_channels(ca_file: Path | None = None, timing: Timing = REAL) -> Callable[[], Channel]:
    """What opens channels. Certificates are checked; authorities in `ca_file` are trusted, too.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    return functools.partial(HttpChannel, _authorities(ca_file), _Watchdog(timing), timing)


class _Watchdog:
    """Cuts requests that have run past their deadline.

    A timeout of requests bounds the wait for the next byte; a server that sends a byte a second
    would hold a worker forever. The thread lives as long as there are channels.
    """

    _INTERVAL_SECONDS = 0.5

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._channels: list[HttpChannel] = []
        self._over = timing.event()
        self._thread: Any = None

    def watch(self, channel: HttpChannel) -> None:
        self._channels = [*self._channels, channel]
        if self._thread is None:
            self._thread = self._timing.start_thread(self._run, "stt-watchdog")

    def forget(self, channel: HttpChannel) -> None:
        self._channels = [other for other in self._channels if other is not channel]
        if not self._channels:
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._INTERVAL_SECONDS):
            now = self._timing.monotonic()
            for channel in self._channels:
                deadline = channel.deadline
                if deadline is not None and now >= deadline:
                    channel.cut()


# -- requests ---------------------------------------------------------------------------------


def _multipart(parts: list[Part]) -> tuple[list[bytes], str]:
    """Body and media type of a form (RFC 7578), in a third of the time that requests takes.

    The names of fields and files are chosen by stt, so nothing in them has to be escaped.
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
    return pieces, f"multipart/form-data; boundary={boundary}"


def display_name(url: str) -> str:
    """A server's address without the user, password and query it may carry."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@functools.cache
def _proxies(url: str) -> Any:
    """The proxies of the environment; looking them up costs as much as a request."""
    return requests.utils.get_environ_proxies(url)


def _body(response: requests.Response, server: str) -> bytes:
    pieces, size = [], 0
    for piece in response.iter_content(64 * 1024):
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            message = f"{server} sent more than {MAX_ANSWER_BYTES // 2**20} MiB"
            raise Suspect(FailureKind.INVALID_ANSWER, message, server)
        pieces.append(piece)
    return b"".join(pieces)


# -- errors -----------------------------------------------------------------------------------


def _translated(error: Exception, server: str, *, is_new: bool) -> ServerTrouble | None:
    """A failure of the network, in the words of whoever runs the server; None for a timeout.

    The server `is_new` if it has never answered.
    """
    if isinstance(error, requests.ConnectTimeout):
        return _unreachable(f"Connection timeout: {server} does not accept connections", server)
    if isinstance(error, requests.Timeout | TimeoutError):
        return None
    if isinstance(error, _UNUSABLE):
        message = f"{server} is not an address that can be used ({type(error).__name__})"
        return ServerMisconfigured(FailureKind.WRONG_SERVER, message, server)
    reason = _root(error)
    if isinstance(error, requests.exceptions.SSLError) and not isinstance(reason, _BROKEN_TLS):
        return _insecure(reason, server)
    if isinstance(reason, http.client.BadStatusLine) and str(reason).startswith(_TLS_ALERT):
        message = f"{server} expects https: write {_with_tls(server)}"
        return ServerMisconfigured(FailureKind.WRONG_SERVER, message, server)
    if isinstance(reason, urllib3_errors.NameResolutionError | socket.gaierror):
        return _unreachable(f"the name of {server} does not resolve", server)
    if isinstance(reason, urllib3_errors.NewConnectionError | ConnectionRefusedError):
        return _unreachable(f"{server} refused the connection: is it running?", server)
    message = f"the connection to {server} broke ({type(reason).__name__})"
    if is_new and server.startswith("http://") and isinstance(reason, ConnectionError):
        # Many TLS servers hang up without a word when a request comes in plain text.
        message += f": if it expects https, write {_with_tls(server)}"
    return ServerTrouble(FailureKind.CONNECTION, message, server)


def _with_tls(server: str) -> str:
    return server.replace("http://", "https://", 1)


_TLS_ALERT = "\x15\x03"


def _insecure(reason: BaseException, server: str) -> ServerMisconfigured:
    if isinstance(reason, ssl.SSLCertVerificationError):
        what = (
            f"the certificate of {server} is not trusted: name the authority that signed it"
            f" with --ca-file ({reason.verify_message})"
        )
    elif getattr(reason, "reason", None) in _PLAIN_ANSWERS:
        plain = server.replace("https://", "http://", 1)
        what = f"{server} does not speak https: if it speaks plain http, write {plain}"
    else:
        what = f"no secure connection to {server} ({type(reason).__name__})"
    return ServerMisconfigured(FailureKind.WRONG_SERVER, what, server)


_PLAIN_ANSWERS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL says of an answer that is not TLS, in its versions."""

_BROKEN_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""What a secure connection ends with when it breaks, be it in the handshake."""

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
    """The innermost error: requests wraps urllib3, which wraps the socket's."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (arg for arg in error.args if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            return error
        error = inner

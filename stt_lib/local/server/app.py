"""The Whisper server on uvicorn: its routes, its sockets and its access log."""

import asyncio
import logging
import resource
import signal
import socket
import time
from collections.abc import Callable
from functools import cache
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from stt_lib.errors import ConfigurationError
from stt_lib.local.server.admission import Metrics
from stt_lib.local.server.service import CLIENT_CLOSED_REQUEST, FILES_KEY, Service
from stt_lib.telemetry.events import Event

BACKLOG = 2048
"""Connections that the system keeps until the server accepts them."""

GRACE_SECONDS = 95
"""Seconds that requests in progress may take after the first signal to stop: the deadline that a
worker gives a lone one, 5 s and 3 s for each of 30 chunks."""

KEEP_ALIVE_SECONDS = 75
"""Seconds. Longer than a client's pause between two requests, so that it rarely sends one while
the connection is being closed."""

HEADER_SECONDS = 10.0
"""Seconds that a client may take to send the headers of a request."""

log = logging.getLogger("stt")


def serve(
    make_service: Callable[[], Service], *, host: str, port: int, announce: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are finished within `GRACE_SECONDS`.

    The port is taken first, but connections are refused until the service is made, which loads the
    model. Port 0 stands for a free one; `announce` receives the URL once requests are accepted.
    Uvicorn raises the signal again at the end, so the caller's own handlers decide how the process
    ends.

    Raises:
        ConfigurationError: The port is in use.
    """
    with _bound(host, port) as listener:
        service = make_service()
        try:
            _Server(_config(service), announce).run(sockets=[listener])
        finally:
            service.close()


def create_app(service: Service) -> Starlette:
    """Return the HTTP side of a service."""
    return Starlette(
        routes=[
            Route("/transcribe", service.transcribe, methods=["POST"]),
            Route("/v1/audio/transcriptions", service.transcriptions, methods=["POST"]),
            Route("/health", service.health),
            Route("/metrics", service.metrics.page),
        ],
        middleware=[Middleware(AccessLog, service.metrics)],
        exception_handlers={HTTPException: _detail},
    )


async def _detail(_request: Request, error: Exception) -> Response:
    """Answer for a wrong path or method in the form of all other errors."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


class _Listener(socket.socket):
    def listen(self, _backlog: int = BACKLOG, /) -> None:
        super().listen(BACKLOG)


def _bound(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, which is slow; nobody can connect before that."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = _Listener(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    return listener


def _config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service),
        http=Connection,
        ws="none",
        lifespan="off",
        # asyncio accepts this many connections in a row, and logs a failure for each of them when
        # the process is out of file descriptors. `_Listener` tells the system the real backlog.
        backlog=1,
        # Logging is configured by the caller; requests are logged by AccessLog.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            self._announce(_address(listener))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Uvicorn ends at once only on a second SIGINT; we do on any second signal.
        is_second = self.should_exit
        super().handle_exit(signal.SIGINT if is_second else sig, frame)
        if is_second:
            # From Python 3.12 on, a listener is only closed once its connections are.
            for connection in self.server_state.connections:
                if connection.transport is not None:
                    connection.transport.abort()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Connection(H11Protocol):
    """Closes connections whose headers do not arrive in time, and those beyond the limit."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _max_connections():
            transport.abort()
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_headers()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@cache
def _max_connections() -> int:
    """Leave half of the file descriptors to uploads, the model and the log."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit // 2 if limit != resource.RLIM_INFINITY else BACKLOG


class AccessLog:
    """Logs and counts requests and their answers, never what was said."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Ray Serve announces the start and the end of the server.
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = CLIENT_CLOSED_REQUEST

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.count(scope["path"], status)
            seconds, files = time.monotonic() - began, scope.get(FILES_KEY, 0)
            log.info(
                "%s %s | %d | %.2fs | %d %s",
                scope["method"],
                # As it was sent: a decoded path could contain line breaks.
                scope["raw_path"].decode("latin-1"),
                status,
                seconds,
                files,
                "file" if files == 1 else "files",
                extra=Event.REQUEST.of(seconds=round(seconds, 3), status=status),
            )

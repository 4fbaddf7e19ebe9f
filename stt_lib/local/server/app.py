"""The Whisper server on uvicorn: `/transcribe`, `/v1/audio/transcriptions` and `/health`."""

import logging
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt_lib.errors import LocalStackError
from stt_lib.local.server.service import CLIENT_CLOSED_REQUEST, FILES_KEY, Service
from stt_lib.local.transcriber import BUNDLED_MODEL, Transcriber
from stt_lib.telemetry.events import Event

MAX_BYTES = 64 * 1024 * 1024
QUEUE = 8
GRACE_SECONDS = 20
"""How long requests in progress may go on after the first signal to stop."""

KEEP_ALIVE_SECONDS = 75
"""Longer than a client's pause between two requests, so that it seldom meets a closing door."""

log = logging.getLogger("stt")


def serve(
    *,
    announce: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 8081,
    model: str = BUNDLED_MODEL,
    api_key: str | None = None,
    parallel: int | None = None,
    queue: int = QUEUE,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Serve until SIGTERM or SIGINT; `announce` gets the address once requests are accepted.

    Uvicorn raises the signal again at the end, so the caller's own handlers decide how the process
    ends. `parallel` transcriptions are computed at a time, by default one per core.
    """
    with _bound(host, port) as listener:
        transcriber = Transcriber(model, parallel=parallel)
        service = Service(transcriber, api_key=api_key, queue=queue, max_bytes=max_bytes)
        try:
            _Server(_config(service), announce).run(sockets=[listener])
        finally:
            service.close()


def create_app(service: Service) -> FastAPI:
    """Return the HTTP side of a service."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for path, method, answer in (
        ("/transcribe", "POST", service.transcribe),
        ("/v1/audio/transcriptions", "POST", service.transcriptions),
        ("/health", "GET", service.health),
    ):
        app.add_api_route(path, answer, methods=[method], response_model=None)
    app.add_middleware(AccessLog)
    return app


def _bound(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, which is slow; nobody can connect before that."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as exc:
        raise LocalStackError(f"cannot listen on {host} port {port}: {exc.strerror}") from exc
    return listener


def _config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service),
        http="h11",
        ws="none",
        lifespan="off",
        # Logging is the caller's to set up; requests are logged by AccessLog.
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
        super().handle_exit(signal.SIGINT if self.should_exit else sig, frame)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class AccessLog:
    """Logs who was answered what, and never what was said."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
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
            _log_access(scope, status, time.monotonic() - began)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    log.info(
        "%s %s | %d | %.2fs | %d file(s)",
        scope["method"],
        # As it was sent: a decoded path could hold line breaks.
        scope["raw_path"].decode("latin-1"),
        status,
        seconds,
        scope.get(FILES_KEY, 0),
        extra=Event.REQUEST.of(seconds=round(seconds, 3), status=status),
    )

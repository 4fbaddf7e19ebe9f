"""Requests, limited while they are read and split into files and fields, and the answers."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive

from stt_lib.domain import utterances
from stt_lib.export.scope import Scope, readable
from stt_lib.export.subtitles import vtt_cues, write_srt

MAX_FILES = 1000
NAME_LENGTH = 100
UPLOAD_SECONDS = 60.0
"""Seconds that a client may take to send a request."""

DISCARD_SECONDS = 5.0
DISCARD_BYTES = 256 * 1024 * 1024
"""How long and how much of a refused upload is read: clients read the answer only after it."""

Heard = Mapping[str, Any]
"""What the transcriber returns, with `duration` in seconds."""

ZERO = datetime.fromtimestamp(0, UTC)
"""The beginning of the sound; only times since then appear in an answer."""


class Refusal(Exception):
    """An answer other than 200; `more` goes into its JSON beside `detail`."""

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self._content = {"detail": detail, **more}
        self._headers = headers

    def response(self) -> JSONResponse:
        """Return the answer in the form of all errors: JSON with a `detail`."""
        return JSONResponse(self._content, self.status, self._headers)


class Upload(NamedTuple):
    """One file of a request."""

    name: str
    data: bytes


class Form(NamedTuple):
    """The contents of a request; of several fields with the same name the last one."""

    files: list[Upload]
    fields: dict[str, str]


class Body:
    """What a client sends; raises Refusal once more than `limit` bytes were read."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._ended = False

    async def receive(self) -> Message:
        """Return the next ASGI message."""
        message = await self._next()
        if self._size > self._limit:
            raise too_large(self._limit)
        return message

    async def discard(self) -> None:
        """Read the rest, within limits, and forget it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._ended and self._size < DISCARD_BYTES:
                    await self._next()

    async def wait_for_hang_up(self) -> None:
        """Return once the client has closed the connection; the body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message


def too_large(limit: int) -> Refusal:
    """Return the refusal of a request of more than `limit` bytes."""
    return Refusal(413, f"the request is larger than {limit} bytes")


async def read_form(request: Request, body: Body, limit: int, part: str) -> Form:
    """Return the files named `part` of a multipart request in order, and its fields."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            form = await _form(Request(request.scope, body.receive), part)
    except TimeoutError:
        raise Refusal(408, f"the request took longer than {UPLOAD_SECONDS:.0f} s") from None
    except HTTPException as exc:
        raise Refusal(400, f"not a multipart request: {exc.detail}") from exc
    if not form.files:
        raise Refusal(400, f"no files: send multipart parts named {part}")
    return form


async def _form(request: Request, part: str) -> Form:
    async with request.form(max_files=MAX_FILES) as form:
        files = [
            await _upload(upload, part, position)
            for position, upload in enumerate(form.getlist(part), 1)
        ]
        # Empty fields count as not given.
        return Form(files, {k: v for k, v in form.items() if isinstance(v, str) and v})


async def _upload(upload: UploadFile | str, part: str, position: int) -> Upload:
    if isinstance(upload, str):
        raise Refusal(400, f"part {position} named {part} has no filename, so it is not a file")
    name = (upload.filename or f"file {position}")[:NAME_LENGTH]
    return Upload(name, await upload.read())


def _verbose_json(heard: Heard) -> Response:
    return JSONResponse(
        {
            "task": "transcribe",
            **{key: heard[key] for key in ("language", "duration", "model")},
            "language_probabilities": dict(heard["top_language_probs"]),
            "text": _text(heard),
            "segments": [{"id": i, **segment} for i, segment in enumerate(heard["segments"])],
        }
    )


def _subtitles(media_type: str, parts: Iterable[str]) -> Response:
    return PlainTextResponse("".join(parts), media_type=media_type)


FORMATS: dict[str, Callable[[Heard], Response]] = {
    "json": lambda heard: JSONResponse({"text": _text(heard)}),
    "text": lambda heard: PlainTextResponse(_text(heard) + "\n"),
    "verbose_json": _verbose_json,
    "srt": lambda heard: _subtitles("application/x-subrip", write_srt(*_said(heard))),
    "vtt": lambda heard: _subtitles("text/vtt", ["WEBVTT\n", *vtt_cues(*_said(heard))]),
}
"""The answers of `/v1/audio/transcriptions` by `response_format`."""


def _text(heard: Heard) -> str:
    return " ".join(segment["text"].strip() for segment in heard["segments"])


def _said(heard: Heard) -> tuple[list[utterances.Stretch], Scope]:
    stretch = utterances.stretch({"start": ZERO, **heard}, str)
    return list(readable([stretch] if stretch else [])), Scope("", None, None, zero=ZERO)

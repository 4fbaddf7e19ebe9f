"""The body of a request: limited while it is read, and split into its files and fields."""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive

MAX_FILES = 1000
NAME_LENGTH = 100
UPLOAD_SECONDS = 60.0
"""Seconds that a client may take to send a request."""

DISCARD_SECONDS = 5.0
DISCARD_BYTES = 256 * 1024 * 1024
"""How long and how much of a refused upload is read: clients read the answer only after it."""


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
    return Refusal(413, f"the request is larger than {limit} bytes")


async def read_form(request: Request, body: Body, limit: int, part: str) -> Form:
    """Return the files named `part` of a multipart request in order, and its fields."""
    _check_announced_size(request, limit)
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


def _check_announced_size(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)


async def _form(request: Request, part: str) -> Form:
    async with request.form(max_files=MAX_FILES) as form:
        files = [
            await _upload(upload, part, position)
            for position, upload in enumerate(form.getlist(part), 1)
        ]
        return Form(files, _fields(form))


def _fields(form: FormData) -> dict[str, str]:
    """Empty fields count as not given."""
    return {name: value for name, value in form.items() if isinstance(value, str) and value}


async def _upload(upload: UploadFile | str, part: str, position: int) -> Upload:
    if isinstance(upload, str):
        raise Refusal(400, f"part {position} named {part} has no filename, so it is not a file")
    name = (upload.filename or f"file {position}")[:NAME_LENGTH]
    return Upload(name, await upload.read())

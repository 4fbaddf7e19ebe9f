"""The body of a request: counted while it is read, and split into its files."""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

PART = "files"
MAX_FILES = 1000
NAME_LENGTH = 100
UPLOAD_SECONDS = 60.0
DISCARD_SECONDS = 5.0
DISCARD_BYTES = 256 * 1024 * 1024


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


class Body:
    """What a client sends; reading more than `limit` bytes of it is refused on the spot."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._ended = False

    async def receive(self) -> Message:
        """Return the next message, as ASGI does."""
        message = await self._next()
        if self._size > self._limit:
            raise too_large(self._limit)
        return message

    async def discard(self) -> None:
        """Read on for a while and forget it: a client gets to our answer only after its upload."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._ended and self._size < DISCARD_BYTES:
                    await self._next()

    async def wait_for_hang_up(self) -> None:
        """Return once the client has closed the connection; for a body that has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            continue

    async def _next(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        return message


def too_large(limit: int) -> Refusal:
    return Refusal(413, f"the request is larger than {limit} bytes")


async def read_files(request: Request, body: Body, limit: int) -> list[Upload]:
    """Return the files of a multipart request in their order."""
    _check_announced_size(request, limit)
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            uploads = await _parts(Request(request.scope, body.receive))
    except TimeoutError:
        raise Refusal(408, f"the request took longer than {UPLOAD_SECONDS:.0f} s") from None
    except HTTPException as exc:
        raise Refusal(400, f"not a multipart request: {exc.detail}") from exc
    if not uploads:
        raise Refusal(400, f"no files: send multipart parts named {PART}")
    return uploads


def _check_announced_size(request: Request, limit: int) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)


async def _parts(request: Request) -> list[Upload]:
    async with request.form(max_files=MAX_FILES) as form:
        return [
            await _upload(part, position) for position, part in enumerate(form.getlist(PART), 1)
        ]


async def _upload(part: UploadFile | str, position: int) -> Upload:
    if isinstance(part, str):
        raise Refusal(400, f"part {position} named {PART} has no filename, so it is not a file")
    return Upload((part.filename or f"file {position}")[:NAME_LENGTH], await part.read())

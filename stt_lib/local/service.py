"""What the Whisper server does with a request: check it, wait for a turn, decode, transcribe."""

import asyncio
import hmac
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from stt_lib.local.decoding import WHISPER_RATE, NotAudio, Samples, TooLong, decode
from stt_lib.local.turns import Turns
from stt_lib.local.upload import Body, Refusal, Upload, read_files
from stt_lib.local.whisper import HungUp, Transcriber

MAX_AUDIO_SECONDS = 3600.0
"""More sound than this in one request is refused: silence compresses to next to nothing."""

CLIENT_CLOSED_REQUEST = 499
"""What the log says of a request whose client has left."""

FILES_KEY = "stt.files"
"""Under this key of the ASGI scope the access log finds the number of files."""

log = logging.getLogger("stt")


class Service:
    """What the server does with requests for text."""

    def __init__(
        self, transcriber: Transcriber, *, api_key: str | None, queue: int, max_bytes: int
    ) -> None:
        self._transcriber = transcriber
        self._api_key = api_key
        self._max_bytes = max_bytes
        self._turns = Turns(transcriber.parallel, queue)
        self._pool = ThreadPoolExecutor(transcriber.parallel, thread_name_prefix="whisper")

    async def health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "model": self._transcriber.model,
            "in_progress": self._turns.in_progress,
            "waiting": self._turns.waiting,
        }

    async def transcribe(self, request: Request) -> Response:
        """Answer a request; whatever happens, the client learns no more than a sentence."""
        body = Body(request.receive, self._max_bytes)
        try:
            self._admit(request)
            files = await read_files(request, body, self._max_bytes)
            request.scope[FILES_KEY] = len(files)
            return JSONResponse(await self._text_of(files, body))
        except Refusal as refusal:
            await body.discard()
            return refusal.response()
        except (HungUp, ClientDisconnect):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception:
            log.exception("The transcription of a request failed")
            return Refusal(500, "internal error; the server's log has the details").response()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(self, request: Request) -> None:
        given = request.headers.get("x-api-key", "")
        if self._api_key is not None and not _same(given, self._api_key):
            raise Refusal(401, "the header X-Api-Key is missing or wrong")
        self._refuse_when_full()

    def _refuse_when_full(self) -> None:
        if self._turns.full:
            raise Refusal(
                503,
                "the queue is full",
                headers={"Retry-After": str(self._turns.retry_after())},
            )

    async def _text_of(self, files: list[Upload], body: Body) -> dict[str, Any]:
        # The queue may have filled up during the upload.
        self._refuse_when_full()
        hung_up = asyncio.create_task(body.wait_for_hang_up())
        try:
            async with self._turns.turn(hung_up):
                return await self._compute(files, hung_up.done)
        finally:
            # Also tells the thread to stop when this task is cancelled.
            hung_up.cancel()

    async def _compute(self, files: list[Upload], cancelled: Callable[[], bool]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._hear, files, cancelled)

    def _hear(self, files: list[Upload], cancelled: Callable[[], bool]) -> dict[str, Any]:
        return self._transcriber.transcribe(_joined(files, cancelled), cancelled)


def _same(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode("latin-1"), key.encode())


def _joined(files: list[Upload], cancelled: Callable[[], bool]) -> Samples:
    """Decode the files in their order into one sound."""
    sound: list[Samples] = []
    left = MAX_AUDIO_SECONDS
    for position, file in enumerate(files):
        if cancelled():
            raise HungUp
        sound.append(_decoded(file, position, left))
        left -= sound[-1].size / WHISPER_RATE
    return np.concatenate(sound)


def _decoded(file: Upload, position: int, limit: float) -> Samples:
    try:
        return decode(file.data, file.name, limit=limit)
    except NotAudio as exc:
        raise Refusal(400, str(exc), file=file.name, position=position) from exc
    except TooLong as exc:
        detail = f"the request holds more than {MAX_AUDIO_SECONDS:.0f} s of sound"
        raise Refusal(413, detail) from exc

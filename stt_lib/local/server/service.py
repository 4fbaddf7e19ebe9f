"""What the Whisper server does with a request: check it, wait for a turn, decode, transcribe."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from stt_lib.audio.decoding import WHISPER_RATE, NotAudio, Samples, TooLong, decode
from stt_lib.local.server.admission import Turns
from stt_lib.local.server.formats import FORMATS
from stt_lib.local.server.upload import Body, Form, Refusal, Upload, read_form
from stt_lib.local.transcriber import HungUp, Transcriber
from stt_lib.servers import languages
from stt_lib.telemetry.events import Event

MAX_AUDIO_SECONDS = 3600.0
"""More sound than this in one request is refused: silence compresses to next to nothing."""

CLIENT_CLOSED_REQUEST = 499
"""What the log says of a request whose client has left."""

ANY_MODEL = "whisper-1"
"""The model's name in the API of OpenAI: clients that do not care give it."""

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
        """Answer our own protocol: any number of parts named `files`."""
        return await self._served(request, "files", self._own_answer)

    async def transcriptions(self, request: Request) -> Response:
        """Answer the protocol of OpenAI: one part named `file`, and fields."""
        return await self._served(request, "file", self._openai_answer)

    async def _served(
        self, request: Request, part: str, answer: Callable[[Form, Body], Awaitable[Response]]
    ) -> Response:
        """Answer a request; whatever happens, the client learns no more than a sentence."""
        body = Body(request.receive, self._max_bytes)
        try:
            self._admit(request)
            form = await read_form(request, body, self._max_bytes, part)
            request.scope[FILES_KEY] = len(form.files)
            return await answer(form, body)
        except Refusal as refusal:
            await body.discard()
            return refusal.response()
        except (HungUp, ClientDisconnect):
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception:
            log.exception("The transcription of a request failed", extra=Event.REQUEST.of())
            return Refusal(500, "internal error; the server's log has the details").response()

    async def _own_answer(self, form: Form, body: Body) -> Response:
        heard = await self._text_of(form.files, body)
        del heard["duration"]
        return JSONResponse(heard)

    async def _openai_answer(self, form: Form, body: Body) -> Response:
        """What we cannot heed is refused where it would change the text, and ignored elsewhere."""
        if len(form.files) > 1:
            raise Refusal(400, "more than one part named file")
        render = FORMATS.get(form.fields.get("response_format", "json"))
        if render is None:
            raise Refusal(400, f"response_format must be one of {', '.join(FORMATS)}")
        hints = {"language": self._language(form), "prompt": form.fields.get("prompt")}
        self._check_model(form)
        return render(await self._text_of(form.files, body, **hints))

    def _check_model(self, form: Form) -> None:
        loaded = self._transcriber.model
        if form.fields.get("model", ANY_MODEL) not in (ANY_MODEL, loaded):
            raise Refusal(404, f"model not found: this server has {loaded}")

    def _language(self, form: Form) -> str | None:
        language = languages.code(form.fields.get("language"))
        if language is not None and language not in self._transcriber.languages:
            raise Refusal(400, f"{self._transcriber.model} does not speak that language")
        return language

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(self, request: Request) -> None:
        if self._api_key is not None and not _same(_key(request), self._api_key):
            raise Refusal(401, "the header X-Api-Key, or a Bearer token, is missing or wrong")
        self._refuse_when_full()

    def _refuse_when_full(self) -> None:
        if self._turns.full:
            raise Refusal(
                503,
                "the queue is full",
                headers={"Retry-After": str(self._turns.retry_after())},
            )

    async def _text_of(
        self, files: list[Upload], body: Body, **hints: str | None
    ) -> dict[str, Any]:
        # The queue may have filled up during the upload.
        self._refuse_when_full()
        hung_up = asyncio.create_task(body.wait_for_hang_up())
        try:
            async with self._turns.turn(hung_up):
                loop = asyncio.get_running_loop()
                hear = partial(self._hear, files, hung_up.done, **hints)
                return await loop.run_in_executor(self._pool, hear)
        finally:
            # Also tells the thread to stop when this task is cancelled.
            hung_up.cancel()

    def _hear(
        self, files: list[Upload], cancelled: Callable[[], bool], **hints: str | None
    ) -> dict[str, Any]:
        sound = _joined(files, cancelled)
        heard = self._transcriber.transcribe(sound, cancelled, **hints)
        return {**heard, "duration": round(sound.size / WHISPER_RATE, 3)}


def _key(request: Request) -> str:
    """The key that a client gives, in either of the usual headers."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = request.headers.get("x-api-key", "")
    return given or (token.strip() if scheme.lower() == "bearer" else "")


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

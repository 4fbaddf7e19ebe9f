"""What the Whisper server does with a request: check it, wait for a turn, decode, transcribe."""

import asyncio
import hmac
import io
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from stt_lib.audio.decoding import WHISPER_RATE, NotAudio, Samples, stream
from stt_lib.domain import languages
from stt_lib.local.server.admission import Metrics, Turns
from stt_lib.local.server.protocol import FORMATS, Body, Form, Refusal, Upload, read_form
from stt_lib.local.transcriber import HungUp, Transcriber
from stt_lib.telemetry.events import Event

QUEUE = 8
"""Requests that may wait for their turn."""

MAX_BYTES = 64 * 1024 * 1024
"""Bytes. Maximum size of a request."""

MAX_AUDIO_SECONDS = 3600.0
"""Seconds of sound in a request, because silence compresses to next to nothing. An hour takes
230 MB while it is transcribed."""

CLIENT_CLOSED_REQUEST = 499
"""Status in the log of a request whose client has left."""

ANY_MODEL = "whisper-1"
"""Name of the model in OpenAI's API, sent by clients that have no preference."""

FILES_KEY = "stt.files"
"""Key of the ASGI scope under which the access log finds the number of files."""

log = logging.getLogger("stt")


class Service:
    """Answers requests for text, at most `transcriber.parallel` at a time.

    Each has to contain the `api_key`, if there is one.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        api_key: str | None,
        queue: int = QUEUE,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._transcriber = transcriber
        self._api_key = api_key
        self._max_bytes = max_bytes
        self._turns = Turns(transcriber.parallel, queue)
        self._pool = ThreadPoolExecutor(transcriber.parallel, thread_name_prefix="whisper")
        self.metrics = Metrics(self._turns)
        transcriber.observe_batches(self.metrics.windows.observe)

    async def health(self, _request: Request) -> Response:
        """Answer that the model is loaded, without waiting for it."""
        return JSONResponse(
            {
                "status": "ok",
                "model": self._transcriber.model,
                "in_progress": self._turns.in_progress,
                "waiting": self._turns.waiting,
            }
        )

    async def transcribe(self, request: Request) -> Response:
        """Answer stt's own protocol: any number of parts named `files`."""
        return await self._served(request, "files", self._own_answer)

    async def transcriptions(self, request: Request) -> Response:
        """Answer OpenAI's protocol: one part named `file`, and fields."""
        return await self._served(request, "file", self._openai_answer)

    def close(self) -> None:
        """Drop requests that wait for a thread; those in progress go on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _served(
        self, request: Request, part: str, answer: Callable[[Form, Body], Awaitable[Response]]
    ) -> Response:
        """Answer a request; of a failure the client learns no more than a sentence."""
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
        """Refuse fields that would change the text if they were ignored; ignore the others."""
        if len(form.files) > 1:
            raise Refusal(400, "more than one part named file")
        render = FORMATS.get(form.fields.get("response_format", "json"))
        if render is None:
            raise Refusal(400, f"response_format must be one of {', '.join(FORMATS)}")
        hints = {"language": self._language(form), "prompt": form.fields.get("prompt")}
        loaded = self._transcriber.model
        if form.fields.get("model", ANY_MODEL) not in (ANY_MODEL, loaded):
            raise Refusal(404, f"model not found: this server has {loaded}")
        return render(await self._text_of(form.files, body, **hints))

    def _language(self, form: Form) -> str | None:
        language = languages.code(form.fields.get("language"))
        if language is not None and language not in self._transcriber.languages:
            raise Refusal(400, f"the language is not supported by {self._transcriber.model}")
        return language

    def _admit(self, request: Request) -> None:
        key = self._api_key
        if key and not hmac.compare_digest(_key(request).encode("latin-1"), key.encode()):
            raise Refusal(401, "the header X-Api-Key, or a Bearer token, is missing or wrong")
        self._refuse_when_full()

    def _refuse_when_full(self) -> None:
        if self._turns.full:
            retry_after = str(self._turns.retry_after())
            raise Refusal(503, "the queue is full", headers={"Retry-After": retry_after})

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
            # Also makes the thread stop when this task is cancelled.
            hung_up.cancel()

    def _hear(
        self, files: list[Upload], cancelled: Callable[[], bool], **hints: str | None
    ) -> dict[str, Any]:
        began = time.monotonic()
        sound = _joined(files, cancelled)
        heard = self._transcriber.transcribe(sound, cancelled, **hints)
        self.metrics.audio.inc(sound.size / WHISPER_RATE)
        self.metrics.computing.inc(time.monotonic() - began)
        return {**heard, "duration": round(sound.size / WHISPER_RATE, 3)}


def _key(request: Request) -> str:
    """Return the key that a client sent in either of the usual headers."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = request.headers.get("x-api-key", "")
    return given or (token.strip() if scheme.lower() == "bearer" else "")


def _joined(files: list[Upload], cancelled: Callable[[], bool]) -> Samples:
    """Decode the files in their order into one sound, which is never copied.

    The system provides the memory of a new array only as far as it is filled.
    """
    sound = np.empty(round(MAX_AUDIO_SECONDS * WHISPER_RATE), np.float32)
    size = 0
    too_long = f"the request contains more than {MAX_AUDIO_SECONDS:.0f} s of sound"
    for position, file in enumerate(files):
        try:
            for block in stream(io.BytesIO(file.data), file.name, WHISPER_RATE):
                if cancelled():
                    raise HungUp
                if size + block.size > sound.size:
                    raise Refusal(413, too_long)
                sound[size : size + block.size] = block
                size += block.size
        except NotAudio as exc:
            raise Refusal(400, str(exc), file=file.name, position=position) from exc
    return sound[:size]

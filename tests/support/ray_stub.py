"""A replica of Ray Serve without a model: it takes its time and echoes what it is sent."""

import asyncio

from ray import serve
from ray.serve import Application
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from deploy.ray.whisper import Options, replicated

SECONDS = 1.5
"""Seconds. How long a request takes, whatever is in it."""


async def _health(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _transcribe(request: Request) -> JSONResponse:
    async with request.form() as form:
        sent = [await file.read() for file in form.getlist("files") if not isinstance(file, str)]
    await asyncio.sleep(SECONDS)
    return JSONResponse(
        {
            "language": "en",
            "top_language_probs": [["en", 0.99]],
            "segments": [_segment(i, audio) for i, audio in enumerate(sent)],
        }
    )


def _segment(place: int, audio: bytes) -> dict[str, object]:
    text = f" {audio.decode('latin-1')}" if audio[:4] != b"OggS" else " testing"
    start = 10.0 * place
    return {"start": start, "end": start + 9.0, "text": text, "no_speech_prob": 0.01}


@serve.ingress()
class Stub:
    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Starlette(
            routes=[
                Route("/health", _health),
                Route("/transcribe", _transcribe, methods=["POST"]),
            ]
        )


def app(options: Options) -> Application:
    return replicated(Stub, options).bind()

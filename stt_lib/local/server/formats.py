"""The answers of `/v1/audio/transcriptions`: one text in the forms that a client may ask for."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from stt_lib.domain import utterances
from stt_lib.export.scope import Scope, readable
from stt_lib.export.subtitles import vtt_cues, write_srt

Heard = Mapping[str, Any]
"""What the transcriber returns, with `duration` in seconds."""

ZERO = datetime.fromtimestamp(0, UTC)
"""The beginning of the sound; only times since then appear in an answer."""


def _json(heard: Heard) -> Response:
    return JSONResponse({"text": _text(heard)})


def _plain(heard: Heard) -> Response:
    return PlainTextResponse(_text(heard) + "\n")


def _verbose_json(heard: Heard) -> Response:
    numbered = [{"id": i, **segment} for i, segment in enumerate(heard["segments"])]
    return JSONResponse(
        {
            "task": "transcribe",
            "language": heard["language"],
            "duration": heard["duration"],
            "text": _text(heard),
            "segments": numbered,
            "model": heard["model"],
        }
    )


def _srt(heard: Heard) -> Response:
    return PlainTextResponse("".join(write_srt(*_said(heard))), media_type="application/x-subrip")


def _vtt(heard: Heard) -> Response:
    cues = "".join(vtt_cues(*_said(heard)))
    return PlainTextResponse(f"WEBVTT\n{cues}", media_type="text/vtt")


FORMATS: dict[str, Callable[[Heard], Response]] = {
    "json": _json,
    "text": _plain,
    "verbose_json": _verbose_json,
    "srt": _srt,
    "vtt": _vtt,
}


def _text(heard: Heard) -> str:
    return " ".join(segment["text"].strip() for segment in heard["segments"])


def _said(heard: Heard) -> tuple[list[utterances.Stretch], Scope]:
    stretch = utterances.stretch({"start": ZERO, **heard}, str)
    return list(readable([stretch] if stretch else [])), Scope("", None, None, zero=ZERO)

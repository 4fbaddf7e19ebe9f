"""The answers of `/v1/audio/transcriptions`: one text in the forms that a client may ask for."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

Heard = Mapping[str, Any]
"""What the transcriber tells, with `duration` in seconds."""


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
    cues = [f"{number}\n{cue}" for number, cue in enumerate(_cues(heard, ","), 1)]
    return PlainTextResponse("\n".join(cues), media_type="application/x-subrip")


def _vtt(heard: Heard) -> Response:
    return PlainTextResponse("\n".join(["WEBVTT\n", *_cues(heard, ".")]), media_type="text/vtt")


FORMATS: dict[str, Callable[[Heard], Response]] = {
    "json": _json,
    "text": _plain,
    "verbose_json": _verbose_json,
    "srt": _srt,
    "vtt": _vtt,
}


def _text(heard: Heard) -> str:
    return " ".join(segment["text"].strip() for segment in heard["segments"])


def _cues(heard: Heard, point: str) -> list[str]:
    return [
        f"{_clock(segment['start'], point)} --> {_clock(segment['end'], point)}\n"
        # An arrow would begin a new cue.
        f"{segment['text'].strip().replace('-->', '->')}\n"
        for segment in heard["segments"]
    ]


def _clock(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}{point}{thousandths:03}"

"""What an error answer means: status codes to errors, with a guess at what to do about them."""

import email.utils
import http.client
import json
import re
from datetime import UTC, datetime
from typing import Any

from stt_lib.errors import (
    AudioRejected,
    FailureKind,
    ServerBusy,
    ServerMisconfigured,
    ServerTrouble,
    Suspect,
)
from stt_lib.servers.transport import Reply

PROTOCOLS = {
    "transcribe": "POST /transcribe",
    "openai": "POST /v1/audio/transcriptions",
    "whispercpp": "POST /inference",
    "asr": "POST /asr",
}
"""The names of the protocols, and what they ask of a server."""

_FILE_FIELDS = {"files": "transcribe", "file": "openai", "audio_file": "asr"}
_NO_MODEL = re.compile(
    rb"model_not_found"
    rb"|(unknown|unsupported|no such|invalid) model"
    rb"|model\b.{0,200}? (not found|not exist|not installed|not loaded|not allowed|not support)",
    re.IGNORECASE | re.DOTALL,
)
_LANGUAGE = re.compile(
    rb"(unsupported|unknown|invalid|not a valid|no such)[\w\s]{0,20} language"
    rb"|\blanguage\b[^.]{0,100}(not supported|unsupported|unknown|invalid|not (a )?valid)",
    re.IGNORECASE,
)
_WANTS_TLS = re.compile(rb"HTTP request (was )?(sent )?to (an )?HTTPS (port|server)", re.IGNORECASE)
_SHORT_BYTES = 4096
_KNOWN_PATH = re.compile(r"/(v1(/audio(/transcriptions)?)?|transcribe|inference|asr)$")
_NOT_FOUND = ({"detail": "Not Found"}, b"Not Found")
"""What FastAPI and Starlette say of a path that they do not have."""


def check_status(reply: Reply, server: str, protocol: str) -> None:
    """Raise what a status code other than 2xx asks for; the body only decides between kinds."""
    status = reply.status
    if 200 <= status < 300:
        return
    said = f"{server} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if status in (429, 503) or (status >= 500 and b"busy" in _short(reply).lower()):
        raise ServerBusy(f"{said}: busy", server, retry_after(reply.headers.get("retry-after")))
    wanted = _wanted(reply, server, protocol)
    if wanted is not None:
        kind = FailureKind.UNAUTHORIZED if wanted == _KEY else FailureKind.WRONG_SERVER
        raise ServerMisconfigured(kind, f"{said}: {wanted}", server)
    if status == 408:
        raise ServerTrouble(FailureKind.TIMEOUT, said, server)
    if status in (400, 415, 422):
        raise AudioRejected(FailureKind.INVALID_AUDIO, f"{said}: not audio", server)
    if 400 <= status < 500:
        raise AudioRejected(FailureKind.REJECTED, said, server)
    raise Suspect(FailureKind.SERVER_ERROR, said, server)


_KEY = "set STT_API_KEY to the key that it expects"


def _wanted(reply: Reply, server: str, protocol: str) -> str | None:
    """What to change before any audio can be transcribed; None if that is not the problem."""
    status, said, body = reply.status, _short(reply), _json(reply)
    if status in (400, 403, 404, 422) and isinstance(body, dict) and _NO_MODEL.search(said):
        return "it does not have the model: name one of its own with --model"
    if status in (400, 422) and ("language" in _missed(body) or _LANGUAGE.search(said)):
        return "it does not accept the language: change --language, or leave it out"
    if status == 400 and _WANTS_TLS.search(said):
        return f"it expects https: write {server.replace('http://', 'https://', 1)}"
    if status in (401, 403):
        return _KEY
    is_nowhere = status in (404, 405, 501) or 300 <= status < 400
    if is_nowhere or (status == 422 and _missed(body)):
        return hint(reply, server, protocol)
    return None


def retry_after(value: str | None) -> float | datetime | None:
    """Seconds to wait, or until when, by a Retry-After header; None if it asks for no wait.

    Source: RFC 9110 section 10.2.3.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text) or None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# -- guesses ----------------------------------------------------------------------------------


def hint(reply: Reply, server: str, protocol: str) -> str:
    """One sentence on which protocol or address to try; never quotes the answer."""
    place = _KNOWN_PATH.sub("", server)
    body = _json(reply)
    guess = _guess(reply, body)
    if guess and guess != protocol:
        return f"it looks like {guess}: write {guess}+{place} or set --protocol {guess}"
    is_html = "html" in reply.headers.get("content-type", "")
    if is_html or reply.body.lstrip()[:1] == b"<":
        return "that is a web page: is STT_SERVER_URL the right address and port?"
    if body in _NOT_FOUND or reply.body in _NOT_FOUND:
        others = " or ".join(n for n in ("openai", "asr", "transcribe") if n != protocol)
        return f"it is some other web service: try {others}, written {_other(protocol)}+{place}"
    return (
        f"is STT_SERVER_URL the address of a Whisper server with {PROTOCOLS[protocol]}?"
        f" For another kind write {_other(protocol)}+{place} or set --protocol"
        f" ({', '.join(PROTOCOLS)})"
    )


def _guess(reply: Reply, body: Any) -> str | None:
    if "whisper.cpp" in reply.headers.get("server", ""):
        return "whispercpp"
    for name in _missed(body):
        if name in _FILE_FIELDS:
            return _FILE_FIELDS[name]
    if not isinstance(body, dict):
        return None
    if "top_language_probs" in body:
        return "transcribe"
    # Those of OpenAI's kind wrap what went wrong.
    return "openai" if "text" in body or isinstance(body.get("error"), dict) else None


def _missed(body: Any) -> list[str]:
    """The fields that FastAPI complains about: `{"detail": [{"loc": ["body", NAME]}]}`."""
    detail = body.get("detail") if isinstance(body, dict) else None
    problems = detail if isinstance(detail, list) else []
    places = [problem.get("loc") for problem in problems if isinstance(problem, dict)]
    return [str(place[-1]) for place in places if isinstance(place, list) and place]


def _json(reply: Reply) -> Any:
    if len(reply.body) > _SHORT_BYTES and reply.status != 200:
        return None
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def _short(reply: Reply) -> bytes:
    """The text of an answer; a long one is not a message."""
    return reply.body if len(reply.body) <= _SHORT_BYTES else b""


def _other(protocol: str) -> str:
    return "openai" if protocol != "openai" else "transcribe"

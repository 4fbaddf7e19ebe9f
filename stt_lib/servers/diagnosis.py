"""What to try when a server does not answer as its protocol promises: a guess at what it is."""

import json
import re
from typing import Any

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
_SHORT_BYTES = 4096
_NOT_FOUND = {"detail": "Not Found"}  # what FastAPI says of a path that it does not have


def hint(reply: Reply, protocol: str) -> str:
    """One sentence on which protocol or address to try; never quotes the answer."""
    body = _json(reply)
    guess = _guess(reply, body)
    if guess and guess != protocol:
        return f"it looks like {guess}: write {guess}+http://… or set --protocol {guess}"
    if _is_page(reply):
        return "that is a web page: is STT_SERVER_URL the right address and port?"
    if body == _NOT_FOUND:
        others = " or ".join(n for n in ("openai", "asr", "transcribe") if n != protocol)
        return f"it is some other web service: try {others}, written {_other(protocol)}+http://…"
    return (
        f"is STT_SERVER_URL the address of a Whisper server with {PROTOCOLS[protocol]}?"
        f" For another kind write {_other(protocol)}+http://… or set --protocol"
        f" ({', '.join(PROTOCOLS)})"
    )


def is_about_the_model(reply: Reply) -> bool:
    """Whether a refusal says that the server does not have the model."""
    return isinstance(_json(reply), dict) and bool(_NO_MODEL.search(_short(reply)))


def is_about_the_form(reply: Reply) -> bool:
    """Whether the server misses a field or file, or has no use for ours, in FastAPI's words."""
    return bool(_missed(_json(reply)))


def says_busy(reply: Reply) -> bool:
    """Whether the text of an error says that the server is busy; long ones are not messages."""
    return b"busy" in _short(reply).lower()


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


def _is_page(reply: Reply) -> bool:
    is_html = "html" in reply.headers.get("content-type", "")
    return is_html or reply.body.lstrip()[:1] == b"<"


def _json(reply: Reply) -> Any:
    if len(reply.body) > _SHORT_BYTES and reply.status != 200:
        return None
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def _short(reply: Reply) -> bytes:
    return reply.body if len(reply.body) <= _SHORT_BYTES else b""


def _other(protocol: str) -> str:
    return "openai" if protocol != "openai" else "transcribe"

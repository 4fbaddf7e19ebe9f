"""What an answer means: status codes to errors, JSON to an `Answer`. Strict in what it lets in."""

import email.utils
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from stt_lib.errors import (
    AudioRejected,
    FailureKind,
    ServerBusy,
    ServerMisconfigured,
    ServerTrouble,
    Suspect,
)
from stt_lib.model import Answer, Segment
from stt_lib.servers.transport import Reply

MAX_RETRY_AFTER_SECONDS = 3600.0

_Finite = Annotated[StrictFloat | StrictInt, Field(allow_inf_nan=False)]


class _Segment(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    start: _Finite
    end: _Finite
    text: StrictStr
    no_speech_prob: _Finite | None = None
    avg_logprob: _Finite | None = None
    compression_ratio: _Finite | None = None

    def record(self) -> Segment:
        """Times never run backwards or before the audio; a stray end is pulled to the start."""
        start = max(0.0, float(self.start))
        return Segment(
            start=start,
            end=max(start, float(self.end)),
            text=self.text,
            no_speech_prob=self.no_speech_prob,
            avg_logprob=self.avg_logprob,
            compression_ratio=self.compression_ratio,
        )


class _Transcription(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    segments: list[_Segment]
    language: StrictStr | None = None
    top_language_probs: list[tuple[StrictStr, _Finite]] | None = None
    model: StrictStr | None = None


def transcription(reply: Reply, server: str) -> Answer:
    """Read `{"language", "top_language_probs", "segments", "model"}`.

    Raises:
        AttemptError: of the kind that the status code or the shape of the answer says.
    """
    check_status(reply, server)
    try:
        heard = _Transcription.model_validate_json(reply.body)
    except ValidationError as error:
        _invalid(error, server)
    return Answer(
        segments=tuple(segment.record() for segment in heard.segments),
        language=heard.language or None,
        top_language_probs=_languages(heard),
        model=heard.model or None,
        server=server,
    )


def _languages(heard: _Transcription) -> tuple[tuple[str, float], ...] | None:
    if heard.top_language_probs is None:
        return None
    return tuple((name, float(prob)) for name, prob in heard.top_language_probs)


def _invalid(error: ValidationError, server: str) -> NoReturn:
    """Say where the answer is wrong, never what it says: that may be transcript text."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        what = "is not JSON"
    elif first["type"] == "missing":
        what = f"lacks {place}"
    else:
        what = f"has a wrong value at {place or 'its top level'} ({first['type']})"
    message = f"the answer of {server} {what}: is it a Whisper server of this protocol?"
    raise Suspect(FailureKind.INVALID_ANSWER, message, server) from None


def check_status(reply: Reply, server: str) -> None:
    """Raise what a status code other than 2xx asks for."""
    status = reply.status
    said = f"{server} answered {status}{_phrase(status)}"
    if 200 <= status < 300:
        return
    if status in (429, 503):
        raise ServerBusy(f"{said}: busy", server, retry_after(reply.headers.get("retry-after")))
    if status in (401, 403):
        hint = "set STT_API_KEY to the key that it expects"
        raise ServerMisconfigured(FailureKind.UNAUTHORIZED, f"{said}: {hint}", server)
    if status in (404, 405, 501) or 300 <= status < 400:
        hint = "is STT_SERVER_URL the address of a Whisper server?"
        raise ServerMisconfigured(FailureKind.WRONG_SERVER, f"{said}: {hint}", server)
    if status == 408:
        raise ServerTrouble(FailureKind.TIMEOUT, said, server)
    if status in (400, 415, 422):
        raise AudioRejected(FailureKind.INVALID_AUDIO, f"{said}: not audio", server)
    if 400 <= status < 500:
        raise AudioRejected(FailureKind.REJECTED, said, server)
    raise Suspect(FailureKind.SERVER_ERROR, said, server)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a Retry-After header, in either of its forms; None if there is none.

    Source: RFC 9110 section 10.2.3 (seconds, or a date).
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)

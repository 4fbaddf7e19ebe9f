"""Requests with one file, for the protocols that take no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stt_lib.audio import joining
from stt_lib.audio.joining import Sound
from stt_lib.domain.models import Answer, Chunk
from stt_lib.errors import AudioRejected, FailureKind
from stt_lib.servers import responses
from stt_lib.servers.protocols.request import Request
from stt_lib.servers.responses import Verbose
from stt_lib.servers.transport import Part

SLACK_SECONDS = 1.0
"""Seconds by which the times of an answer may lie beyond the audio that was heard."""

_plays_all: dict[str, bool] = {}
"""Addresses that were seen to play all of several chained Ogg Opus files, or only the first."""


@dataclass(frozen=True, slots=True)
class Form:
    """A protocol's form: its path, its fields, and the name of the field for the audio."""

    protocol: str
    path: str
    file_field: str = "file"
    fields: list[Part] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""


def post_as_wav(request: Request, form: Form, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks as WAV, which every server reads."""
    return _post(request, form, chunks, joining.wav_file(chunks, request.server)).answer


def post(request: Request, form: Form, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks in the form that is cheapest to make.

    Some decoders silently play only the first of several chained Ogg Opus files. Until a server is
    known, an answer that does not reach beyond the first chunk is compared with that to WAV.
    """
    plays_all = _plays_all.get(request.url)
    if plays_all is False and len(chunks) > 1:
        return post_as_wav(request, form, chunks)
    sound = joining.one_file(chunks, request.server)
    heard = _post(request, form, chunks, sound)
    if plays_all or not sound.is_chained or heard.reach is None:
        return heard.answer
    if _is_beyond_the_first(heard, chunks):
        _plays_all[request.url] = True
        return heard.answer
    if not joining.can_decode():
        message = f"{request.server} seems to play only the first of several Ogg Opus files"
        raise AudioRejected(FailureKind.REJECTED, message, request.server)
    heard = _post(request, form, chunks, joining.wav_file(chunks, request.server))
    if _is_beyond_the_first(heard, chunks):
        _plays_all[request.url] = False
    return heard.answer


def _is_beyond_the_first(heard: Verbose, chunks: Sequence[Chunk]) -> bool:
    return (heard.reach or 0.0) > chunks[0].seconds + SLACK_SECONDS


def _post(request: Request, form: Form, chunks: Sequence[Chunk], sound: Sound) -> Verbose:
    parts = [*form.fields, (form.file_field, sound.file)]
    reply = request.post(form.path, parts, form.headers, query=form.query)
    return responses.verbose_json(
        reply,
        request.server,
        protocol=form.protocol,
        seconds=sound.seconds,
        fallback=sum(chunk.seconds for chunk in chunks),
    )

"""Requests with one file, for the protocols that take no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stt_lib.audio import joining
from stt_lib.audio.joining import Sound
from stt_lib.domain.models import Answer, Chunk
from stt_lib.errors import AudioRejected, FailureKind
from stt_lib.servers import responses
from stt_lib.servers.form import Form
from stt_lib.servers.responses import Verbose
from stt_lib.servers.transport import Channel

SLACK_SECONDS = 1.0
"""So far beyond the sound that was heard the times of an answer may lie."""

_first_file_only: set[str] = set()
"""Addresses that were seen to play only the first of several Ogg Opus files in a row."""


@dataclass(frozen=True, slots=True)
class Request:
    """All of a request but the audio, whose part is to be called `file_field`."""

    channel: Channel
    protocol: str
    address: str
    file_field: str
    form: Form
    headers: Mapping[str, str]
    server: str
    seconds: float


def post_as_wav(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks as WAV, which every server reads."""
    return _post(request, chunks, joining.wav_file(chunks, request.server)).answer


def post(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks in the form that is cheapest to make.

    Of Ogg Opus files in a row some decoders play only the first, without a word. So an answer
    that does not reach beyond the first chunk is not taken on trust but compared with the one
    to WAV.
    """
    if request.address in _first_file_only and len(chunks) > 1:
        return post_as_wav(request, chunks)
    sound = joining.one_file(chunks, request.server)
    heard = _post(request, chunks, sound)
    if not sound.is_chained or _is_beyond_the_first(heard, chunks):
        return heard.answer
    if not joining.can_decode():
        message = f"{request.server} seems to play only the first of several Ogg Opus files"
        raise AudioRejected(FailureKind.REJECTED, message, request.server)
    heard = _post(request, chunks, joining.wav_file(chunks, request.server))
    if _is_beyond_the_first(heard, chunks):
        _first_file_only.add(request.address)
    return heard.answer


def _is_beyond_the_first(heard: Verbose, chunks: Sequence[Chunk]) -> bool:
    return heard.reach is None or heard.reach > chunks[0].seconds + SLACK_SECONDS


def _post(request: Request, chunks: Sequence[Chunk], sound: Sound) -> Verbose:
    reply = request.channel.post(
        request.address,
        [*request.form, (request.file_field, sound.file)],
        {"Accept": "application/json", **request.headers},
        server=request.server,
        seconds=request.seconds,
    )
    return responses.verbose_json(
        reply,
        request.server,
        protocol=request.protocol,
        seconds=sound.seconds,
        fallback=sum(chunk.seconds for chunk in chunks),
    )

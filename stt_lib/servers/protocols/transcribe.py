"""The protocol `POST /transcribe`: one part named `files` per chunk, oldest first."""

from collections.abc import Sequence

from stt_lib.audio import joining
from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers import responses
from stt_lib.servers.form import endpoint
from stt_lib.servers.options import Options
from stt_lib.servers.transport import Channel, Part


def parameters(_options: Options) -> dict[str, str]:
    """Neither model nor language nor prompt has a place in this protocol."""
    return {}


def post(
    channel: Channel,
    url: str,
    chunks: Sequence[Chunk],
    *,
    options: Options,
    server: str,
    seconds: float,
) -> Answer:
    """Post the audio of consecutive chunks as one request, answered within `seconds`.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    headers = {"Accept": "application/json"}
    if options.api_key:
        headers["X-Api-Key"] = options.api_key
    parts = [_part(position, chunk) for position, chunk in enumerate(chunks)]
    address = endpoint(url, "/transcribe")
    reply = channel.post(address, parts, headers, server=server, seconds=seconds)
    return responses.transcription(reply, server, joining.measured(chunks))


def _part(position: int, chunk: Chunk) -> Part:
    name = f"chunk_{position}.{chunk.format}"
    return "files", (name, chunk.data, f"audio/{chunk.format}")

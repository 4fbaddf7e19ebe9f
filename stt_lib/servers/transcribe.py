"""The protocol `POST /transcribe`: one part named `files` per chunk, oldest first."""

from collections.abc import Sequence

from stt_lib.model import Answer, Chunk
from stt_lib.servers import answers
from stt_lib.servers.transport import Channel, Part


def transcribe(
    channel: Channel,
    url: str,
    chunks: Sequence[Chunk],
    *,
    api_key: str | None,
    server: str,
    seconds: float,
) -> Answer:
    """Post the audio of consecutive chunks as one request, answered within `seconds`.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    headers = {"Accept": "application/json"}
    if api_key:
        headers["X-Api-Key"] = api_key
    parts = [_part(position, chunk) for position, chunk in enumerate(chunks)]
    reply = channel.post(f"{url}/transcribe", parts, headers, server=server, seconds=seconds)
    return answers.transcription(reply, server)


def _part(position: int, chunk: Chunk) -> Part:
    name = f"chunk_{position}.{chunk.format}"
    return "files", (name, chunk.data, f"audio/{chunk.format}")

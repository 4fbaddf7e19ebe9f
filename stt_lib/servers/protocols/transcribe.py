"""The protocol `POST /transcribe`: one part named `files` per chunk, oldest first."""

from collections.abc import Sequence

from stt_lib.audio import joining
from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers import responses
from stt_lib.servers.protocols.request import Options, Request
from stt_lib.servers.transport import Part


def parameters(_options: Options) -> dict[str, str]:
    """The protocol has no field for model, language or prompt."""
    return {}


def post(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post consecutive chunks.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    key = request.options.api_key
    parts = [_part(position, chunk) for position, chunk in enumerate(chunks)]
    reply = request.post("/transcribe", parts, {"X-Api-Key": key} if key else {})
    return responses.transcription(reply, request.server, joining.measured(chunks))


def _part(position: int, chunk: Chunk) -> Part:
    name = f"chunk_{position}.{chunk.format}"
    return "files", (name, chunk.data, f"audio/{chunk.format}")

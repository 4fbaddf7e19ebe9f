"""The protocol `POST /asr` of whisper-asr-webservice."""

from collections.abc import Sequence
from urllib.parse import urlencode

from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers import languages
from stt_lib.servers.form import endpoint, given
from stt_lib.servers.options import Options
from stt_lib.servers.protocols import single_file
from stt_lib.servers.transport import Channel

_NAMES = {"language": "language", "prompt": "initial_prompt"}
"""What the protocol calls our parameters."""


def parameters(options: Options) -> dict[str, str]:
    """What is asked of the server; there is no choice of model."""
    return given(language=languages.code(options.language), prompt=options.prompt)


def post(
    channel: Channel,
    url: str,
    chunks: Sequence[Chunk],
    *,
    options: Options,
    server: str,
    seconds: float,
) -> Answer:
    """Post the audio of consecutive chunks as one file, answered within `seconds`.

    There is no key.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    query = {"output": "json", "task": "transcribe"}
    query |= {_NAMES[name]: value for name, value in parameters(options).items()}
    request = single_file.Request(
        channel=channel,
        protocol="asr",
        address=f"{endpoint(url, '/asr')}?{urlencode(query)}",
        file_field="audio_file",
        form=[],
        headers={},
        server=server,
        seconds=seconds,
    )
    return single_file.post(request, chunks)

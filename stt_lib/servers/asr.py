"""The protocol `POST /asr` of whisper-asr-webservice."""

from collections.abc import Sequence
from urllib.parse import urlencode

from stt_lib.model import Answer, Chunk
from stt_lib.servers import languages, single
from stt_lib.servers.form import endpoint
from stt_lib.servers.options import Options
from stt_lib.servers.transport import Channel


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

    There is no key and no choice of model.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    query = {
        "output": "json",
        "task": "transcribe",
        "language": languages.code(options.language),
        "initial_prompt": options.prompt,
    }
    given = urlencode({name: value for name, value in query.items() if value})
    request = single.Request(
        channel=channel,
        protocol="asr",
        address=f"{endpoint(url, '/asr')}?{given}",
        file_field="audio_file",
        form=[],
        headers={},
        server=server,
        seconds=seconds,
    )
    return single.post(request, chunks)

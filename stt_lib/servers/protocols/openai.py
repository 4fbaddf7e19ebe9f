"""The protocol `POST /v1/audio/transcriptions` of OpenAI's API and of the many that follow it."""

from collections.abc import Sequence

from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers import languages
from stt_lib.servers.form import endpoint, fields, given
from stt_lib.servers.options import Options
from stt_lib.servers.protocols import single_file
from stt_lib.servers.transport import Channel

PATH = "/v1/audio/transcriptions"
DEFAULT_MODEL = "whisper-1"
TEXT_ONLY = ("gpt-",)
"""Models of the cloud that know no segments and refuse to be asked for them."""


def parameters(options: Options) -> dict[str, str]:
    """What is asked of the server."""
    return given(
        model=options.model or DEFAULT_MODEL,
        language=languages.code(options.language),
        prompt=options.prompt,
    )


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

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    asked = parameters(options)
    is_text_only = asked["model"].startswith(TEXT_ONLY)
    request = single_file.Request(
        channel=channel,
        protocol="openai",
        address=endpoint(url, PATH),
        file_field="file",
        form=fields(
            **asked,
            model_name=asked["model"],  # so faster-whisper-server calls it; the others ignore it
            response_format="json" if is_text_only else "verbose_json",
        ),
        headers={"Authorization": f"Bearer {options.api_key}"} if options.api_key else {},
        server=server,
        seconds=seconds,
    )
    # Without times nobody could tell whether the whole sound was heard.
    return (
        single_file.post_as_wav(request, chunks)
        if is_text_only
        else single_file.post(request, chunks)
    )

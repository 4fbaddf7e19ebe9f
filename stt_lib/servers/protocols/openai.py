"""The protocol `POST /v1/audio/transcriptions` of OpenAI's API and of the many that follow it."""

from collections.abc import Sequence

from stt_lib.domain import languages
from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers.protocols import single_file
from stt_lib.servers.protocols.request import Options, Request, fields, given
from stt_lib.servers.protocols.single_file import Form

PATH = "/v1/audio/transcriptions"
DEFAULT_MODEL = "whisper-1"
TEXT_ONLY = ("gpt-",)
"""Prefixes of the cloud's models that have no segments and refuse requests for them."""


def parameters(options: Options) -> dict[str, str]:
    """What is asked of the server."""
    return given(
        model=options.model or DEFAULT_MODEL,
        language=languages.code(options.language),
        prompt=options.prompt,
    )


def post(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the audio of consecutive chunks as one file.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    asked = parameters(request.options)
    is_text_only = asked["model"].startswith(TEXT_ONLY)
    key = request.options.api_key
    extra = {
        "model_name": asked["model"],  # the field of faster-whisper-server; others ignore it
        "response_format": "json" if is_text_only else "verbose_json",
    }
    if not is_text_only:
        extra["without_timestamps"] = "false"  # the default of speaches leaves out the times
    form = Form(
        "openai",
        PATH,
        fields=fields(asked | extra),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )
    # Without times nobody could tell whether all of a chained file was heard.
    send = single_file.post_as_wav if is_text_only else single_file.post
    return send(request, form, chunks)

"""The protocol `POST /asr` of whisper-asr-webservice."""

from collections.abc import Sequence
from urllib.parse import urlencode

from stt_lib.domain import languages
from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers.protocols import single_file
from stt_lib.servers.protocols.request import Options, Request, given
from stt_lib.servers.protocols.single_file import Form

_NAMES = {"language": "language", "prompt": "initial_prompt"}
"""The protocol's names of our parameters."""


def parameters(options: Options) -> dict[str, str]:
    """What is asked of the server; the protocol offers no choice of model."""
    return given(language=languages.code(options.language), prompt=options.prompt)


def post(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the audio of consecutive chunks as one file. There is no key.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    query = {"output": "json", "task": "transcribe"}
    query |= {_NAMES[name]: value for name, value in parameters(request.options).items()}
    form = Form("asr", "/asr", file_field="audio_file", query=urlencode(query))
    return single_file.post(request, form, chunks)

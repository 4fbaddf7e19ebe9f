"""The protocol `POST /inference` of whisper.cpp's server."""

from collections.abc import Sequence
from dataclasses import replace

from stt_lib.domain.models import Answer, Chunk, Segment
from stt_lib.servers import languages, words
from stt_lib.servers.form import endpoint, fields, given
from stt_lib.servers.options import Options
from stt_lib.servers.protocols import single_file
from stt_lib.servers.transport import Channel


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
    """Post the audio of consecutive chunks as WAV, answered within `seconds`.

    Always WAV: Ogg Opus is read only by a server that was started with `--convert`, and its
    refusal is the same as for a chunk that is not audio. There is no key.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    request = single_file.Request(
        channel=channel,
        protocol="whispercpp",
        address=endpoint(url, "/inference"),
        file_field="file",
        form=fields(response_format="verbose_json", **parameters(options)),
        headers={},
        server=server,
        seconds=seconds,
    )
    answer = single_file.post_as_wav(request, chunks)
    return replace(answer, segments=tuple(map(_in_one_line, answer.segments)))


def _in_one_line(segment: Segment) -> Segment:
    """Without the line breaks that this server puts into its texts; its words are tokens."""
    text = " ".join(segment.text.split())
    return replace(segment, text=text, words=words.whole(segment.words))

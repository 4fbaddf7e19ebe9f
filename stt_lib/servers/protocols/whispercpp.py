"""The protocol `POST /inference` of whisper.cpp's server."""

from collections.abc import Sequence
from dataclasses import replace

from stt_lib.domain import languages
from stt_lib.domain.models import Answer, Chunk, Segment, Word
from stt_lib.servers.protocols import single_file
from stt_lib.servers.protocols.request import Options, Request, fields, given
from stt_lib.servers.protocols.single_file import Form


def parameters(options: Options) -> dict[str, str]:
    """What is asked of the server; the protocol offers no choice of model."""
    return given(language=languages.code(options.language), prompt=options.prompt)


def post(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the audio of consecutive chunks as WAV. There is no key.

    Only a server started with `--convert` reads Ogg Opus, and it refuses it with the same answer
    as a chunk that is not audio.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    values = {"response_format": "verbose_json", **parameters(request.options)}
    form = Form("whispercpp", "/inference", fields=fields(values))
    answer = single_file.post_as_wav(request, form, chunks)
    return replace(answer, segments=tuple(map(_in_one_line, answer.segments)))


def _in_one_line(segment: Segment) -> Segment:
    """The server breaks lines inside its texts, and lists tokens as words."""
    return replace(segment, text=" ".join(segment.text.split()), words=_joined(segment.words))


def _joined(tokens: Sequence[Word]) -> tuple[Word, ...]:
    """Words from tokens: one that does not begin with a space continues the word before it."""
    words: list[Word] = []
    for token in tokens:
        if words and not token.text[0].isspace():
            last = words[-1]
            words[-1] = replace(last, end=token.end, text=last.text + token.text)
        else:
            words.append(token)
    return tuple(words)

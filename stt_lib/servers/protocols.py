"""The protocols of STT servers, by name: what they ask for, and how they take the audio."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlencode

from stt_lib.audio import joining
from stt_lib.audio.joining import Sound
from stt_lib.domain import languages, model_names
from stt_lib.domain.models import Answer, Chunk, Segment, Word
from stt_lib.errors import AudioRejected, FailureKind
from stt_lib.servers import responses
from stt_lib.servers.transport import Channel, Part, Reply, WhenSent, do_nothing

TEXT_ONLY = ("gpt-",)
"""Prefixes of the cloud's models that have no segments and refuse requests for them."""

SLACK_SECONDS = 1.0
"""Seconds by which the times of an answer may lie beyond the audio that was heard."""

IGNORE_MODEL = ("whispercpp", "asr")
"""Protocols of products that have one model and ignore what is asked for.

Of a server with `POST /transcribe` the user may know the model, and name it with --model.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of an STT server besides the audio; a protocol sends what it has a field for.

    `model` only if the user named one: an answer that reports another one is refused.
    """

    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    language: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its audio: where it goes, by which channel, and how long it may take.

    `server` is the address without secrets; `seconds` and `when_sent` are those of `Channel.post`.
    """

    channel: Channel
    url: str
    options: Options
    server: str
    seconds: float
    when_sent: WhenSent = do_nothing

    def post(
        self, path: str, parts: list[Part], headers: Mapping[str, str], query: str = ""
    ) -> Reply:
        """Send the parts to a path below the server's address.

        Raises:
            AttemptError: whatever went wrong, by what the caller does next.
        """
        return self.channel.post(
            _endpoint(self.url, path) + (f"?{query}" if query else ""),
            parts,
            {"Accept": "application/json", **headers},
            server=self.server,
            seconds=self.seconds,
            when_sent=self.when_sent,
        )


def _endpoint(url: str, path: str) -> str:
    """The address of a path, also where the URL contains the beginning of it, or all.

    With `path` "/v1/audio/transcriptions" a URL that ends in "/v1" is as good as one without.
    """
    steps = path.split("/")
    for count in range(len(steps), 1, -1):
        head = "/".join(steps[:count])
        if url.endswith(head):
            return url + path.removeprefix(head)
    return url + path


def parse(url: str, default: str) -> tuple[str, str]:
    """The protocol and the address in `openai+http://host:8000/base`.

    Raises:
        ValueError: there is no such protocol.
    """
    scheme, separator, rest = url.partition("://")
    name, plus, plain = scheme.rpartition("+")
    protocol = name.lower() if plus else default
    if protocol not in NAMES:
        raise ValueError(f"is not of a known protocol: use one of {', '.join(NAMES)}")
    return protocol, f"{plain}{separator}{rest}"


def post(protocol: str, request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post consecutive chunks, oldest first.

    The answer says how it came about. Most servers do not report their model: then it is the one
    that the user named, unless the server is known to ignore that.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    asked = _asked(protocol, request.options)
    answer = _POSTS[protocol](request, asked, chunks)
    model_names.check_model(answer.model, request.options.model, request.server)
    model = answer.model or (None if protocol in IGNORE_MODEL else request.options.model)
    return replace(answer, model=model, protocol=protocol, parameters=asked)


def _asked(protocol: str, options: Options) -> dict[str, str]:
    """What is asked of the server, by our names; its defaults apply to the rest."""
    values = {
        "model": options.model or model_names.ANY,
        "language": languages.code(options.language),
        "prompt": options.prompt,
    }
    return {name: value for name in _HAS_FIELDS_FOR[protocol] if (value := values[name])}


# -- the protocols ----------------------------------------------------------------------------


def _transcribe(request: Request, _: Mapping[str, str], chunks: Sequence[Chunk]) -> Answer:
    """`POST /transcribe`: one part named `files` per chunk, oldest first."""
    key = request.options.api_key
    parts = [_part(position, chunk) for position, chunk in enumerate(chunks)]
    reply = request.post("/transcribe", parts, {"X-Api-Key": key} if key else {})
    return responses.transcription(reply, request.server, joining.measured(chunks))


def _part(position: int, chunk: Chunk) -> Part:
    name = f"chunk_{position}.{chunk.format}"
    return "files", (name, chunk.data, f"audio/{chunk.format}")


def _openai(request: Request, asked: Mapping[str, str], chunks: Sequence[Chunk]) -> Answer:
    """`POST /v1/audio/transcriptions` of OpenAI's API and of the many that follow it."""
    is_text_only = asked["model"].startswith(TEXT_ONLY)
    key = request.options.api_key
    extra = {
        "model_name": asked["model"],  # the field of faster-whisper-server; others ignore it
        "response_format": "json" if is_text_only else "verbose_json",
    }
    if not is_text_only:
        extra["without_timestamps"] = "false"  # the default of speaches leaves out the times
    form = _Form(
        "openai",
        "/v1/audio/transcriptions",
        fields={**asked, **extra},
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )
    # Without times nobody could tell whether all of a chained file was heard.
    send = _post_as_wav if is_text_only else _post_as_one_file
    return send(request, form, chunks)


def _whispercpp(request: Request, asked: Mapping[str, str], chunks: Sequence[Chunk]) -> Answer:
    """`POST /inference` of whisper.cpp's server, which has no key.

    Only a server started with `--convert` reads Ogg Opus, and it refuses it with the same answer
    as a chunk that is not audio.
    """
    form = _Form("whispercpp", "/inference", fields={"response_format": "verbose_json", **asked})
    answer = _post_as_wav(request, form, chunks)
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


def _asr(request: Request, asked: Mapping[str, str], chunks: Sequence[Chunk]) -> Answer:
    """`POST /asr` of whisper-asr-webservice, which has no key."""
    names = {"language": "language", "prompt": "initial_prompt"}
    query = {"output": "json", "task": "transcribe"}
    query |= {names[name]: value for name, value in asked.items()}
    form = _Form("asr", "/asr", file_field="audio_file", query=urlencode(query))
    return _post_as_one_file(request, form, chunks)


_POSTS: Final = {
    "transcribe": _transcribe,
    "openai": _openai,
    "whispercpp": _whispercpp,
    "asr": _asr,
}
_HAS_FIELDS_FOR: Final = {
    "transcribe": (),
    "openai": ("model", "language", "prompt"),
    "whispercpp": ("language", "prompt"),
    "asr": ("language", "prompt"),
}
NAMES: Final = tuple(_POSTS)


# -- one file for all chunks, for the protocols that take no more -----------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """A protocol's form: its path, its fields, and the name of the field for the audio."""

    protocol: str
    path: str
    file_field: str = "file"
    fields: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""


_plays_all: dict[str, bool] = {}
"""Addresses that were seen to play all of several chained Ogg Opus files, or only the first."""


def _post_as_wav(request: Request, form: _Form, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks as WAV, which every server reads."""
    return _post(request, form, chunks, joining.wav_file(chunks, request.server))[0]


def _post_as_one_file(request: Request, form: _Form, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks in the form that is cheapest to make.

    Some decoders silently play only the first of several chained Ogg Opus files. Until a server is
    known, an answer that does not reach beyond the first chunk is compared with that to WAV.
    """
    plays_all = _plays_all.get(request.url)
    if plays_all is False and len(chunks) > 1:
        return _post_as_wav(request, form, chunks)
    sound = joining.one_file(chunks, request.server)
    answer, reach = _post(request, form, chunks, sound)
    if plays_all or not sound.is_chained or reach is None:
        return answer
    first_ends = chunks[0].seconds + SLACK_SECONDS
    if reach > first_ends:
        _plays_all[request.url] = True
        return answer
    if not joining.can_decode():
        message = f"{request.server} seems to play only the first of several Ogg Opus files"
        raise AudioRejected(FailureKind.REJECTED, message, request.server)
    answer, reach = _post(request, form, chunks, joining.wav_file(chunks, request.server))
    if reach is not None and reach > first_ends:
        _plays_all[request.url] = False
    return answer


def _post(
    request: Request, form: _Form, chunks: Sequence[Chunk], sound: Sound
) -> tuple[Answer, float | None]:
    fields: list[Part] = [(name, (None, value)) for name, value in form.fields.items()]
    parts = [*fields, (form.file_field, sound.file)]
    reply = request.post(form.path, parts, form.headers, query=form.query)
    return responses.verbose_json(
        reply,
        request.server,
        protocol=form.protocol,
        seconds=sound.seconds,
        fallback=sum(chunk.seconds for chunk in chunks),
    )

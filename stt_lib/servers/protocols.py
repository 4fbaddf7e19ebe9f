"""The protocols of STT servers, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from urllib.parse import urlencode

from stt_lib.audio import joining
from stt_lib.audio.joining import Sound
from stt_lib.domain import languages
from stt_lib.domain.model_names import check_model
from stt_lib.domain.models import Answer, Chunk, Segment, Word
from stt_lib.errors import AudioRejected, FailureKind
from stt_lib.servers import responses
from stt_lib.servers.transport import Channel, Part, Reply, WhenSent, do_nothing


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
            endpoint(self.url, path) + (f"?{query}" if query else ""),
            parts,
            {"Accept": "application/json", **headers},
            server=self.server,
            seconds=self.seconds,
            when_sent=self.when_sent,
        )


def endpoint(url: str, path: str) -> str:
    """The address of a path, also where the URL contains the beginning of it, or all.

    With `path` "/v1/audio/transcriptions" a URL that ends in "/v1" is as good as one without.
    """
    steps = path.split("/")
    for count in range(len(steps), 1, -1):
        head = "/".join(steps[:count])
        if url.endswith(head):
            return url + path.removeprefix(head)
    return url + path


def given(**values: str | None) -> dict[str, str]:
    """The values that are set: the server's defaults apply to the others."""
    return {name: value for name, value in values.items() if value}


def fields(values: Mapping[str, str]) -> list[Part]:
    """Plain form fields."""
    return [(name, (None, value)) for name, value in values.items()]


# -- one file for all chunks ------------------------------------------------------------------


SLACK_SECONDS = 1.0
"""Seconds by which the times of an answer may lie beyond the audio that was heard."""

_plays_all: dict[str, bool] = {}
"""Addresses that were seen to play all of several chained Ogg Opus files, or only the first."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A protocol's form: its path, its fields, and the name of the field for the audio."""

    protocol: str
    path: str
    file_field: str = "file"
    fields: list[Part] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""


def _post_as_wav(request: Request, form: _Form, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks as WAV, which every server reads."""
    return _post(request, form, chunks, joining.wav_file(chunks, request.server)).answer


def _post_as_one_file(request: Request, form: _Form, chunks: Sequence[Chunk]) -> Answer:
    """Post the chunks in the form that is cheapest to make.

    Some decoders silently play only the first of several chained Ogg Opus files. Until a server is
    known, an answer that does not reach beyond the first chunk is compared with that to WAV.
    """
    plays_all = _plays_all.get(request.url)
    if plays_all is False and len(chunks) > 1:
        return _post_as_wav(request, form, chunks)
    sound = joining.one_file(chunks, request.server)
    heard = _post(request, form, chunks, sound)
    if plays_all or not sound.is_chained or heard.reach is None:
        return heard.answer
    if _is_beyond_the_first(heard, chunks):
        _plays_all[request.url] = True
        return heard.answer
    if not joining.can_decode():
        message = f"{request.server} seems to play only the first of several Ogg Opus files"
        raise AudioRejected(FailureKind.REJECTED, message, request.server)
    heard = _post(request, form, chunks, joining.wav_file(chunks, request.server))
    if _is_beyond_the_first(heard, chunks):
        _plays_all[request.url] = False
    return heard.answer


def _is_beyond_the_first(heard: responses.Verbose, chunks: Sequence[Chunk]) -> bool:
    return (heard.reach or 0.0) > chunks[0].seconds + SLACK_SECONDS


def _post(
    request: Request, form: _Form, chunks: Sequence[Chunk], sound: Sound
) -> responses.Verbose:
    parts = [*form.fields, (form.file_field, sound.file)]
    reply = request.post(form.path, parts, form.headers, query=form.query)
    return responses.verbose_json(
        reply,
        request.server,
        protocol=form.protocol,
        seconds=sound.seconds,
        fallback=sum(chunk.seconds for chunk in chunks),
    )


# -- POST /transcribe -------------------------------------------------------------------------


def _transcribe_parameters(_options: Options) -> dict[str, str]:
    """The protocol has no field for model, language or prompt."""
    return {}


def _transcribe(request: Request, chunks: Sequence[Chunk]) -> Answer:
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


# -- POST /v1/audio/transcriptions of OpenAI's API and of the many that follow it -------------


PATH = "/v1/audio/transcriptions"
DEFAULT_MODEL = "whisper-1"
TEXT_ONLY = ("gpt-",)
"""Prefixes of the cloud's models that have no segments and refuse requests for them."""


def _openai_parameters(options: Options) -> dict[str, str]:
    """What is asked of the server."""
    return given(
        model=options.model or DEFAULT_MODEL,
        language=languages.code(options.language),
        prompt=options.prompt,
    )


def _openai(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the audio of consecutive chunks as one file.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    asked = _openai_parameters(request.options)
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
        PATH,
        fields=fields(asked | extra),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )
    # Without times nobody could tell whether all of a chained file was heard.
    send = _post_as_wav if is_text_only else _post_as_one_file
    return send(request, form, chunks)


# -- POST /inference of whisper.cpp's server --------------------------------------------------


def _whispercpp_parameters(options: Options) -> dict[str, str]:
    """What is asked of the server; the protocol offers no choice of model."""
    return given(language=languages.code(options.language), prompt=options.prompt)


def _whispercpp(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the audio of consecutive chunks as WAV. There is no key.

    Only a server started with `--convert` reads Ogg Opus, and it refuses it with the same answer
    as a chunk that is not audio.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    values = {"response_format": "verbose_json", **_whispercpp_parameters(request.options)}
    form = _Form("whispercpp", "/inference", fields=fields(values))
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


# -- POST /asr of whisper-asr-webservice ------------------------------------------------------


_NAMES = {"language": "language", "prompt": "initial_prompt"}
"""The protocol's names of our parameters."""


def _asr_parameters(options: Options) -> dict[str, str]:
    """What is asked of the server; the protocol offers no choice of model."""
    return given(language=languages.code(options.language), prompt=options.prompt)


def _asr(request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post the audio of consecutive chunks as one file. There is no key.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    query = {"output": "json", "task": "transcribe"}
    query |= {_NAMES[name]: value for name, value in _asr_parameters(request.options).items()}
    form = _Form("asr", "/asr", file_field="audio_file", query=urlencode(query))
    return _post_as_one_file(request, form, chunks)


# -- by name ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Protocol:
    post: Callable[[Request, Sequence[Chunk]], Answer]
    parameters: Callable[[Options], dict[str, str]]


_PROTOCOLS: Mapping[str, _Protocol] = MappingProxyType(
    {
        "transcribe": _Protocol(_transcribe, _transcribe_parameters),
        "openai": _Protocol(_openai, _openai_parameters),
        "whispercpp": _Protocol(_whispercpp, _whispercpp_parameters),
        "asr": _Protocol(_asr, _asr_parameters),
    }
)
NAMES = tuple(_PROTOCOLS)

IGNORE_MODEL = ("whispercpp", "asr")
"""Protocols of products that have one model and ignore what is asked for.

Of a server with `POST /transcribe` the user may know the model, and name it with --model.
"""


def parse(url: str, default: str) -> tuple[str, str]:
    """The protocol and the address in `openai+http://host:8000/base`.

    Raises:
        ValueError: there is no such protocol.
    """
    scheme, separator, rest = url.partition("://")
    name, plus, plain = scheme.rpartition("+")
    protocol = name.lower() if plus else default
    if protocol not in _PROTOCOLS:
        raise ValueError(f"is not of a known protocol: use one of {', '.join(NAMES)}")
    return protocol, f"{plain}{separator}{rest}"


def post(protocol: str, request: Request, chunks: Sequence[Chunk]) -> Answer:
    """Post consecutive chunks, oldest first.

    The answer says how it came about. Most servers do not report their model: then it is the one
    that the user named, unless the server is known to ignore that.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    spoken = _PROTOCOLS[protocol]
    answer = spoken.post(request, chunks)
    check_model(answer.model, request.options.model, request.server)
    parameters = spoken.parameters(request.options)
    model = answer.model or (None if protocol in IGNORE_MODEL else request.options.model)
    return replace(answer, model=model, protocol=protocol, parameters=parameters)

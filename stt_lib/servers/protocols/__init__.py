"""The protocols of STT servers, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from stt_lib.domain.model_names import check_model
from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers.protocols import asr, openai, transcribe, whispercpp
from stt_lib.servers.protocols.request import Options, Request

__all__ = ["NAMES", "Options", "Request", "parse", "post"]


@dataclass(frozen=True, slots=True)
class _Protocol:
    post: Callable[[Request, Sequence[Chunk]], Answer]
    parameters: Callable[[Options], dict[str, str]]


_PROTOCOLS: Mapping[str, _Protocol] = MappingProxyType(
    {
        "transcribe": _Protocol(transcribe.post, transcribe.parameters),
        "openai": _Protocol(openai.post, openai.parameters),
        "whispercpp": _Protocol(whispercpp.post, whispercpp.parameters),
        "asr": _Protocol(asr.post, asr.parameters),
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

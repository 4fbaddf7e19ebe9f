"""How the STT servers of different makers are spoken to: the protocols by their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from stt_lib.domain.model_names import check_model
from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers.options import Options
from stt_lib.servers.protocols import asr, openai, whispercpp
from stt_lib.servers.protocols import transcribe as ours
from stt_lib.servers.transport import Channel

__all__ = ["NAMES", "Options", "parse", "transcribe"]


@dataclass(frozen=True, slots=True)
class _Protocol:
    post: Callable[..., Answer]
    parameters: Callable[[Options], dict[str, str]]


_PROTOCOLS: Mapping[str, _Protocol] = MappingProxyType(
    {
        "transcribe": _Protocol(ours.post, ours.parameters),
        "openai": _Protocol(openai.post, openai.parameters),
        "whispercpp": _Protocol(whispercpp.post, whispercpp.parameters),
        "asr": _Protocol(asr.post, asr.parameters),
    }
)
NAMES = tuple(_PROTOCOLS)


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


def transcribe(
    protocol: str,
    channel: Channel,
    url: str,
    chunks: Sequence[Chunk],
    *,
    options: Options,
    server: str,
    seconds: float,
) -> Answer:
    """Post consecutive chunks, oldest first, as one request, answered within `seconds`.

    The answer says how it came about. Most servers do not tell their model: then it is the one
    that a person has named.

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    spoken = _PROTOCOLS[protocol]
    answer = spoken.post(channel, url, chunks, options=options, server=server, seconds=seconds)
    check_model(answer.model, options.model, server)
    return replace(
        answer,
        model=answer.model or options.model,
        protocol=protocol,
        parameters=spoken.parameters(options),
    )

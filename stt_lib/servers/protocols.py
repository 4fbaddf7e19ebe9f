"""How the STT servers of different makers are spoken to: the protocols by their names."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from stt_lib.model import Answer, Chunk
from stt_lib.servers import answers, asr, openai, whispercpp
from stt_lib.servers import transcribe as ours
from stt_lib.servers.options import Options
from stt_lib.servers.transport import Channel

__all__ = ["NAMES", "Options", "parse", "transcribe"]

_POSTS: Mapping[str, Callable[..., Answer]] = MappingProxyType(
    {
        "transcribe": ours.post,
        "openai": openai.post,
        "whispercpp": whispercpp.post,
        "asr": asr.post,
    }
)
NAMES = tuple(_POSTS)


def parse(url: str, default: str) -> tuple[str, str]:
    """The protocol and the address in `openai+http://host:8000/base`.

    Raises:
        ValueError: there is no such protocol.
    """
    scheme, separator, rest = url.partition("://")
    name, plus, plain = scheme.rpartition("+")
    protocol = name.lower() if plus else default
    if protocol not in _POSTS:
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

    Raises:
        AttemptError: whatever went wrong, by what the caller does next.
    """
    answer = _POSTS[protocol](channel, url, chunks, options=options, server=server, seconds=seconds)
    answers.check_model(answer, options.model, server)
    return answer

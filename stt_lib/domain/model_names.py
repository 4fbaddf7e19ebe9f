"""Model names: which spellings mean the same weights.

Servers report the name that the operator wrote, a repository, a file, or a folder of a cache. Two
spellings match if they are equal without owner, packaging and arithmetic.
"""

import re
from typing import Final

from stt_lib.errors import FailureKind, ServerMisconfigured

ANY: Final = "whisper-1"
"""OpenAI's only model name for years; many servers use it for whichever model they have."""
_ALIASES: Final = {"large": "large-v3", "turbo": "large-v3-turbo"}
"""Short names and the models that Whisper's own loaders load for them."""

_PACKAGING: Final = frozenset({"whisper", "faster", "openai", "ggml", "ct2", "ctranslate2"})
_ARITHMETIC: Final = re.compile(r"int8|int16|fp16|fp32|float16|float32|bfloat16|q[2-8](_[0-9k])?")
_CACHED: Final = re.compile(r"models--(?:.+?--)?([^/]+)(?:/.*)?$")
_ENDING: Final = re.compile(r"\.(bin|gguf|pt|onnx|safetensors)$|-20\d\d-\d\d-\d\d$")


def check_model(told: str | None, asked: str | None, server: str) -> None:
    """Check that a server used the requested model, if it reports one.

    Raises:
        ServerMisconfigured: the server used a different model.
    """
    if told and asked and not is_same(told, asked):
        message = (
            f"{server} uses the model {told}, not {asked} as requested:"
            " omit --model, or start the server with that model"
        )
        raise ServerMisconfigured(FailureKind.WRONG_SERVER, message, server)


def is_same(one: str, other: str) -> bool:
    """Whether two names mean the same model, as far as names can tell."""
    names = {_plain(one), _plain(other)}
    return len(names) == 1 or ANY in names


def _plain(model: str) -> str:
    """`Systran/faster-whisper-tiny.en` and `/models/ggml-tiny.en.bin` both become `tiny.en`."""
    path = model.strip().lower().replace("\\", "/").rstrip("/")
    cached = _CACHED.search(path)
    name = _ENDING.sub("", cached[1] if cached else path.rpartition("/")[2])
    if name == ANY:
        return ANY
    kept = [w for w in name.split("-") if w not in _PACKAGING and not _ARITHMETIC.fullmatch(w)]
    short = "-".join(kept) or name
    return _ALIASES.get(short, short)

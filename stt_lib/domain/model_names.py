"""Names of models: many spellings, and when two of them mean the same weights.

Servers report a name as the person wrote it, a repository, a file or a folder of a cache. What
two spellings share once owner, packaging and arithmetic are taken away decides.
"""

import re
from typing import Final

from stt_lib.errors import FailureKind, ServerMisconfigured

ANY: Final = "whisper-1"
"""OpenAI's only name for years: many servers take it for, or call by it, whatever they have."""

_ALIASES: Final = {"large": "large-v3", "turbo": "large-v3-turbo"}
"""What Whisper's own loaders take these for."""

_PACKAGING: Final = frozenset({"whisper", "faster", "openai", "ggml", "ct2", "ctranslate2"})
_ARITHMETIC: Final = re.compile(r"int8|int16|fp16|fp32|float16|float32|bfloat16|q[2-8](_[0-9k])?")
_CACHED: Final = re.compile(r"models--(?:.+?--)?([^/]+)(?:/.*)?$")
_ENDING: Final = re.compile(r"\.(bin|gguf|pt|onnx|safetensors)$|-20\d\d-\d\d-\d\d$")


def check_model(told: str | None, asked: str | None, server: str) -> None:
    """Refuse what another model than the one asked for has heard, if the server tells.

    Raises:
        ServerMisconfigured: the server has another model.
    """
    if told and asked and not is_same(told, asked):
        message = (
            f"{server} uses the model {told}, not {asked} as asked for:"
            " leave out --model, or start that server with it"
        )
        raise ServerMisconfigured(FailureKind.WRONG_SERVER, message, server)


def is_same(one: str, other: str) -> bool:
    """Whether two names mean the same model, as far as names can tell."""
    names = {_plain(one), _plain(other)}
    return len(names) == 1 or ANY in names


def _plain(model: str) -> str:
    """`Systran/faster-whisper-tiny.en` is tiny.en, and so is `/models/ggml-tiny.en.bin`."""
    path = model.strip().lower().replace("\\", "/").rstrip("/")
    cached = _CACHED.search(path)
    name = _ENDING.sub("", cached[1] if cached else path.rpartition("/")[2])
    if name == ANY:
        return ANY
    kept = [w for w in name.split("-") if w not in _PACKAGING and not _ARITHMETIC.fullmatch(w)]
    short = "-".join(kept) or name
    return _ALIASES.get(short, short)

"""The audio of consecutive chunks as one file, for servers that take only one.

Ogg Opus files are concatenated, which costs nothing: most servers decode all parts of such a
chained stream. For the other servers, and for other formats, the chunks are decoded and joined to
a WAV file, for which PyAV has to be installed.
"""

import io
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from stt_lib.audio import ogg
from stt_lib.domain.models import Chunk
from stt_lib.errors import AudioRejected, FailureKind, InputError, ServerMisconfigured

WAV_RATE = 16_000

_OGG_FORMATS = frozenset({"opus", "ogg", "oga"})


@dataclass(frozen=True, slots=True)
class Sound:
    """One file; `seconds` is its exact length, None if only decoding would show it."""

    data: bytes
    format: str
    seconds: float | None
    is_chained: bool = False

    @property
    def file(self) -> tuple[str, bytes, str]:
        """File name, content and media type, for a multipart request.

        Opus is named ogg: some servers choose a decoder by the name's ending, or refuse those
        that they do not know, and "opus" is in few of their lists.
        """
        ending = "ogg" if self.format in _OGG_FORMATS else self.format
        return f"audio.{ending}", self.data, f"audio/{ending}"


def one_file(chunks: Sequence[Chunk], server: str) -> Sound:
    """The chunks, oldest first, as one file, made as cheaply as possible; raises as `wav_file`."""
    if len(chunks) == 1:
        # Find out what is not audio, if possible, before a server fails with it.
        if can_decode() and not ogg.is_chainable([chunks[0].data]):
            _decoded(chunks[0])
        return Sound(chunks[0].data, chunks[0].format, measured(chunks))
    if ogg.is_chainable(chunk.data for chunk in chunks):
        data = b"".join(chunk.data for chunk in chunks)
        return Sound(data, "ogg", measured(chunks), is_chained=True)
    if not can_decode() and all(chunk.format in _OGG_FORMATS for chunk in chunks):
        # The other chunks need no decoder: after this error, the bad one is searched for.
        raise AudioRejected(FailureKind.INVALID_AUDIO, "a chunk is not a whole Ogg Opus file")
    return wav_file(chunks, server)


def wav_file(chunks: Iterable[Chunk], server: str) -> Sound:
    """The chunks, oldest first, decoded to one WAV file: 16 kHz, mono, 16 bit.

    Raises:
        AudioRejected: one of them is not audio.
        ServerMisconfigured: PyAV is missing.
    """
    if not can_decode():
        message = (
            f"the chunks have to be decoded and joined for {server}, which needs PyAV and NumPy:"
            " pip install av numpy"
        )
        raise ServerMisconfigured(FailureKind.REJECTED, message, server)
    samples = b"".join(
        (_decoded(chunk).clip(-1.0, 1.0) * 32767.0).round().astype("<i2").tobytes()
        for chunk in chunks
    )
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, WAV_RATE, 0, "NONE", ""))
        writer.writeframes(samples)
    return Sound(file.getvalue(), "wav", len(samples) / (2 * WAV_RATE))


def measured(chunks: Sequence[Chunk]) -> float | None:
    """The length of the chunks' audio, if that of each is known."""
    return sum(c.seconds for c in chunks) if all(c.is_measured for c in chunks) else None


def can_decode() -> bool:
    """Whether PyAV and NumPy are installed."""
    return all(find_spec(name) is not None for name in ("av", "numpy"))


def _decoded(chunk: Chunk) -> Any:
    """Samples between -1 and 1 at `WAV_RATE`."""
    from stt_lib.audio.decoding import decode

    try:
        return decode(chunk.data, "a chunk", limit=ogg.LONGEST_SECONDS)
    except InputError as error:
        raise AudioRejected(FailureKind.INVALID_AUDIO, str(error)) from None

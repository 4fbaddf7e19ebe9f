"""Audio of any container and codec that PyAV reads, as mono float32 samples."""

import io
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from stt_lib.errors import InputError

Samples = NDArray[np.float32]

WHISPER_RATE = 16_000

# A playlist may name other files or addresses: nothing but the bytes at hand may be opened.
CONTAINER_OPTIONS = {"protocol_whitelist": "none"}


class NotAudio(InputError):
    """This file holds no sound that could be decoded; `name` is the file, `reason` is short."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason


class TooLong(InputError):
    """This file holds more sound than the caller wants to decode."""


def decode(data: bytes, name: str, *, limit: float | None = None) -> Samples:
    """Return the sound of a file in memory at Whisper's sample rate.

    `limit` in seconds protects against small files that decode to days of silence.
    """
    if not data:
        raise NotAudio(name, "is empty")
    blocks, total = [], 0
    for block in stream(io.BytesIO(data), name, WHISPER_RATE):
        blocks.append(block)
        total += block.size
        if limit is not None and total > limit * WHISPER_RATE:
            raise TooLong(f"{name} holds more than {limit:.0f} s of sound")
    return np.concatenate(blocks)


def stream(source: BinaryIO, name: str, rate: int) -> Iterator[Samples]:
    """Yield the sound of a file block by block, at least one block.

    Damaged packets in the middle are left out, as players do.
    """
    empty = True
    for frame in _resampled(_frames(source, name), rate):
        block = frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
        if block.size:
            empty = False
            yield block
    if empty:
        raise NotAudio(name, "holds no sound")


def _frames(source: BinaryIO, name: str) -> Iterator[AudioFrame]:
    with _open(source, name) as container:
        if not container.streams.audio:
            raise NotAudio(name, "holds no audio")
        yield from _decoded(container, name)


def _open(source: BinaryIO, name: str) -> InputContainer:
    try:
        return av.open(source, mode="r", metadata_errors="ignore", options=CONTAINER_OPTIONS)
    except (av.FFmpegError, ValueError) as exc:
        raise NotAudio(name, "is not audio") from exc


def _decoded(container: InputContainer, name: str) -> Iterator[AudioFrame]:
    packets = container.demux(container.streams.audio[0])
    while True:
        try:
            yield from next(packets).decode()
        except (StopIteration, av.EOFError):
            return
        except av.InvalidDataError:
            continue
        except av.FFmpegError as exc:
            # Such as a change of channels within an Ogg file: the rest would be lost unnoticed.
            raise NotAudio(name, f"cannot be decoded: {exc.strerror}") from exc


def _resampled(frames: Iterator[AudioFrame], rate: int) -> Iterator[AudioFrame]:
    """Convert to mono at `rate`, also when the format changes on the way."""
    resampler, shape = None, None
    for frame in frames:
        if resampler is None or shape != _shape(frame):
            yield from _flushed(resampler)
            resampler, shape = AudioResampler("flt", "mono", rate), _shape(frame)
        # Time stamps start again in every link of a chained Ogg file; the order is what counts.
        frame.pts = None
        yield from resampler.resample(frame)
    yield from _flushed(resampler)


def _shape(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _flushed(resampler: AudioResampler | None) -> list[AudioFrame]:
    return resampler.resample(None) if resampler else []

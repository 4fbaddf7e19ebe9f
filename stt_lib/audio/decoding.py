"""Audio of any container and codec that PyAV reads, as mono float32 samples."""

import io
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from stt_lib.errors import InputError

Samples = NDArray[np.float32]

WHISPER_RATE = 16_000
"""Hertz. The sample rate of Whisper's input."""

# A playlist may name other files or addresses; nothing but the given bytes may be opened.
CONTAINER_OPTIONS = {"protocol_whitelist": "none"}

CANCELLED = 0.1
"""Energy of the mixed channels relative to the louder one, below which they cancel each other."""

MOST_SPEAKERS = 8
"""Channels. FFmpeg assumes a layout of speakers for up to this many, and mixes them by it."""

HIGHEST_RATE = 768_000
"""Hertz. The highest sample rate of recorders. The rate in a damaged header may be a thousand times
as high, and to resample from there takes seconds."""

MEMORY_SECONDS = 1.0
"""Seconds. Time constant of the energies that decide how two channels are mixed."""

FIRST_YEAR = 1990
"""Creation times before this year come from devices whose clock was never set."""

LAST_YEAR = 9998
"""A recording that begins after this year could run past the end of the calendar."""


class NotAudio(InputError):
    """A file contains no sound that could be decoded."""


class TooLong(InputError):
    """A file contains more sound than the caller accepts."""


class Media(NamedTuple):
    """What a container says about its audio.

    `offsets` has one entry for each audio track: the seconds between the start of the container
    and the first sample of the track. `created` is None if unknown or implausible.
    """

    offsets: tuple[float, ...]
    created: datetime | None


def probe(source: BinaryIO, name: str) -> Media:
    """Read the headers of a file; raises NotAudio if it cannot be opened or has no audio track."""
    with _open(source, name) as container:
        began = (container.start_time or 0) / av.time_base
        starts = [float((s.start_time or 0) * (s.time_base or 0)) for s in container.streams.audio]
        offsets = tuple(max(0.0, start - began) for start in starts)
        return Media(offsets, _plausible(container.metadata.get("creation_time")))


def decode(data: bytes, name: str, *, limit: float | None = None) -> Samples:
    """Return the sound of a file in memory at Whisper's sample rate; raises NotAudio or TooLong.

    Messages call the file `name`. Decoding stops after `limit` seconds, because a small file may
    contain days of silence.
    """
    blocks, total = [], 0
    for block in stream(io.BytesIO(data), name, WHISPER_RATE):
        blocks.append(block)
        total += block.size
        if limit is not None and total > limit * WHISPER_RATE:
            raise TooLong(f"{name} contains more than {limit:.0f} s of sound")
    return np.concatenate(blocks)


def stream(source: BinaryIO, name: str, rate: int, *, track: int = 0) -> Iterator[Samples]:
    """Yield the sound of an audio track block by block, at least one block.

    Damaged packets are skipped, as players do.
    """
    empty = True
    try:
        for block in _mixed(_frames(source, name, track), rate):
            if block.size:
                empty = False
                yield block
    except av.FFmpegError as exc:
        # Such as a change of channels within an Ogg file: the rest would be lost silently.
        raise NotAudio(f"{name} cannot be decoded: {exc.strerror}") from exc
    if empty:
        raise NotAudio(f"{name} contains no sound")


def regrouped(blocks: Iterable[Samples], size: int) -> Iterator[Samples]:
    """Yield the same samples in blocks of `size`; the last block may be shorter."""
    held: list[Samples] = []
    total = 0
    for block in blocks:
        rest = block
        while total + rest.size >= size:
            head, rest = np.split(rest, [size - total])
            yield np.concatenate([*held, head])
            held, total = [], 0
        held.append(rest)
        total += rest.size
    if total:
        yield np.concatenate(held)


def _open(source: BinaryIO, name: str) -> InputContainer:
    if not source.read(1):
        raise NotAudio(f"{name} is empty")
    source.seek(0)
    try:
        container = av.open(source, mode="r", metadata_errors="ignore", options=CONTAINER_OPTIONS)
    except (av.FFmpegError, ValueError) as exc:
        raise NotAudio(f"{name} is not audio") from exc
    if not container.streams.audio:
        container.close()
        raise NotAudio(f"{name} contains no audio")
    return container


def _frames(source: BinaryIO, name: str, track: int) -> Iterator[AudioFrame]:
    with _open(source, name) as container:
        packets = container.demux(container.streams.audio[track])
        while True:
            try:
                for frame in next(packets).decode():
                    if frame.sample_rate > HIGHEST_RATE:
                        raise NotAudio(f"{name} has {frame.sample_rate:,} samples a second")
                    yield frame
            except (StopIteration, av.EOFError):
                return
            except av.InvalidDataError:
                continue


def _mixed(frames: Iterator[AudioFrame], rate: int) -> Iterator[Samples]:
    """Convert to mono at `rate`, also if the format changes within the file."""
    mixer = _Mixer(rate)
    for (*_, channels), alike in groupby(map(_mixable, frames), _shape):
        resampler = AudioResampler("fltp", "mono" if channels == 1 else "stereo", rate)
        for piece in _joined(alike):
            yield from map(mixer.mono, resampler.resample(piece))
        yield from map(mixer.mono, resampler.resample(None))


def _joined(frames: Iterable[AudioFrame]) -> Iterator[AudioFrame]:
    """Join frames to a second of sound: to resample a short one costs more than to decode it."""
    fifo = AudioFifo()
    for frame in frames:
        # Time stamps restart in every link of a chained Ogg file; only the order counts.
        frame.pts = None
        fifo.write(frame)
        if fifo.samples >= frame.sample_rate and (joined := fifo.read()):
            yield joined
    if rest := fifo.read():
        yield rest


def _mixable(frame: AudioFrame) -> AudioFrame:
    """Average many channels without a layout: FFmpeg does not know how to mix most of them."""
    count = len(frame.layout.channels)
    if count <= MOST_SPEAKERS or frame.layout.name != f"{count} channels":
        return frame
    samples = frame.to_ndarray()
    channels = samples if frame.format.is_planar else samples.reshape(-1, count).T
    mean = channels.mean(axis=0, keepdims=True).astype(samples.dtype)
    mixed = AudioFrame.from_ndarray(mean, frame.format.packed.name, "mono")
    mixed.sample_rate = frame.sample_rate
    return mixed


def _shape(frame: AudioFrame) -> tuple[str, int, str, int]:
    layout = frame.layout
    return frame.format.name, frame.sample_rate, layout.name, len(layout.channels)


class _Mixer:
    """Averages two channels, or takes the louder one while they cancel each other.

    Some cables and microphones invert one channel: the average of such channels is silence.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._energies = np.zeros(3)

    def mono(self, frame: AudioFrame) -> Samples:
        """Return one channel for the one or two of a planar float frame."""
        channels = frame.to_ndarray().astype(np.float32, copy=False)
        if len(channels) == 1:
            return np.asarray(channels[0])
        mean = channels.mean(axis=0)
        now = [float(np.dot(sound, sound)) for sound in (mean, *channels)]
        self._energies *= math.exp(-mean.size / self._rate / MEMORY_SECONDS)
        self._energies += now
        mixed, left, right = self._energies
        if mixed < CANCELLED * max(left, right):
            return np.asarray(channels[0 if left >= right else 1])
        return np.asarray(mean)


def _plausible(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC) if FIRST_YEAR <= moment.year <= LAST_YEAR else None

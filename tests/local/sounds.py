"""Sounds to test with: the samples, and what numpy can make."""

import io
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

import stt_lib.local
from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode

SAMPLES = Path(stt_lib.local.__file__).parent / "samples"


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.opus").read_bytes()


def speech(seconds: float) -> Samples:
    """Real speech at Whisper's rate."""
    return decode(sample("library"), "library")[: round(seconds * WHISPER_RATE)]


def tone(seconds: float, *, hertz: float = 440, rate: int = WHISPER_RATE) -> Samples:
    time = np.arange(round(seconds * rate)) / rate
    return np.asarray(0.3 * np.sin(2 * np.pi * hertz * time), dtype=np.float32)


def sweep(seconds: float, rate: int) -> Samples:
    """A tone that wanders up and down: no two stretches of it are alike."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (300 * time + 15 * np.sin(2 * np.pi * 0.37 * time))
    return np.asarray(0.3 * np.sin(phase), dtype=np.float32)


def noise(seconds: float, level: float) -> Samples:
    normal = np.random.default_rng(1).standard_normal(round(seconds * WHISPER_RATE), np.float32)
    return normal * np.float32(level)


def encoded(
    sound: Samples, container: str, codec: str, *, rate: int = 48_000, layout: str = "mono"
) -> bytes:
    """Return mono sound as a file of that container and codec."""
    file = io.BytesIO()
    with av.open(file, mode="w", format=container) as output:
        stream = cast(AudioStream, output.add_stream(codec, rate=rate, options={"b": "64k"}))
        stream.layout = layout
        frame = AudioFrame.from_ndarray(sound[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = rate
        frame.pts = 0
        stream.codec_context.open(strict=False)
        size = stream.codec_context.frame_size or None
        shape = AudioResampler(stream.format, layout, rate, frame_size=size)
        for part in [*shape.resample(frame), *shape.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def silent_video() -> bytes:
    """Return a film without sound."""
    file = io.BytesIO()
    with av.open(file, mode="w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        black = np.zeros((64, 64, 3), dtype=np.uint8)
        for _ in range(25):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
        output.mux(stream.encode(None))
    return file.getvalue()

"""Pieces of a recording as Ogg Opus files that play one after the other without a click."""

import io
import struct
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame

from stt_lib.audio import ogg
from stt_lib.audio.decoding import WHISPER_RATE, Samples

FRAME = WHISPER_RATE // 50
"""Samples per packet (20 ms)."""

PRE_ROLL = 4 * FRAME
"""Samples before a piece that let the decoder settle; RFC 7845 recommends these 80 ms."""

BIT_RATE = 40_000
"""Bits per second, about 18 MB per hour. At 24, 32 and 40 kbit/s, 48, 45 and 35 of the same words
were wrong; 64 and 96 kbit/s are no better on real speech, with or without music (see
docs/benchmarks.md)."""

APPLICATION = "voip"
"""Opus' mode for speech. Its default, "audio", took a third more bytes and led to more errors: 15
instead of 11 in the 876 words of `tides`, 10 instead of 3 in the 148 of `birds` (means, at full
bandwidth)."""

COMPLEXITY = "5"
"""0 to 10. Loses 1 dB compared with 10 and takes half the time (50 ms for 10 s of sound)."""

NOTHING: Samples = np.zeros(0, dtype=np.float32)


class Piece(NamedTuple):
    """Mono sound at 16 kHz, with up to PRE_ROLL samples of sound before it and FRAME after it."""

    samples: Samples
    before: Samples = NOTHING
    after: Samples = NOTHING


def encode(piece: Piece) -> bytes:
    """Return an Ogg Opus file that plays exactly the samples of the piece.

    The neighbouring sound is encoded as well and then removed by the pre-skip and the end time in
    the file, because an encoder that starts in the middle of a word leaves a click there.
    """
    file = io.BytesIO()
    end = piece.before.size + piece.samples.size
    with av.open(file, mode="w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=WHISPER_RATE, layout="mono")
        stream.bit_rate = BIT_RATE
        stream.options = {
            "application": APPLICATION,
            "compression_level": COMPLEXITY,
        }
        _skip_at_start(stream.codec_context, piece.before.size)
        for packet in stream.encode(_frame(_with_neighbours(piece))):
            if packet.pts is not None and packet.pts < end:
                packet.duration = min(packet.duration or FRAME, end - packet.pts)
                container.mux(packet)
    return file.getvalue()


def _skip_at_start(encoder: AudioCodecContext, samples: int) -> None:
    """Increase the pre-skip in the header (RFC 7845, section 5.1) before it is written."""
    encoder.open(strict=False)
    header = bytearray(encoder.extradata or b"")
    (delay,) = struct.unpack_from("<H", header, 10)
    struct.pack_into("<H", header, 10, delay + samples * ogg.SAMPLE_RATE // WHISPER_RATE)
    encoder.extradata = bytes(header)


def _with_neighbours(piece: Piece) -> Samples:
    """Return whole packets, one more than the piece needs, because the encoder looks ahead."""
    sound = np.concatenate([piece.before, piece.samples, piece.after])
    missing = FRAME - piece.after.size
    return np.pad(sound, (0, missing + -(sound.size + missing) % FRAME))


def _frame(sound: Samples) -> AudioFrame:
    frame = AudioFrame.from_ndarray(sound[np.newaxis], format="flt", layout="mono")
    frame.sample_rate = WHISPER_RATE
    frame.time_base = Fraction(1, WHISPER_RATE)
    frame.pts = 0
    return frame

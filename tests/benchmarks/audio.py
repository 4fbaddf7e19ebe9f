"""The work of a benchmark: chunks that look like Ogg Opus, and what a server answers to them."""

import json
import random
import struct

CHUNKS = 12
"""Chunks of a sequence: two minutes of speech."""

CHUNK_BYTES = 20_000
CHUNK_SECONDS = 10
BYTES_PER_SECOND = CHUNK_BYTES // CHUNK_SECONDS

_PAGE = struct.Struct("<4sBBqIIIB")
_RATE = 48_000
_PACKETS = 50
"""Packets of a page: one second of frames of 20 ms."""


def chunk(number: int, size: int = CHUNK_BYTES) -> bytes:
    """Pages and durations as in a real file of this size; noise where the sound would be."""
    rng = random.Random(number)
    head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 312, _RATE, 0, 0)
    pages = [_page(0, [head]), _page(0, [b"OpusTags" + bytes(8)])]
    left = size - sum(map(len, pages)) - CHUNK_SECONDS * (_PAGE.size + _PACKETS)
    packet = min(254, max(1, left // (CHUNK_SECONDS * _PACKETS)))
    for second in range(1, CHUNK_SECONDS + 1):
        packets = [rng.randbytes(packet) for _ in range(_PACKETS)]
        pages.append(_page(second * _RATE + 312, packets))
    return b"".join(pages)


def _page(granule: int, packets: list[bytes]) -> bytes:
    header = _PAGE.pack(b"OggS", 0, 0, granule, 1, 0, 0, len(packets))
    return header + bytes(map(len, packets)) + b"".join(packets)


def sequence() -> list[bytes]:
    """The chunks of one sequence, oldest first."""
    return [chunk(number) for number in range(CHUNKS)]


def answer() -> bytes:
    """What a Whisper server says to two minutes of speech: a segment every five seconds."""
    seconds = CHUNKS * CHUNK_SECONDS
    segments = [
        {
            "text": f" and then number {start} came along the road to the old town again.",
            "start": float(start),
            "end": start + 4.8,
            "no_speech_prob": 0.0123,
            "avg_logprob": -0.2345,
            "compression_ratio": 1.4321,
        }
        for start in range(0, seconds, 5)
    ]
    languages = [["en", 0.98], ["de", 0.01], ["nl", 0.005], ["fr", 0.003], ["es", 0.002]]
    body = {"language": "en", "top_language_probs": languages, "segments": segments}
    return json.dumps({**body, "model": "benchmark"}).encode()

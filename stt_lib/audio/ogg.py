"""Ogg Opus files, read from their page headers: how long they are, whether they can be joined."""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SAMPLE_RATE = 48_000
_HEADER = struct.Struct("<4s2xq12xB")
"""Of a page: the capture pattern, the granule position, and the number of its lacing values."""
_OPUS_HEAD = b"OpusHead"
LONGEST_SECONDS = 3600.0
"""Seconds. Longest plausible audio of a chunk."""


class Opus(NamedTuple):
    """An Ogg Opus file, also a chained one.

    It `is_whole` unless it is cut off, or garbage follows. `layouts` are the channel counts and
    mapping families of its links.
    """

    seconds: float
    is_whole: bool
    layouts: frozenset[tuple[int, bytes]]


def read(data: bytes) -> Opus | None:
    """Read the pages of a file; None if it is not Ogg Opus.

    The granule position of the last page less the pre-skip is the number of samples at 48 kHz.
    Source: RFC 3533 section 6 (pages), RFC 7845 sections 4 and 5.1 (granule position, pre-skip).
    """
    samples = pre_skip = last_granule = end = 0
    layouts = set()
    for granule, body, beyond in _pages(data):
        end = beyond
        if data.startswith(_OPUS_HEAD, body):
            samples += max(0, last_granule - pre_skip)
            pre_skip, last_granule = struct.unpack_from("<H", data, body + 10)[0], 0
            layouts.add((data[body + 9], data[body + 18 : body + 19]))
        elif granule > 0 and layouts:
            last_granule = granule
    seconds = (samples + max(0, last_granule - pre_skip)) / SAMPLE_RATE
    is_plausible = 0 < seconds <= LONGEST_SECONDS
    return Opus(seconds, end == len(data), frozenset(layouts)) if is_plausible else None


def is_chainable(files: Iterable[bytes]) -> bool:
    """Whether these files, concatenated, are one stream that plays them all.

    Decoders silently skip garbage between files, and lose the rest of a stream whose channels
    change, so the files have to be whole and of one kind.
    Source: RFC 7845 section 5.1 (channel count and mapping family).
    """
    layouts: set[tuple[int, bytes]] = set()
    for data in files:
        opus = read(data)
        if opus is None or not opus.is_whole:
            return False
        layouts |= opus.layouts
    return len(layouts) == 1


def _pages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield granule position, start and end of the body of each page, until garbage comes."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        capture, granule, count = _HEADER.unpack_from(data, offset)
        body = offset + _HEADER.size + count
        end = body + sum(data[offset + _HEADER.size : body])
        is_head = data.startswith(_OPUS_HEAD, body)
        if capture != b"OggS" or end > len(data) or (is_head and end < body + 12):
            return
        offset = end
        yield granule, body, end

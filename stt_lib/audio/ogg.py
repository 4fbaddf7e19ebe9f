"""What the page headers of Ogg Opus files tell without decoding: how long, how to be joined."""

import struct
from collections.abc import Iterable, Iterator

SAMPLE_RATE = 48_000
_HEADER = struct.Struct("<4s2xq12xB")
"""Of a page: the capture pattern, the granule position, and the number of its lacing values."""
_OPUS_HEAD = b"OpusHead"
_LONGEST_PLAUSIBLE_SECONDS = 3600.0


def opus_seconds(data: bytes) -> float | None:
    """Seconds of audio in an Ogg Opus file, also a chained one; None when it is not one.

    The granule position of the last page less the pre-skip is the number of samples at 48 kHz.
    Source: RFC 3533 section 6 (pages), RFC 7845 sections 4 and 5.1 (granule position, pre-skip).
    """
    total = 0.0
    pre_skip: int | None = None
    last_granule = 0
    for granule, body, _, is_head in _pages(data):
        if is_head:
            total += _length(pre_skip, last_granule)
            pre_skip, last_granule = struct.unpack_from("<H", data, body + 10)[0], 0
        elif granule > 0:
            last_granule = granule
    total += _length(pre_skip, last_granule)
    return total if 0 < total <= _LONGEST_PLAUSIBLE_SECONDS else None


def is_chainable(files: Iterable[bytes]) -> bool:
    """Whether these files, one behind the other, are one stream that plays them all.

    Decoders leave out garbage between files without a word, and lose the rest of a stream whose
    channels change, so the files have to be whole and of one kind.
    Source: RFC 7845 section 5.1 (channel count and mapping family).
    """
    layouts: set[tuple[int, bytes]] = set()
    for data in files:
        pages = list(_pages(data))
        if not pages or pages[-1][2] != len(data) or opus_seconds(data) is None:
            return False
        heads = [body for _, body, _, is_head in pages if is_head]
        layouts.update((data[body + 9], data[body + 18 : body + 19]) for body in heads)
    return len(layouts) == 1


def _length(pre_skip: int | None, granule: int) -> float:
    return 0.0 if pre_skip is None else max(0, granule - pre_skip) / SAMPLE_RATE


def _pages(data: bytes) -> Iterator[tuple[int, int, int, bool]]:
    """Yield granule position, start and end of the body of every page, until garbage comes.

    And whether a stream begins there.
    """
    offset = 0
    while offset + _HEADER.size <= len(data):
        capture, granule, count = _HEADER.unpack_from(data, offset)
        body = offset + _HEADER.size + count
        if capture != b"OggS" or body > len(data):
            return
        is_head = data.startswith(_OPUS_HEAD, body)
        if is_head and body + 12 > len(data):
            return
        offset = body + sum(data[offset + _HEADER.size : body])
        yield granule, body, offset, is_head

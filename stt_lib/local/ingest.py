"""Cut a person's recording into 10 s Ogg Opus chunks and mark those that hold speech."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import NotAudio, Samples, decode, stream
from stt_lib.domain.models import NewChunk
from stt_lib.errors import InputError
from stt_lib.local import encoding, vad
from stt_lib.local.encoding import Piece

CHUNK_SECONDS = 10
CHUNK_SAMPLES = CHUNK_SECONDS * encoding.RATE
SHORTEST = encoding.FRAME
"""A shorter rest at the end (20 ms) is left out: nobody says anything in it."""

ID_BYTES = 12


def read_recording(path: Path, start: datetime | None = None) -> list[NewChunk]:
    """Return the chunks of a file, all or none.

    Only their compressed audio is held in memory. `start` is the time of the first sample; without
    it the file's modification time is taken. The ids derive from the file's content.
    """
    try:
        chunks = list(_chunks(path, start or _modified(path)))
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if not chunks:
        raise NotAudio(str(path), "holds no sound")
    return chunks


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _chunks(path: Path, began: datetime) -> Iterator[NewChunk]:
    with path.open("rb") as source:
        content = hashlib.file_digest(source, "sha256").digest()
        source.seek(0)
        sound = stream(source, str(path), encoding.RATE)
        for index, piece in enumerate(_with_neighbours(_cut(sound))):
            yield _chunk(content, index, began, piece)


def _cut(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Regroup blocks of any size into chunks; the last one is as short as it is."""
    held: list[Samples] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += block.size
        while size >= CHUNK_SAMPLES:
            sound = np.concatenate(held)
            yield sound[:CHUNK_SAMPLES]
            held = [sound[CHUNK_SAMPLES:]]
            size -= CHUNK_SAMPLES
    if size >= SHORTEST:
        yield np.concatenate(held)


def _with_neighbours(chunks: Iterable[Samples]) -> Iterator[Piece]:
    before = current = encoding.NOTHING
    for following in chain(chunks, [encoding.NOTHING]):
        if current.size:
            yield Piece(current, before, following[: encoding.FRAME])
        before, current = current[-encoding.PRE_ROLL :], following


def _chunk(content: bytes, index: int, began: datetime, piece: Piece) -> NewChunk:
    data = encoding.encode(piece)
    # The detector hears what the server is going to hear.
    prob = vad.speech_probability(decode(data, f"chunk {index}"))
    return NewChunk(
        id_bytes=_id(content + index.to_bytes(8, "big")),
        original_id_bytes=_id(content),
        index=index,
        start=began + timedelta(seconds=CHUNK_SECONDS * index),
        data=data,
        prob=prob,
        has_speech=vad.has_speech(prob),
    )


def _id(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:ID_BYTES]

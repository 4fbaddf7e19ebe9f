"""Chunks of real speech, as the ingester cuts them, and how well a text was heard."""

import re
from datetime import timedelta
from functools import cache
from itertools import pairwise

import jiwer

from stt_lib.audio import ogg
from stt_lib.domain.models import Answer, Chunk
from stt_lib.local.ingest import read_recording
from stt_lib.store.mapping import chunk as read_chunk
from tests.local.sounds import SAMPLES
from tests.support.world import START


@cache
def spoken_chunks(name: str) -> tuple[Chunk, ...]:
    """All chunks of a sample recording, with speech or without."""
    return tuple(
        read_chunk(
            {
                "_id": new.index,
                "original_id": name,
                "index": new.index,
                "start": new.start,
                "data": new.data,
                "format": new.format,
            }
        )
        for new in read_recording(SAMPLES / f"{name}.opus", START)
    )


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def heard(answer: Answer) -> str:
    return " ".join(words(" ".join(segment.text for segment in answer.segments)))


def reference(name: str) -> str:
    """What is said in a sample, without the marks of its text."""
    marked = (SAMPLES / f"{name}.txt").read_text()
    return " ".join(words(re.sub(r"^[AB]: |^\[pause \d+\]$", "", marked, flags=re.MULTILINE)))


def error_rate(expected: str, text: str) -> float:
    """Word errors per word expected."""
    return float(jiwer.wer(expected, text))


def length(chunks: tuple[Chunk, ...]) -> float:
    return sum(chunk.seconds for chunk in chunks)


def is_in_order(answer: Answer) -> bool:
    return all(a.start <= b.start for a, b in pairwise(answer.segments))


def garbled(chunk: Chunk, data: bytes, form: str = "opus") -> Chunk:
    """The chunk with other bytes in it."""
    opus = ogg.read(data)
    return Chunk(
        chunk.id,
        chunk.index,
        chunk.start,
        data,
        form,
        opus.seconds if opus else chunk.seconds,
        is_measured=opus is not None,
        is_whole=opus is None or opus.is_whole,
    )


def fake_chunk(index: int, data: bytes, form: str = "opus") -> Chunk:
    start = START + timedelta(seconds=10 * index)
    return garbled(Chunk(index, index, start, b"", form, 10.0), data, form)

"""What the tests of the store have in common."""

from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from stt_lib.domain.models import Chunk, ChunkSequence, Loaded, Segment, Transcript
from stt_lib.domain.sequences import group
from stt_lib.store import Store

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def plan(store: Store, **options: Any) -> list[ChunkSequence]:
    return list(group(store.chunks.pending(run_started=store.now(), **options)))


def load(store: Store, sequence: ChunkSequence, **options: Any) -> Loaded:
    return store.chunks.load(sequence, **{"run_started": store.now(), **options})


def indexes(chunks: tuple[Chunk, ...]) -> list[int]:
    return [chunk.index for chunk in chunks]


def transcript(sequence: ChunkSequence, count: int | None = None, **fields: Any) -> Transcript:
    chunks = sequence.chunks[:count]
    start = chunks[0].start
    assert start is not None
    made: dict[str, Any] = {
        "id": ObjectId(),
        "original_id": sequence.original_id,
        "start": start,
        "end": start,
        "chunk_ids": tuple(chunk.id for chunk in chunks),
        "segments": (Segment(0.0, 1.0, "words"),),
        "language": "en",
        "top_language_probs": None,
        "model": None,
        "server": "s",
    }
    return Transcript(**{**made, **fields})

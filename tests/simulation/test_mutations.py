"""A simulation that finds nothing proves something only if it finds what is really wrong."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from stt_lib.domain.models import ChunkSequence, Loaded, Transcript
from stt_lib.pipeline.sinks import ChunkSink
from stt_lib.pipeline.worker import _Job
from tests.simulation.checks import Violation
from tests.simulation.world import play
from tests.support.memory_database import CLAIM_INDEX, OWNER_INDEX, Database
from tests.support.memory_store import Chunks

MOST_SEEDS = 1000

Patch = pytest.MonkeyPatch


def _without(name: str) -> Callable[[Patch], None]:
    def mutate(patch: Patch) -> None:
        unique = Database._unique

        def others(database: Database) -> dict[str, Any]:
            return {index: found for index, found in unique(database).items() if index != name}

        patch.setattr(Database, "_unique", others)

    return mutate


def _load_without_a_check(patch: Patch) -> None:
    def load(chunks: Chunks, sequence: ChunkSequence, **_: Any) -> Loaded:
        found = chunks.audio([chunk.id for chunk in sequence.chunks])
        return Loaded(found, neighbours=chunks.neighbours(sequence.original_id, found))

    patch.setattr(Chunks, "load", load)


def _mark_before_save(patch: Patch) -> None:
    save = ChunkSink.save

    def marked_first(sink: ChunkSink, transcript: Transcript) -> bool:
        sink.saved_before(transcript.chunk_ids)
        return save(sink, transcript)

    patch.setattr(ChunkSink, "save", marked_first)


def _release_before_mark(patch: Patch) -> None:
    save = _Job._save

    def released_first(job: Any, heard: Any) -> None:
        job._worker.store.claims.release(job._claim.token)
        save(job, heard)

    patch.setattr(_Job, "_save", released_first)


MUTATIONS = {
    "no unique index on owners": _without(OWNER_INDEX),
    "no unique index on claims": _without(CLAIM_INDEX),
    "load does not check again": _load_without_a_check,
    "mark before save": _mark_before_save,
    "release before mark": _release_before_mark,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_defect_is_found(mutation: str, monkeypatch: Patch) -> None:
    MUTATIONS[mutation](monkeypatch)
    assert _first_violation() is not None


def _first_violation() -> str | None:
    for seed in itertools.islice(itertools.count(), MOST_SEEDS):
        try:
            play(seed)
        except Violation as violation:
            return f"seed {seed}: {violation}"
    return None

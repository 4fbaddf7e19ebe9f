"""A simulation that finds nothing proves something only if it finds what is really wrong."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stt_lib.domain.bisection import Heard
from stt_lib.domain.models import ChunkSequence, Loaded, Seam, Segment, Transcript
from stt_lib.filtering import Verdict
from stt_lib.pipeline.context import Context
from stt_lib.pipeline.sinks import ChunkSink
from stt_lib.pipeline.worker import _Job
from tests.simulation.checks import Violation
from tests.simulation.world import play
from tests.support.memory_database import CLAIM_INDEX, OWNER_INDEX, Database
from tests.support.memory_store import Chunks, Seams

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


def _cut_where_no_neighbour_was_posted(patch: Patch) -> None:
    def own(context: Context, heard: Heard, verdict: Verdict) -> Verdict:
        segments: Sequence[Segment] = verdict.kept
        for cut in context._cuts(heard):
            overlap = cut.overlap(segments)
            segments = overlap.own(context._seam(cut, overlap, heard))
        dropped = (d for d in verdict.dropped if heard.timeline.holds(d.segment))
        return Verdict(tuple(segments), tuple(dropped))

    patch.setattr(Context, "own", own)


def _seam_not_read_again(patch: Patch) -> None:
    decide = Seams.decide

    def decided(seams: Seams, original_id: Any, ids: tuple[Any, Any], seam: Seam, at: Any) -> Seam:
        decide(seams, original_id, ids, seam, at)
        return seam

    patch.setattr(Seams, "decide", decided)


def _seam_of_a_replacement(patch: Patch) -> None:
    patch.setattr(Context, "_may_join", lambda _, neighbour, pair: not neighbour.failures)


MUTATIONS = {
    "no unique index on owners": _without(OWNER_INDEX),
    "no unique index on claims": _without(CLAIM_INDEX),
    "load does not check again": _load_without_a_check,
    "mark before save": _mark_before_save,
    "release before mark": _release_before_mark,
    "text is cut where no neighbour was posted": _cut_where_no_neighbour_was_posted,
    "the decision on a seam is not read again": _seam_not_read_again,
    "a replacement decides where it meets a pending chunk": _seam_of_a_replacement,
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

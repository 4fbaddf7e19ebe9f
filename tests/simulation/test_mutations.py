"""A simulation that finds nothing proves something only if it finds what is really wrong."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stt_lib.domain.bisection import Heard
from stt_lib.domain.models import ChunkSequence, Loaded, Seam, Segment, Transcript
from stt_lib.domain.stitching import Overlap
from stt_lib.filtering import Verdict
from stt_lib.pipeline.context import Context, _end_of
from stt_lib.pipeline.sinks import ChunkSink
from stt_lib.pipeline.worker import _Job
from stt_lib.servers.pool import ServerPool, Slot
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


def _text_cut_without_its_audio(patch: Patch) -> None:
    """As if the neighbour had been posted, although the request with it was refused."""

    def own(context: Context, heard: Heard, verdict: Verdict) -> tuple[Verdict, tuple[Any, ...]]:
        segments: Sequence[Segment] = verdict.kept
        for cut in context._cuts(heard.chunks):
            overlap = cut.overlap(segments, heard.timeline)
            beside = context._transcript_of(cut.neighbour)
            seam = context._seam(cut, beside, overlap, heard)
            segments = overlap.own(seam or _end_of(beside, cut))
        return Verdict(tuple(segments), verdict.dropped), ()

    patch.setattr(Context, "own", own)


def _decision_not_read_again(patch: Patch) -> None:
    """Each side goes by its own proposal, whoever was first."""
    decide = Seams.decide

    def decided(seams: Seams, original_id: Any, ids: Any, seam: Seam, at: Any) -> Seam:
        decide(seams, original_id, ids, seam, at)
        return seam

    patch.setattr(Seams, "decide", decided)


def _no_word_of_the_other_side_is_given_up(patch: Patch) -> None:
    patch.setattr(Overlap, "own", lambda overlap, *_: tuple(overlap._segments))


def _slot_cleared_after_entering_the_line(patch: Patch) -> None:
    """As it was once: what another thread granted in between was lost, and the run hung."""
    granted = ServerPool._granted

    def cleared_first(pool: ServerPool, waiter: Any) -> Slot:
        with pool._lock:
            waiter.slot = None
            waiter.granted.clear()
            pool._line.add(waiter.ticket)
        return granted(pool, waiter)

    patch.setattr(ServerPool, "_granted", cleared_first)


MUTATIONS = {
    "text is cut whose audio was not in the request": _text_cut_without_its_audio,
    "the decision on a seam is not read again": _decision_not_read_again,
    "seams are left as they were heard": _no_word_of_the_other_side_is_given_up,
    "no unique index on owners": _without(OWNER_INDEX),
    "no unique index on claims": _without(CLAIM_INDEX),
    "load does not check again": _load_without_a_check,
    "mark before save": _mark_before_save,
    "release before mark": _release_before_mark,
    "a granted slot is cleared": _slot_cleared_after_entering_the_line,
}


FIRST_SEEDS = {
    "the decision on a seam is not read again": 3170,
    "a granted slot is cleared": 240,
}
"""Where the seeds before are known to pass, which takes minutes."""


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_defect_is_found(mutation: str, monkeypatch: Patch) -> None:
    MUTATIONS[mutation](monkeypatch)
    assert _first_violation(FIRST_SEEDS.get(mutation, 0)) is not None


def _first_violation(first: int) -> str | None:
    for seed in range(first, first + MOST_SEEDS):
        try:
            play(seed)
        except Violation as violation:
            return f"seed {seed}: {violation}"
    return None

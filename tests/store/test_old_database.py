"""What commit dadda9f left half-way through a backlog is finished: its documents as it wrote them.

Claims were fields of the chunks, dropped text and seams were kept on them, a claim for
re-transcription on the transcript.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from stt_lib.domain.models import ALL, Dropped, Revision, Seam, Segment
from stt_lib.store import Store
from stt_lib.store.indexes import FAILED, WORKABLE
from tests.store.conftest import LONG_AGO, indexes, load, plan, transcript
from tests.support.whisper import FakeWhisper
from tests.support.world import START, World

SOON = datetime(2100, 1, 1, tzinfo=UTC)
CLAIM = {"by": "host/1/abc", "at": LONG_AGO, "until": LONG_AGO}
LIVE_CLAIM = {"by": "host/1/abc", "at": LONG_AGO, "until": SOON}
ERROR = {"kind": "timeout", "message": "no answer", "server": "http://s", "at": LONG_AGO}
FAILURE = {
    "attempt": "host/1/abc",
    "error": ERROR,
    "retry_at": LONG_AGO,
    "history": [ERROR],
    "failures": 2,
}
SEAM = {"at": START, "decided_at": START, "heard": [{"word": "a", "at": 0.1}], "cut": 1}


@pytest.mark.parametrize(
    "stt", [{"claim": CLAIM}, {"claim": LIVE_CLAIM}, {**FAILURE, "claim": CLAIM}]
)
def test_a_claim_on_a_chunk_is_ignored_and_goes_with_the_mark(
    world: World, store: Store, stt: dict[str, Any]
) -> None:
    """No version that wrote it may still be running."""
    world.record(range(3), stt=stt)
    [sequence] = plan(store)
    assert store.claims.acquire(sequence, "token", "w")
    assert indexes(load(store, sequence).chunks) == [0, 1, 2]
    store.chunks.mark([chunk.id for chunk in sequence.chunks], is_backed=True)
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0


def test_failures_and_parked_chunks_are_known(world: World, store: Store) -> None:
    world.record(range(2), original_id="failed", stt=FAILURE)
    world.record([0], original_id="later", stt={**FAILURE, "retry_at": SOON})
    world.record([0], original_id="parked", stt={**FAILURE, "parked_at": LONG_AGO})
    assert {s.original_id for s in plan(store)} == {"failed"}
    assert {s.original_id for s in plan(store, only_failed=True)} == {"failed", "later", "parked"}
    [kind] = store.failures.kinds()
    assert (kind.chunks, kind.parked, kind.waiting) == (4, 1, 1)
    [chunk, _] = load(store, plan(store)[0]).chunks
    assert chunk.failures == 2
    assert store.failures.retry_now(None, "parked") == 1
    assert {s.original_id for s in plan(store)} == {"failed", "parked"}


def test_what_was_saved_but_not_marked_has_an_owner(world: World, store: Store) -> None:
    world.record(range(4), stt={"claim": CLAIM})
    [sequence] = plan(store)
    assert store.transcripts.save(transcript(sequence, 3))
    assert len(load(store, sequence).owned) == 3


def test_seams_are_found_on_chunks_and_first_decisions_stand(world: World, store: Store) -> None:
    recording = world.record(range(3))
    ids = [c["_id"] for c in world.chunks.find({}, sort=[("index", 1)])]
    old = {**SEAM, "moment": 0.2, "next": ids[1]}
    world.chunks.update_one({"_id": ids[0]}, {"$set": {"stt.seam": old, "transcribed_at": START}})
    pair, other = (ids[0], ids[1]), (ids[0], ids[2])
    decided, ours = Seam(("a",), (0.1,), 1, 0.2), Seam(("b",), (0.5,), 0, 0.0)
    assert store.seams.find(recording, pair) == decided
    assert store.seams.find(recording, other) is None, "it is about another chunk"
    assert store.seams.decide(recording, pair, ours, START) == decided
    assert store.seams.decide(recording, other, ours, START) == ours
    store.chunks.mark([ids[0]], is_backed=True)
    world.chunks.update_many({}, {"$unset": {"stt": True}})
    assert store.seams.find(recording, pair) == decided, "it was copied"


@pytest.mark.parametrize("junk", [7, {"next": 1}, {"heard": [{"word": 1}], "cut": 0, "moment": 0}])
def test_what_is_no_seam_is_none(world: World, store: Store, junk: Any) -> None:
    recording = world.record(range(2))
    ids = [c["_id"] for c in world.chunks.find({}, sort=[("index", 1)])]
    seam = {**junk, "next": ids[1]} if isinstance(junk, dict) else junk
    world.chunks.update_many({}, {"$set": {"stt.seam": seam}})
    assert store.seams.find(recording, (ids[0], ids[1])) is None
    ours = Seam((), (), 0, 0.0)
    assert store.seams.decide(recording, (ids[0], ids[1]), ours, START) == ours


def test_of_two_decisions_the_first_stands(world: World, store: Store) -> None:
    pair = (ObjectId(), ObjectId())
    one, other = Seam(("$a", "b"), (-0.5, 0.5), 1, 0.0), Seam(("a",), (-0.4,), 1, -0.1)
    for proposed in (one, one, other):  # the answer to the first was lost
        assert store.seams.decide("$rec", pair, proposed, START) == one
    [document] = world.db["stt_seams"].find()
    assert document["_id"] == {"before": pair[0], "after": pair[1]}
    assert (document["original"], document["at"]) == ("$rec", START)


# -- dropped text -----------------------------------------------------------------------------


def dropped_on(world: World, ids: list[Any], recording: Any) -> ObjectId:
    """Text that the filter dropped, as it was kept on the first chunk."""
    segment = {"start": 0.0, "end": 1.0, "text": " Thank you.", "reasons": ["phrase"], "score": 2.0}
    transcript_id = ObjectId()
    document = {
        "_id": transcript_id,
        "original": recording,
        "start": START,
        "end": START + timedelta(seconds=20),
        "segments": [],
        "dropped_segments": [segment],
        "chunk_ids": ids,
        "language": "en",
    }
    world.chunks.update_one({"_id": ids[0]}, {"$set": {"stt": {"dropped": document}}})
    rest = {"_id": {"$in": ids[1:]}}
    world.chunks.update_many(rest, {"$set": {"stt": {"dropped_with": ids[0]}}})
    return transcript_id


def test_dropped_text_on_chunks_is_explained_and_restored(world: World, store: Store) -> None:
    recording = world.record(range(2), transcribed_at=START)
    ids = [c["_id"] for c in world.chunks.find({}, sort=[("index", 1)])]
    transcript_id = dropped_on(world, ids, recording)
    for text in (*map(str, ids), str(recording)):
        [found] = store.dropped.explained(text)
        assert (found.transcript.id, found.is_saved) == (transcript_id, False)
        assert len(found.detections) == 2
    assert store.dropped.restore(found) == 1
    assert store.dropped.restore(found) == 0
    [document] = world.transcriptions.find()
    assert document["segments"][0]["text"] == " Thank you."
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0


def test_dropped_text_is_a_document_of_its_own(world: World, store: Store) -> None:
    recording = world.record(range(3))
    [sequence] = plan(store)
    segment = Segment(0.0, 1.0, " you", no_speech_prob=0.9)
    dropped = transcript(sequence, segments=(), dropped=(Dropped(segment, ("phrase",), 2.0),))
    for _ in range(2):  # an answer was lost
        store.dropped.save(dropped)
    ids = [chunk.id for chunk in sequence.chunks]
    store.chunks.mark(ids, is_backed=False)
    [document] = world.db["stt_dropped"].find()
    assert document["_id"] == ids[0]
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0
    for text in (*map(str, ids), str(recording)):
        [found] = store.dropped.explained(text)
        assert (found.transcript.id, found.is_saved) == (dropped.id, False)
    assert store.dropped.restore(found) == 1
    assert store.dropped.restore(found) == 0
    assert world.db["stt_dropped"].count_documents({}) == 0
    [saved] = store.transcripts.all()
    assert (saved.id, saved.chunk_ids) == (dropped.id, tuple(ids))


# -- transcripts ------------------------------------------------------------------------------


def test_a_claim_on_a_transcript_is_ignored_and_goes(world: World, store: Store) -> None:
    world.record(range(2))
    [sequence] = plan(store)
    first = transcript(sequence)
    assert store.transcripts.save(first)
    claimed = {"stt": {"claim": LIVE_CLAIM, "heard_nothing": {"model": "m", "at": START}}}
    world.transcriptions.update_one({}, {"$set": claimed})
    [old] = store.transcripts.to_retranscribe(ALL)
    assert (old.revision, old.heard_nothing) == (Revision(first.id), "m")
    store.transcripts.note_nothing_heard(old.revision, "n")
    assert "claim" not in world.transcriptions.find()[0]["stt"]


def test_whole_numbers_may_be_doubles_as_javascript_drivers_store_them(
    world: World, store: Store
) -> None:
    world.record(range(2), stt={"failures": 3.0, "excuses": 2.0})
    [sequence] = plan(store)
    chunk = load(store, sequence).chunks[0]
    assert (chunk.failures, chunk.excuses) == (3, 2)
    first = transcript(sequence)
    assert store.transcripts.save(first)
    world.transcriptions.update_one({}, {"$set": {"revision": 2.0}})
    [old] = store.transcripts.to_retranscribe(ALL)
    assert old.revision == Revision(first.id, 2)
    assert store.transcripts.is_current(old.revision)


def test_the_indexes_of_the_old_version_serve_the_new_one(world: World) -> None:
    """They hold one key more, which costs little; a name is never reused for other keys."""
    keys = [("priority", -1), ("start", -1), ("index", -1)]
    keys += [(n, 1) for n in ("original_id", "_id", "vad.prob", "stt.retry_at", "stt.claim.until")]
    keys += [("stt.error.at", 1)]
    world.chunks.create_index(keys, name="stt_pending", partialFilterExpression=WORKABLE)
    world.chunks.create_index(keys, name="stt_failed", partialFilterExpression=FAILED)
    world.record(range(5))
    with Store(world.uri, world.database) as store:
        store.indexes.ensure()
        assert store.indexes.missing() == []
        world.db.command("profile", 2)
        assert [len(sequence) for sequence in plan(store)] == [5]
        world.db.command("profile", 0)
    reads = list(world.db["system.profile"].find({"ns": f"{world.database}.audio_chunks"}))
    assert reads
    assert all(read.get("docsExamined", 0) == 0 for read in reads)


# -- odd transcripts --------------------------------------------------------------------------

ODD: list[dict[str, Any]] = [
    {"end": None},
    {"segments": None},
    {"segments": [5]},
    {"segments": [{"text": 1}]},
    {"start": "2026-03-01"},
    {"start": None},
    {"chunk_ids": 5},
    {"chunk_ids": None},
    {"start": datetime(9999, 12, 31, tzinfo=UTC), "end": datetime(9999, 12, 31, tzinfo=UTC)},
    {"top_language_probs": 5},
    {"parameters": 7, "revision": "x", "model": {}},
]


@pytest.mark.parametrize("odd", ODD)
def test_a_transcript_that_cannot_be_read_is_skipped_with_one_warning(
    world: World, store: Store, odd: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    world.record(range(3), original_id="rec")
    [sequence] = plan(store)
    good = transcript(sequence, 1)
    assert store.transcripts.save(good)
    base = {"original": "rec", "start": START, "end": START, "segments": [], "language": "en"}
    for number in range(3):
        ids: dict[str, Any] = {"chunk_ids": [f"odd {number}"]}
        if odd.get("chunk_ids", 0) is None:
            ids["original"] = f"rec {number}"
        world.transcriptions.insert_one(
            {**base, **ids, **odd, "_id": f"odd {number}"}
            | ({"chunk_ids": number} if odd.get("chunk_ids") == 5 else {})
        )
    assert good.id in [t.id for t in store.transcripts.all()]
    assert good.id in [t.revision.transcript_id for t in store.transcripts.to_retranscribe(ALL)]
    assert len(list(store.transcripts.stretches())) >= 1
    for chunk_id in ("odd 0", 0, sequence.chunks[0].id):
        store.transcripts.of_chunk("rec", chunk_id)
        store.dropped.explained(str(chunk_id))
    store.dropped.explained("rec")
    store.transcripts.count_by_origin(ALL)
    assert store.transcripts.owned("rec", [c.id for c in sequence.chunks]) == {
        *load(store, sequence).owned
    }
    warnings = [r for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(warnings) <= 1


def test_odd_transcripts_cost_neither_their_neighbours_nor_what_reads_them(
    world: World, whisper: FakeWhisper
) -> None:
    """Each owns the first chunk of a recording, with which the others are posted as context."""
    for number, odd in enumerate(ODD):
        recording = world.record(range(4), original_id=number)
        first = {"original_id": recording, "index": 0}
        world.chunks.update_one(first, {"$set": {"transcribed_at": START}})
        ids = [chunk["_id"] for chunk in world.chunks.find(first)]
        base = {"original": recording, "start": START, "end": START, "segments": []}
        world.transcriptions.insert_one({**base, "chunk_ids": ids, **odd})
    done = world.run("--max-failures", "1")
    assert done.returncode == 0, done.stderr
    assert world.pending() == []
    assert done.stderr.count("cannot be read") == 1
    for arguments in (["--retranscribe", "all"], ["export", "--format", "html"], ["status"]):
        done = world.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr + world.log

"""One odd chunk costs itself only: any BSON value in any field, between two good neighbours."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from bson import (
    Binary,
    Code,
    DatetimeMS,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.errors import WriteError

from stt_lib.domain.models import ChunkSequence, Failure, identity
from stt_lib.domain.sequences import group
from stt_lib.errors import FailureKind
from stt_lib.store import Store
from tests.store.conftest import LONG_AGO, plan, transcript
from tests.support.whisper import FakeWhisper, transcription
from tests.support.world import START, World, chunk

MISSING: Final = object()

FIELDS: Final = (
    *("_id", "original_id", "index", "start", "data", "format", "ingested_at", "priority"),
    *("vad", "vad.ran_at", "vad.prob", "vad.has_speech", "transcribed_at", "unknown"),
    *("stt", "stt.failures", "stt.excuses", "stt.attempt", "stt.retry_at", "stt.parked_at"),
    *("stt.error", "stt.error.kind", "stt.error.message", "stt.error.at", "stt.error.server"),
    *("stt.history", "stt.history.0", "stt.claim", "stt.claim.by", "stt.claim.at"),
    *("stt.claim.until", "stt.seam", "stt.seam.next", "stt.seam.heard", "stt.dropped"),
    "stt.dropped_with",
)
VALUES: Final[tuple[Any, ...]] = (
    *(MISSING, None, True, False, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), Int64(1)),
    *(1.0, 1.5, -0.0, float("nan"), float("inf"), float("-inf"), 1e300),
    *(Decimal128("1"), Decimal128("NaN"), Decimal128("1E+6000")),
    *("", "x", "$x", "a.b", "x" * 3000, "\0"),
    *(b"", b"x", Binary(b"0" * 16, 4), Binary(b"x", 128), ObjectId("0" * 24)),
    *(LONG_AGO, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    *(DatetimeMS(2**60), Timestamp(1, 1), Regex("^x"), Code("x"), Code("x", {"a": 1})),
    *(DBRef("c", 1), MinKey(), MaxKey(), [], [1, {}], {}, {"$gt": 1}),
)


def test_the_numbers_are_those_of_the_issue() -> None:
    assert (len(FIELDS), len(VALUES)) == (36, 47)


def odd(field: str, value: Any) -> dict[str, Any]:
    """The middle chunk of a recording, with this value in this field."""
    document = chunk(ObjectId(), 1)
    document["stt"] = {
        "failures": 1,
        "error": {"kind": "x", "message": "y", "at": LONG_AGO, "server": None},
        "history": [{"kind": "x"}],
        "claim": {"by": "z", "at": LONG_AGO, "until": LONG_AGO},
        "seam": {"next": 1, "heard": []},
    }
    place: Any = document
    *path, name = field.split(".")
    for step in path:
        place = place[step]
    key: Any = int(name) if isinstance(place, list) else name
    if value is not MISSING:
        place[key] = value
    elif isinstance(place, list):
        place.clear()
    else:
        place.pop(key, None)
    return document


def insert_odd(world: World, field: str) -> list[dict[str, Any]]:
    """Insert a recording for each value; returns the good neighbours."""
    good: list[dict[str, Any]] = []
    for value in VALUES:
        document = odd(field, value if value is MISSING else copy.deepcopy(value))
        recording = document.get("original_id")
        if field == "original_id":
            recording = ObjectId()
        try:
            world.chunks.insert_one(document)
        except WriteError:
            assert field == "_id"  # MongoDB itself forbids some
            continue
        good += [chunk(recording, index) for index in (0, 2)]
    world.chunks.insert_many(good)
    return good


@pytest.mark.timeout(180)
def test_a_run_over_all_odd_chunks_transcribes_their_neighbours(
    world: World, whisper: FakeWhisper
) -> None:
    spoken = {"start": 0.0, "end": 2.0, "text": " the rain comes in", "no_speech_prob": 0.01}
    whisper.script = lambda _: transcription([spoken])
    good = [chunk["_id"] for field in FIELDS for chunk in insert_odd(world, field)]
    assert world.run("--max-workers", "8", seconds=170).returncode == 1
    left = list(world.chunks.find({"transcribed_at": None, "_id": {"$in": good}}))
    why = [(chunk["index"], chunk["stt"]["error"]["kind"]) for chunk in left]
    assert why == 2 * [(0, "duplicate_index")], "the odd ones have the index 0 and -0.0"
    assert world.chunks.count_documents({"stt.error.kind": "internal"}) == 0
    assert world.claims.count_documents({}) == 0


@pytest.mark.parametrize("field", FIELDS)
def test_an_odd_chunk_costs_itself_only(world: World, store: Store, field: str) -> None:
    good = insert_odd(world, field)
    work_through(store, only_failed=False)
    work_through(store, only_failed=True)
    done = {"transcribed_at": {"$ne": None}, "_id": {"$in": [document["_id"] for document in good]}}
    assert world.chunks.count_documents(done) == len(good)
    assert world.claims.count_documents({}) == 0
    assert plan(store) == [], "what is left has failed, and is due later"
    options: CodecOptions[Any] = CodecOptions(
        datetime_conversion=DatetimeConversion.DATETIME_AUTO, tz_aware=True
    )
    saved = world.transcriptions.with_options(options).find()
    owners = [chunk_id for document in saved for chunk_id in document["chunk_ids"]]
    assert len(set(map(identity, owners))) == len(owners)
    for text in ("odd 0", "x", "1", '{"$date": "2000-01-01T00:00:00Z"}'):
        store.failures.stories(text)
        store.dropped.explained(text)


def work_through(store: Store, *, only_failed: bool) -> None:
    """What a run does with the store, if each server's answer is fine."""
    started = store.now()
    refs = list(store.chunks.pending(run_started=started, only_failed=only_failed))
    for number, sequence in enumerate(group(refs)):
        token = f"{only_failed} {number}"
        assert store.claims.acquire(sequence, token, "w")
        loaded = store.chunks.load(sequence, run_started=started, only_failed=only_failed)
        for one in loaded.chunks:
            assert one.end > one.start - timedelta(seconds=1)
            problem = sequence.problem or one.problem
            if problem is not None:
                record(store, one.id, token, str(problem.message))
            else:
                assert store.transcripts.save(transcript(alone(sequence, one.id)))
                store.chunks.mark([one.id], is_backed=True)
            if one.index == 1 or problem is not None:
                store.chunks.has_transcribed_twin(sequence.original_id, one)
                store.transcripts.of_chunk(sequence.original_id, one.id)
        store.claims.release(token)


def alone(sequence: ChunkSequence, chunk_id: Any) -> ChunkSequence:
    [ref] = [r for r in sequence.chunks if identity(r.id) == identity(chunk_id)]
    return ChunkSequence((ref,))


def record(store: Store, chunk_id: Any, token: str, message: str) -> None:
    failure = Failure(FailureKind.INVALID_CHUNK, message)
    store.failures.record(
        [chunk_id], failure, attempt=token, audio_at_fault=True, due_in=60.0, max_failures=3
    )


# -- identities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, Int64(1)),
        (1, 1.0),
        (0.0, -0.0),
        (1, Decimal128("1.0")),
        (float("nan"), float("nan")),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_what_mongodb_takes_for_equal_has_one_identity(one: Any, other: Any) -> None:
    assert identity(one) == identity(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, "1"),
        (b"x", "x"),
        (b"x", Binary(b"x", 128)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (0.1, Decimal128("0.1")),
        (None, ""),
    ],
)
def test_what_differs_for_mongodb_has_two(world: World, one: Any, other: Any) -> None:
    assert identity(one) != identity(other)
    world.db["ids"].insert_many([{"_id": one}, {"_id": other}])


def test_whole_numbers_of_any_type_make_one_recording(world: World, store: Store) -> None:
    for index in range(12):
        number = [7, Int64(7), 7.0, Decimal128("7")][index % 4]
        world.record([index], original_id=number)
    [sequence] = plan(store)
    assert len(sequence) == 12
    assert store.transcripts.save(transcript(sequence, 6))
    loaded = store.chunks.load(sequence, run_started=store.now())
    assert len(loaded.owned) == 6


@pytest.mark.parametrize("index", [-(2**63), 2**63 - 1, 1e300, 2**53, -1e18])
def test_an_index_beyond_all_bounds_is_a_problem_of_the_chunk(
    world: World, store: Store, index: Any
) -> None:
    world.record([0, 1, 2])
    world.chunks.update_one({"index": 1}, {"$set": {"index": index}})
    found = [ref for ref in store.chunks.pending(run_started=store.now()) if ref.problem]
    assert [str(ref.problem.message) for ref in found if ref.problem] == [
        "chunk index is beyond 9,007,199,254,740,991"
    ]


@pytest.mark.parametrize(
    "start", [datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)]
)
def test_a_start_at_the_end_of_the_calendar_is_a_problem_of_the_chunk(
    world: World, store: Store, start: datetime
) -> None:
    world.record([0])
    world.chunks.update_one({}, {"$set": {"start": start}})
    [ref] = store.chunks.pending(run_started=store.now())
    assert ref.problem is not None
    assert ref.start is None
    assert START > LONG_AGO

"""Whole runs over chunks that nobody should have stored."""

from datetime import timedelta

import pytest

from tests.soak.conftest import Size
from tests.store.test_odd_chunks import FIELDS, insert_odd
from tests.support.whisper import FakeWhisper, transcription
from tests.support.world import START, World, chunk


@pytest.mark.timeout(180)
def test_a_run_over_odd_chunks_transcribes_their_neighbours(
    world: World, whisper: FakeWhisper, size: Size
) -> None:
    spoken = {"start": 0.0, "end": 2.0, "text": " the rain comes in", "no_speech_prob": 0.01}
    whisper.script = lambda _: transcription([spoken])
    fields = FIELDS[:: size.of(6, 1)]
    good = [chunk["_id"] for field in fields for chunk in insert_odd(world, field)]
    assert world.run("--max-workers", "8", seconds=170).returncode in (0, 1)
    left = list(world.chunks.find({"transcribed_at": None, "_id": {"$in": good}}))
    why = [(chunk["index"], chunk["stt"]["error"]["kind"]) for chunk in left]
    assert set(why) <= {(0, "duplicate_index")}, "some of the odd ones have the index 0"
    assert len(why) <= 2
    assert world.chunks.count_documents({"stt.error.kind": "internal"}) == 0
    assert world.claims.count_documents({}) == 0


@pytest.mark.timeout(180)
def test_thousands_of_chunks_with_one_index_cost_only_themselves(
    world: World, whisper: FakeWhisper, size: Size
) -> None:
    count = size.of(300, 3000)
    world.chunks.insert_many([chunk("same", 5) for _ in range(count)])
    world.record(range(3), original_id="good", start=START - timedelta(hours=1))
    done = world.run("--max-workers", "8", seconds=170)
    assert done.returncode == 1, done.stderr
    left = world.pending()
    assert {chunk["original_id"] for chunk in left} == {"same"}
    assert {chunk["stt"]["error"]["kind"] for chunk in left} == {"duplicate_index"}
    assert len(left) < count, "at least one of them is transcribed"
    assert world.claims.count_documents({}) == 0

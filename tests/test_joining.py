"""Speech that is cut: context is heard but not owned, and the transcripts join without a seam.

The worker is a process, MongoDB is real; a server hears words that lie across every boundary.
"""

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from tests.support.talk import Talk, told
from tests.support.whisper import FakeWhisper, Reply, Request, status
from tests.support.world import START, World


def posted(whisper: FakeWhisper) -> list[tuple[int, int]]:
    """The first and the last chunk of each request."""
    numbers = [[int(a.decode().rpartition("/")[2]) for a in r.audio] for r in whisper.sequences]
    return [(found[0], found[-1]) for found in numbers]


def owned(world: World) -> list[tuple[int, int]]:
    """The first and the last chunk of each transcript, in the order of time."""
    indexes = {c["_id"]: c["index"] for c in world.chunks.find({}, {"index": 1})}
    documents = world.transcriptions.find({}, sort=[("start", 1)])
    return [(indexes[d["chunk_ids"][0]], indexes[d["chunk_ids"][-1]]) for d in documents]


def are_in_order(words: list[str], found: list[str]) -> bool:
    """Whether nothing is lost; something may be there twice."""
    rest = iter(found)
    return all(word in rest for word in words)


def assert_seamless(world: World, talk: Talk) -> None:
    world.assert_all_done()
    assert told(world) == talk.words
    for transcript in world.transcriptions.find():
        moments = [(s["start"], s["end"]) for s in transcript["segments"]]
        assert all(0 <= start <= end <= transcript["duration"] for start, end in moments)
        assert all(a[0] <= b[0] for a, b in pairwise(moments))


@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
def test_long_speech_reads_as_if_it_had_not_been_cut(
    world: World, whisper: FakeWhisper, timed: bool
) -> None:
    world.record(range(70))
    whisper.script = talk = Talk(70, timed=timed)
    done = world.run()
    assert done.returncode == 0, done.stderr
    assert posted(whisper) == [(39, 69), (9, 40), (0, 10)]
    assert owned(world) == [(0, 9), (10, 39), (40, 69)]
    assert_seamless(world, talk)
    assert " | 30 chunks | " in world.log
    assert " | 31 chunks | " not in world.log
    assert world.db["stt_seams"].count_documents({}) == 2


def test_the_earlier_part_may_come_first(world: World, whisper: FakeWhisper) -> None:
    world.record(range(40))
    whisper.script = talk = Talk(40)
    middle = (START + timedelta(seconds=195)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert world.run("--until", middle).returncode == 0
    assert owned(world) == [(0, 19)]
    assert world.run().returncode == 0
    assert posted(whisper) == [(0, 20), (19, 39)]
    assert_seamless(world, talk)


def test_all_parts_at_the_same_time(world: World, whisper: FakeWhisper) -> None:
    """Nobody knows of the others' seams when the answers come."""
    world.record(range(100))
    talk = Talk(100)
    all_here = threading.Barrier(4)

    def together(request: Request) -> Reply:
        if not request.is_probe:
            all_here.wait(30)
        return talk(request)

    whisper.script = together
    assert world.run("--max-workers", "4").returncode == 0
    assert_seamless(world, talk)


def test_speech_that_arrives_after_the_end_was_done_is_joined_to_it(
    world: World, whisper: FakeWhisper
) -> None:
    """The last word before was half a word, and stays; no other is there twice, or lost."""
    recording = world.record(range(8))
    whisper.script = talk = Talk(20)
    assert world.run().returncode == 0
    world.record(range(8, 20), original_id=recording)
    assert world.run().returncode == 0
    assert posted(whisper) == [(0, 7), (7, 19)]
    world.assert_all_done()
    found = told(world)
    assert len(found) == len(talk.words)
    [(half, whole)] = [pair for pair in zip(found, talk.words, strict=True) if len(set(pair)) > 1]
    assert whole.startswith(half)


def test_speech_that_arrives_while_the_end_is_being_posted_is_joined_to_it(
    world: World, whisper: FakeWhisper
) -> None:
    """Whoever did not hear the neighbour gives nothing up: at most one word is there by half."""
    now = datetime.now(UTC)
    talk = Talk(12)
    is_done = threading.Event()

    def script(request: Request) -> Reply:
        if len(request.audio) == 6:
            is_done.wait(30)
        return talk(request)

    whisper.script = script
    recording = world.record(range(6), ingested_at=now)
    quick = {"STT_LEASE": "3"}  # for this long the late run waits for the claim of the early one
    early = world.start(env=quick)
    whisper.wait_for(lambda: len(whisper.sequences) == 1)
    world.record(range(6, 12), original_id=recording, ingested_at=now)
    late = world.start("--limit", "1", env=quick)
    late.communicate(timeout=30)
    is_done.set()
    early.communicate(timeout=30)
    assert posted(whisper) == [(0, 5), (5, 11)]
    world.assert_all_done()
    found = told(world)
    assert are_in_order(talk.words, found)
    assert len(found) <= len(talk.words) + 1


@pytest.mark.parametrize("timed", [False, True], ids=["segments", "words"])
@pytest.mark.parametrize("jump", [-35, 40])
def test_a_clock_that_jumps_costs_no_word(
    world: World, whisper: FakeWhisper, jump: int, timed: bool
) -> None:
    """Set back, it makes many short sequences of chunks that lie between each other in time."""
    world.record(range(20))
    for late in world.chunks.find({"index": {"$gte": 12}}):
        start = late["start"] + timedelta(seconds=jump)
        world.chunks.update_one({"_id": late["_id"]}, {"$set": {"start": start}})
    whisper.script = talk = Talk(20, timed=timed)
    assert world.run().returncode == 0
    world.assert_all_done()
    index = {c["_id"]: c["index"] for c in world.chunks.find({}, {"index": 1})}
    parts = sorted(world.transcriptions.find(), key=lambda part: index[part["chunk_ids"][0]])
    texts = [segment["text"] for part in parts for segment in part["segments"]]
    found = " ".join(texts).split()
    assert are_in_order(talk.words, found)
    in_doubt = 0 if timed else 1  # a word whose time is a guess may be there twice
    assert len(found) <= len(talk.words) + in_doubt
    assert all(part["duration"] > 0 for part in parts)


def test_context_that_the_server_rejects_is_left_out_and_nobody_is_blamed_for_it(
    world: World, whisper: FakeWhisper
) -> None:
    """A server that takes no more than 30 files."""
    world.record(range(45))
    talk = Talk(45)
    whisper.script = lambda r: status(413) if len(r.files) > 30 else talk(r)
    assert world.run().returncode == 0
    world.assert_all_done()
    assert owned(world) == [(0, 14), (15, 44)]
    assert len(told(world)) == pytest.approx(len(talk.words), abs=1)


def test_a_neighbour_that_is_no_audio_costs_its_neighbours_nothing(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(40))
    talk = Talk(40)
    bad = world.chunks.find_one({"index": 9})
    assert bad is not None

    def script(request: Request) -> Reply:
        return status(400) if bad["data"] in request.audio else talk(request)

    whisper.script = script
    assert world.run().returncode == 1
    [left] = world.pending()
    assert left["index"] == 9
    assert left["stt"]["failures"] == 1
    assert owned(world) == [(0, 8), (10, 39)]
    asked = len(whisper.sequences)
    whisper.script = talk
    assert world.run("--retry-errors").returncode == 0
    assert len(whisper.sequences) == asked + 1
    assert posted(whisper)[-1] == (8, 10), "with both neighbours, for they are done and sound"
    world.assert_all_done()
    found, truth = told(world), talk.words
    assert abs(len(found) - len(truth)) <= 2, "at most the halves of two words"


def test_a_server_in_trouble_over_context_gets_the_chunks_without_it_in_the_end(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(40))
    talk = Talk(40)
    bad = world.chunks.find_one({"index": 9})
    assert bad is not None
    whisper.script = lambda r: Reply(raw=b"") if bad["data"] in r.audio else talk(r)
    for _ in range(3):
        world.run("--retries", "0", "--server-wait", "2")
    assert (10, 39) in owned(world)


def test_pauses_and_the_ends_of_a_recording_are_no_cuts(world: World, whisper: FakeWhisper) -> None:
    world.record(range(12), silent=[5])
    whisper.script = Talk(12)
    assert world.run().returncode == 0
    assert posted(whisper) == [(6, 11), (0, 4)]
    assert world.db["stt_seams"].count_documents({}) == 0

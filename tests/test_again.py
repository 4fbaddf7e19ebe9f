"""`--retranscribe`: the old text stays until the new one is there, and is kept as history."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from stt_lib import __version__
from stt_lib.config import parsers
from stt_lib.domain.models import Origin
from stt_lib.pipeline.retranscription import meets
from tests.support.again import NEW, OLD, assert_all_new, heard_new, history, texts, transcribed
from tests.support.crew import Crew, eventually
from tests.support.talk import Talk, told
from tests.support.whisper import FakeWhisper, Reply, Request, status, transcription
from tests.support.world import START, World

BETTER = ("--retranscribe", "model!=large-v3", "--model", "large-v3")


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew() as started:
        yield started


@pytest.fixture(autouse=True)
def _answers(whisper: FakeWhisper) -> None:
    whisper.script = heard_new


# -- what it does -----------------------------------------------------------------------------


def test_a_transcript_is_replaced_and_its_old_text_is_kept(
    world: World, whisper: FakeWhisper
) -> None:
    [old_id] = transcribed(world)
    [old] = world.transcriptions.find()
    done = world.run(*BETTER)
    assert done.returncode == 0, done.stderr
    assert "Total transcripts to replace: 1" in done.stderr
    assert "Finished: 1 sequence " in done.stderr
    [new] = world.transcriptions.find()
    assert new["_id"] == old_id
    assert new["chunk_ids"] == old["chunk_ids"]
    assert (new["start"], new["end"]) == (old["start"], old["end"])
    assert (new["model"], new["server"]) == ("large-v3", whisper.url)
    assert (new["version"], new["revision"]) == (__version__, 2)
    [kept] = history(world)
    assert kept.pop("replaced_at") >= new["created_at"] - timedelta(minutes=1)
    assert kept == {**old, "_id": {"transcript": old_id, "revision": 1}}
    assert_all_new(world)
    assert world.run(*BETTER).returncode == 0
    assert len(whisper.sequences) == 1, "nothing is left to do"
    assert "none matches --retranscribe" in world.log


def test_each_revision_is_kept(world: World) -> None:
    [transcript_id] = transcribed(world)
    for _ in range(2):
        assert world.run("--retranscribe", "all").returncode == 0
    assert [h["_id"] for h in history(world)] == [
        {"transcript": transcript_id, "revision": 1},
        {"transcript": transcript_id, "revision": 2},
    ]
    assert [document["revision"] for document in world.transcriptions.find()] == [3]


def test_the_newest_come_first_and_only_those_that_are_asked_for(
    world: World, whisper: FakeWhisper
) -> None:
    transcribed(world, 6)
    done = world.run("--retranscribe", "all", "--since", "2026-03-01T09:30Z", "--limit", "3")
    assert done.returncode == 0, done.stderr
    assert [int(r.audio[0].split(b"/")[0]) for r in whisper.sequences] == [5, 4, 3]
    assert texts(world) == [OLD] * 3 + [NEW] * 3
    assert world.run("--retranscribe", "all", "--recording", "0").returncode == 0
    assert texts(world) == [NEW] + [OLD] * 2 + [NEW] * 3


def test_speech_that_was_cut_is_joined_again(world: World, whisper: FakeWhisper) -> None:
    """Each word once, though the answers are others and only some of the parts are done again."""
    talk = Talk(70)
    whisper.script = talk
    world.record(range(70))
    assert world.run().returncode == 0
    assert told(world) == talk.words
    assert world.transcriptions.count_documents({}) == 3
    for more in (["--until", "2026-03-01T08:07Z"], []):
        assert world.run("--retranscribe", "all", *more).returncode == 0
        assert told(world) == talk.words
    assert len(history(world)) > 3


# -- what is left as it is --------------------------------------------------------------------


def test_what_cannot_be_done_again_is_left_as_it_is_and_counted(
    world: World, whisper: FakeWhisper
) -> None:
    transcribed(world, 4)
    world.chunks.delete_one({"original_id": 0, "index": 2})
    world.chunks.update_one({"original_id": 1, "index": 2}, {"$unset": {"data": ""}})
    world.transcriptions.update_one({"original": 2}, {"$unset": {"chunk_ids": ""}})
    done = world.run(*BETTER)
    assert done.returncode == 0, done.stderr
    assert texts(world) == [OLD, OLD, OLD, NEW]
    assert "Left as they are: 1 transcript whose audio is gone" in done.stderr
    assert "Left as they are: 1 transcript whose audio cannot be used" in done.stderr
    assert "Left as they are: 1 transcript without a list of their chunks" in done.stderr
    assert world.transcriptions.count_documents({"stt": {"$exists": True}}) == 0
    assert len(whisper.sequences) == 1


def test_text_is_not_replaced_by_the_verdict_that_there_is_none(
    world: World, whisper: FakeWhisper
) -> None:
    transcribed(world)
    whisper.script = lambda _: transcription([], model="large-v3")
    done = world.run(*BETTER)
    assert done.returncode == 0
    assert "transcribed=0 empty=1 errors=0" in done.stderr
    assert texts(world) == [OLD]
    assert history(world) == []
    asked = len(whisper.sequences)
    assert "no speech before" in world.run(*BETTER).stderr
    assert len(whisper.sequences) == asked, "the same model need not be asked again"
    whisper.script = lambda _: transcription(
        [{"start": 0, "end": 5, "text": NEW}], model="large-v2"
    )
    assert world.run("--retranscribe", "all", "--model", "large-v2").returncode == 0
    assert_all_new(world)


def test_what_fails_is_left_as_it_is_and_the_others_are_done(
    world: World, whisper: FakeWhisper
) -> None:
    transcribed(world, 3)

    def reject(request: Request) -> Reply:
        return status(400) if request.audio[0].startswith(b"1/") else heard_new(request)

    whisper.script = reject
    done = world.run(*BETTER)
    assert done.returncode == 1
    assert texts(world) == [NEW, OLD, NEW]
    assert "transcribed=2 empty=0 errors=1" in done.stderr
    assert len(whisper.sequences) == 3, "half a text is no better than the old one"
    assert world.transcriptions.count_documents({"stt": {"$exists": True}}) == 0
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0


def test_without_a_server_nothing_is_touched(world: World) -> None:
    transcribed(world, 3)
    world.server_url = "http://127.0.0.1:9"
    done = world.run(*BETTER, "--server-wait", "1")
    assert done.returncode == 3
    assert "the other transcripts are unchanged" in done.stderr
    assert texts(world) == [OLD] * 3
    assert world.transcriptions.count_documents({"stt": {"$exists": True}}) == 0


def test_a_server_that_does_not_tell_its_model_gets_a_hint(
    world: World, whisper: FakeWhisper
) -> None:
    transcribed(world, 2)
    whisper.script = lambda _: transcription([{"start": 0, "end": 5, "text": NEW}])
    done = world.run("--retranscribe", "model!=large-v3")
    assert done.returncode == 0
    assert done.stderr.count("still match --retranscribe") == 1
    assert "still match" not in world.run(*BETTER).stderr


# -- at the same time -------------------------------------------------------------------------


@contextmanager
def a_reader(world: World, ids: list[Any]) -> Iterator[list[str]]:
    """Looks at the transcripts all the time; yields what it sees that it should not."""
    wrong: list[str] = []
    is_over = threading.Event()

    def read() -> None:
        owned = world.transcriptions.distinct("chunk_ids")
        while not is_over.is_set():
            seen = list(world.transcriptions.find({"chunk_ids": {"$in": owned}}))
            if [d["_id"] for d in sorted(seen, key=lambda d: d["start"])] != ids:
                wrong.append(f"{len(seen)} transcripts")
            wrong.extend(str(d) for d in seen if texts_of(d) not in ([OLD], [NEW]))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield wrong
    finally:
        is_over.set()
        thread.join()


def texts_of(document: dict[str, Any]) -> list[str]:
    return [segment["text"] for segment in document["segments"]]


def test_readers_see_the_old_text_or_the_new_never_two_or_none(
    world: World, whisper: FakeWhisper
) -> None:
    ids = transcribed(world, 60, chunks=2)
    with a_reader(world, ids) as wrong:
        assert world.run(*BETTER, "--max-workers", "4").returncode == 0
    assert wrong == []
    assert_all_new(world)


def test_two_runs_at_once_and_a_plain_one_do_everything_once(
    world: World, whisper: FakeWhisper, crew: Crew
) -> None:
    transcribed(world, 30, chunks=2)
    world.record(range(3), original_id="pending")
    hands = [crew.start(world, *BETTER, "--max-workers", "2") for _ in range(2)]
    hands.append(crew.start(world, "--model", "large-v3"))
    for hand in hands:
        assert hand.end() == 0, hand.console
    world.transcriptions.delete_one({"original": "pending"})
    world.chunks.delete_many({"original_id": "pending"})
    assert_all_new(world)
    assert len(whisper.sequences) == 31


def test_a_claim_that_was_lost_while_posting_changes_nothing(
    world: World, whisper: FakeWhisper, crew: Crew
) -> None:
    transcribed(world)
    is_free = threading.Event()

    def hold_the_first(request: Request) -> Reply:
        if len(whisper.requests) == 1:
            assert is_free.wait(30)
        return transcription([{"start": 0, "end": 5, "text": NEW}], model="large-v3")

    whisper.script = hold_the_first
    late = crew.start(world, *BETTER, "--lease", "3")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    late.freeze()
    eventually(lambda: late.is_frozen, 10, "the worker is frozen")
    world.claims.update_many({}, {"$set": {"until": START}})
    assert world.run(*BETTER).returncode == 0
    [made] = world.transcriptions.find()
    late.thaw()
    is_free.set()
    assert late.end() == 0, late.console
    assert "result dropped" in late.log
    assert list(world.transcriptions.find()) == [made]
    assert_all_new(world)


def test_a_stop_gives_the_claims_back(world: World, whisper: FakeWhisper, crew: Crew) -> None:
    transcribed(world, 3)

    def hold(_: Request) -> Reply:
        whisper.released.wait(30)
        return Reply(raw=b"")

    whisper.script = hold
    hand = crew.start(world, *BETTER, "--grace", "0")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    hand._process.send_signal(signal.SIGTERM)
    assert hand.end() == 143, hand.console
    assert texts(world) == [OLD] * 3
    assert world.claims.count_documents({}) == 0


# -- conditions -------------------------------------------------------------------------------

MADE = Origin("Systran/faster-whisper-large-v3", "http://gpu:8000", "openai", "en", "0.1.0")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("model=large-v3", True),
        ("model != large-v3", False),
        ("model!=large-v2", True),
        ("server=openai+http://gpu:8000/", True),
        ("server=http://cpu:8000", False),
        ("protocol=openai", True),
        ("protocol!=openai", False),
        ("Language=English", True),
        ("language=de", False),
        ("version!=0.2.0", True),
    ],
)
def test_conditions_mean_what_they_say(condition: str, expected: bool) -> None:
    conditions = parsers.conditions(condition)
    assert meets(MADE, conditions) == expected
    assert meets(Origin(), conditions) == ("!=" in condition), "unknown is another"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=x"], "--retranscribe knows no 'modle': use one of model, server, protocol"),
        (["model"], "--retranscribe is neither all nor a condition such as model!=large-v3"),
        (["model="], "--retranscribe is neither all nor a condition such as model!=large-v3"),
        (["since=7d"], "--retranscribe takes no since: use --since as well"),
        ([""], "--retranscribe must not be empty"),
        (["all", "--retry-errors"], "--retranscribe and --retry-errors cannot be combined"),
        (["all", "--watch"], "--retranscribe processes what exists now: use it without --watch"),
    ],
)
def test_a_condition_that_is_none_is_told_in_one_line(
    world: World, arguments: list[str], message: str
) -> None:
    done = world.run("--retranscribe", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1

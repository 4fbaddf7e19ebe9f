"""`show`: what the filter dropped is kept, explained and restored."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from stt_lib.cli import exit_codes, main
from stt_lib.errors import InputError
from stt_lib.store import Store
from tests.support.whisper import FakeWhisper, Reply, Request, Script, transcription
from tests.support.world import START, World

SENTENCE = " Here is the change for the two tickets."


def says(*texts: str, **scores: float) -> Script:
    """A server that hears these, two seconds each, whatever it is sent."""

    def script(_: Request) -> Reply:
        return transcription(
            [
                {"start": 2.0 * i, "end": 2.0 * i + 2, "text": text, **scores}
                for i, text in enumerate(texts)
            ]
        )

    return script


@pytest.fixture
def mixed(world: World, whisper: FakeWhisper) -> World:
    """One transcript from which two segments were dropped."""
    whisper.script = says(SENTENCE, " Thanks for watching!", SENTENCE, " [music]")
    world.record(range(2))
    assert world.run().returncode == exit_codes.OK
    return world


@pytest.fixture
def emptied(world: World, whisper: FakeWhisper) -> World:
    """Three chunks of which everything was dropped."""
    whisper.script = says(" Thank you.", " you", no_speech_prob=0.8)
    world.record(range(3), vad={"ran_at": START, "prob": 0.55, "has_speech": True})
    assert world.run().returncode == exit_codes.OK
    return world


def only(world: World) -> dict[str, Any]:
    (document,) = world.transcriptions.find()
    return document


def texts(document: dict[str, Any]) -> list[str]:
    return [segment["text"] for segment in document["segments"]]


class Show:
    """The command, in this process: a new one for each call would take most of the time."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, code: int = exit_codes.OK) -> str:
        """What it says; `code` is how it is expected to end."""
        assert main(["show", *map(str, arguments)]) == code
        said = self._capsys.readouterr()
        return said.err if code else said.out

    def heard(self, id_: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self(id_, "--json"))["transcripts"]
        return found


@pytest.fixture
def show(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    monkeypatch.setenv("MONGODB_URI", world.uri)
    monkeypatch.setenv("MONGODB_DATABASE", world.database)
    return Show(capsys)


def test_what_is_dropped_stays_with_the_transcript_and_says_why(mixed: World) -> None:
    document = only(mixed)
    assert texts(document) == [SENTENCE, SENTENCE]
    phrase, tag = document["dropped_segments"]
    assert (phrase["start"], phrase["end"], phrase["text"]) == (2.0, 4.0, " Thanks for watching!")
    assert phrase["reasons"][0] == "known_phrase"
    assert tag["reasons"][0] == "sound_tag"
    assert phrase["score"] >= 3
    assert mixed.chunks.count_documents({"stt": {"$exists": True}}) == 0


def test_a_transcript_from_which_nothing_was_dropped_has_no_such_field(world: World) -> None:
    world.record(range(1))
    world.run()
    assert "dropped_segments" not in only(world)


def test_what_is_dropped_from_an_empty_sequence_is_kept_apart(emptied: World) -> None:
    assert emptied.transcriptions.count_documents({}) == 0
    assert emptied.pending() == []
    chunks = list(emptied.chunks.find({}, sort=[("index", 1)]))
    [kept] = emptied.db["stt_dropped"].find()
    assert kept["_id"] == chunks[0]["_id"]
    assert kept["chunk_ids"] == [chunk["_id"] for chunk in chunks]
    assert [s["text"] for s in kept["dropped_segments"]] == [" Thank you.", " you"]
    assert not any("stt" in chunk for chunk in chunks)


def test_nothing_heard_at_all_leaves_nothing(
    world: World, whisper: FakeWhisper, show: Show
) -> None:
    whisper.script = says()
    recording = world.record(range(2))
    world.run()
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0
    assert "nothing is known about" in show(recording, code=exit_codes.FAILURES)


def test_explain_tells_the_evidence_and_the_verdict(mixed: World, show: Show) -> None:
    told = show(only(mixed)["_id"])
    assert "kept" in told
    assert "DROPPED" in told
    assert "number of words: 1" in told
    assert "the detector's probability of speech: 0.90" in told
    assert "dropped from +3.0" in told
    assert "Thanks for watching!" in told
    assert "watching" not in mixed.log


def test_a_transcript_is_found_by_any_of_its_ids(mixed: World, show: Show) -> None:
    document = only(mixed)
    by_id = show.heard(document["_id"])
    assert [s["verdict"] for s in by_id[0]["segments"]] == ["kept", "dropped", "kept", "dropped"]
    assert by_id[0]["segments"][1]["reasons"][0] == "known_phrase"
    evidence = {e["kind"]: e for e in by_id[0]["segments"][0]["evidence"]}
    assert evidence["vad_prob"]["value"] == 0.9
    assert show.heard(document["chunk_ids"][1]) == by_id
    assert show.heard(document["original"]) == by_id


def test_an_empty_sequence_is_found_by_any_of_its_ids(emptied: World, show: Show) -> None:
    first, *others = emptied.chunks.find({}, sort=[("index", 1)])
    by_id = show.heard(first["_id"])
    assert by_id[0]["transcript"] is None
    assert [s["verdict"] for s in by_id[0]["segments"]] == ["dropped", "dropped"]
    assert show.heard(others[1]["_id"]) == by_id
    assert show.heard(first["original_id"]) == by_id


def test_a_recording_is_told_in_the_order_of_time(
    world: World, whisper: FakeWhisper, show: Show
) -> None:
    def script(request: Request) -> Reply:
        is_noise = request.audio[0].endswith(b"/5")
        return says(" Thanks for watching!" if is_noise else SENTENCE)(request)

    whisper.script = script
    recording = world.record([0, 5, 9])
    world.run()
    told = show.heard(recording)
    assert [one["transcript"] is not None for one in told] == [True, False, True]
    assert [one["start"] for one in told] == sorted(one["start"] for one in told)


def test_a_recording_of_an_older_program_is_shown(world: World, show: Show) -> None:
    segment = {"start": 0, "end": 1, "text": SENTENCE}
    spoken = {"segments": [segment], "language": "en", "start": START, "end": START}
    world.transcriptions.insert_one({"_id": "t", "original": "r", **spoken})
    by_id = show.heard("t")
    assert [s["text"] for s in by_id[0]["segments"]] == [SENTENCE]
    assert show.heard("r") == by_id
    assert show("r", "--restore") == "0 segments put back\n"


def test_restoring_puts_segments_back_in_their_place_and_again_changes_nothing(
    mixed: World, show: Show
) -> None:
    id_ = str(only(mixed)["_id"])
    assert "2 segments put back" in show(id_, "--restore")
    document = only(mixed)
    assert texts(document) == [SENTENCE, " Thanks for watching!", SENTENCE, " [music]"]
    assert document["segments"][1]["restored"] is True
    assert "reasons" not in document["segments"][1]
    assert document["dropped_segments"] == []
    assert "0 segments" in show(id_, "--restore")
    assert only(mixed) == document
    assert [s["verdict"] for s in show.heard(id_)[0]["segments"]] == ["kept"] * 4


def test_restoring_an_unknown_id_is_told(world: World, show: Show) -> None:
    assert "nothing is known about typo" in show("typo", "--restore", code=exit_codes.FAILURES)


def test_restoring_an_empty_sequence_makes_its_transcript_once(emptied: World, show: Show) -> None:
    last = emptied.chunks.find_one({"index": 2})
    assert last is not None
    assert "2 segments put back" in show(last["_id"], "--restore")
    document = only(emptied)
    assert texts(document) == [" Thank you.", " you"]
    assert document["start"] == START
    assert document["end"] == START + timedelta(seconds=30)
    emptied.assert_all_done()
    assert "0 segments put back" in show(last["_id"], "--restore")
    assert only(emptied) == document


def test_a_restoring_that_died_half_way_is_finished_by_the_next(
    emptied: World, store: Store
) -> None:
    first = emptied.chunks.find_one({"index": 0})
    assert first is not None
    (found,) = store.dropped.explained(str(first["_id"]))
    [kept] = emptied.db["stt_dropped"].find()
    half_way = {**kept, "_id": kept["transcript"], "segments": [], "note": "died here"}
    emptied.transcriptions.insert_one(half_way)
    assert store.dropped.restore(found) == 2  # as the first try would have said
    assert only(emptied)["note"] == "died here"
    assert emptied.db["stt_dropped"].count_documents({}) == 0


def test_restoring_never_makes_a_second_transcript(emptied: World) -> None:
    first = emptied.chunks.find_one({"index": 0})
    assert first is not None
    other = {"_id": ObjectId(), "original": first["original_id"], "chunk_ids": [first["_id"]]}
    emptied.transcriptions.insert_one(
        {**other, "start": START, "end": START, "segments": [], "language": None}
    )
    with Store(emptied.uri, emptied.database) as store:
        found = store.dropped._unsaved({"_id": first["_id"]})
        with pytest.raises(InputError, match="another transcript owns these chunks"):
            store.dropped.restore(found[0])
    assert only(emptied)["_id"] == other["_id"]


def test_explaining_a_recording_reads_only_its_own(emptied: World, show: Show) -> None:
    others = [{"original": number, "start": START} for number in range(50)]
    emptied.db["stt_dropped"].insert_many(others)
    recording = emptied.chunks.find_one({"index": 1})
    assert recording is not None
    found = emptied.db["stt_dropped"].find({"original": recording["original_id"]})
    assert found.explain()["executionStats"]["totalDocsExamined"] == 1


def test_the_filter_of_a_run_can_be_set(world: World, whisper: FakeWhisper, tmp_path: Path) -> None:
    whisper.script = says(" Thanks for watching!")
    world.record(range(1))
    assert world.run("--filter", "off").returncode == exit_codes.OK
    assert texts(only(world)) == [" Thanks for watching!"]
    phrases = tmp_path / "mine.txt"
    phrases.write_text("Over and out\n")
    whisper.script = says(SENTENCE, " Over and out.")
    world.record(range(1))
    world.run("--filter-phrases", str(phrases))
    assert world.transcriptions.count_documents({"dropped_segments.text": " Over and out."}) == 1


@pytest.mark.parametrize("command", [(), ("show", "x")])
def test_a_bad_file_of_phrases_stops_the_command(world: World, command: tuple[str, ...]) -> None:
    done = world.run(*command, "--filter-phrases", "/nowhere/phrases.txt")
    assert done.returncode == exit_codes.USAGE
    assert "--filter-phrases /nowhere/phrases.txt cannot be used" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_nothing_that_is_shown_can_steer_the_terminal(world: World, show: Show) -> None:
    evil = "\x1b[2J\x9b31m\x07"
    recording = world.record([0], original_id=f"id{evil}")
    entry = {"kind": f"kind{evil}", "message": f"text{evil}", "at": START, "server": f"s{evil}"}
    world.chunks.update_one(
        {"original_id": recording},
        {"$set": {"index": f"1{evil}", "stt": {"error": entry, "history": [entry]}}},
    )
    segment = {"start": 0, "end": 1, "text": f"said{evil}"}
    spoken = {"segments": [segment], "language": f"en{evil}", "start": START, "end": START}
    world.transcriptions.insert_one(
        {"_id": f"t{evil}", "original": "r", "chunk_ids": [f"c{evil}"], **spoken}
    )
    [chunk] = world.chunks.find()
    for id_ in (chunk["_id"], "r"):
        said = show(id_)
        assert not any(character in said for character in evil if not character.isprintable())

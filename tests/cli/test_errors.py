"""`errors`: what failed, and bringing it back."""

import json
import re
import shlex
import subprocess
import sys
import uuid
from datetime import timedelta
from typing import Any

import pytest
from bson import Binary

from stt_lib.cli import main
from stt_lib.errors import FailureKind
from tests.support.whisper import FakeWhisper, echo, status
from tests.support.world import ROOT, START, World


def test_errors_shows_what_failed_and_brings_it_back(world: World, whisper: FakeWhisper) -> None:
    assert "Nothing has failed" in world.run("errors").stdout
    world.record([0], original_id="bad")
    world.record([0], original_id="gone", data=None)
    whisper.script = lambda _: status(400) if _.audio[0].startswith(b"bad") else echo(_)
    assert world.run("--max-failures", "1").returncode == 1

    rows = {
        kind["kind"]: kind for kind in json.loads(world.run("errors", "--json").stdout)["kinds"]
    }
    assert set(rows) == {"invalid_audio", "invalid_chunk"}
    assert rows["invalid_audio"]["chunks"] == rows["invalid_audio"]["parked"] == 1
    assert rows["invalid_audio"]["due"] == 0
    table = world.run("errors").stdout
    assert re.search(r"invalid_audio +1 +0 +0 +1 ", table)

    story = world.run("show", "bad").stdout
    assert "parked since" in story
    assert "invalid_audio: " in story
    [bad] = world.chunks.find({"original_id": "bad"})
    assert world.run("show", str(bad["_id"])).stdout == story
    told = json.loads(world.run("show", "bad", "--json").stdout)
    assert told["chunks"][0]["history"][0]["kind"] == "invalid_audio"

    done = world.run("errors", "retry", "--kind", "invalid_audio")
    assert done.stdout == "1 chunk will be retried by the next run: python stt.py\n"
    whisper.script = echo
    assert world.run().returncode == 0
    assert [d["original"] for d in world.transcriptions.find()] == ["bad"]
    assert "transcribed" in world.run("show", str(bad["_id"])).stdout


def test_errors_retry_can_be_narrowed_to_one_chunk_or_recording(world: World) -> None:
    for name in ("a", "b"):
        world.record(range(2), original_id=name, data=None)
    assert world.run().returncode == 1
    [one] = world.chunks.find({"original_id": "a", "index": 0})
    assert "1 chunk will" in world.run("errors", "retry", str(one["_id"])).stdout
    assert "2 chunks will" in world.run("errors", "retry", "b").stdout
    assert "4 chunks will" in world.run("errors", "retry").stdout


@pytest.mark.parametrize("options", [("--kind", "timeout"), ("--all",), ("--json",)])
def test_options_of_the_list_before_a_command_are_refused_not_ignored(
    world: World, options: tuple[str, ...]
) -> None:
    world.record([0], data=None)
    assert world.run("--max-failures", "1").returncode == 1
    done = world.run("errors", *options, "retry")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{options[0]} must not precede retry" in done.stderr
    [chunk] = world.pending()
    assert "parked_at" in chunk["stt"]


def test_an_unknown_id_or_kind_is_told(world: World) -> None:
    done = world.run("show", "nobody")
    assert done.returncode == 1
    assert "nothing is known about nobody" in done.stderr
    done = world.run("errors", "retry", "nobody")
    assert done.returncode == 1
    assert "no failed chunk has the id nobody" in done.stderr
    done = world.run("errors", "retry", "--kind", "bad luck")
    assert done.returncode == 2
    assert all(str(kind) in done.stderr for kind in FailureKind)


def failed(world: World, *names: str) -> None:
    for name in names:
        world.record(range(2), original_id=name, data=None)
    assert world.run().returncode == 1


def test_ids_and_the_next_commands_are_listed(world: World) -> None:
    failed(world, "a", "b")
    text = world.run("errors").stdout
    for document in world.chunks.find():
        assert re.search(
            rf"^{document['_id']} +{document['original_id']} +invalid_chunk +(due|later)$",
            text,
            re.MULTILINE,
        )
    for command in ("show ID", "errors retry [ID", "errors discard [ID"):
        assert f"python stt.py {command}" in text
    listed = json.loads(world.run("errors", "--json").stdout)["chunks"]
    assert {one["id"] for one in listed} == {str(d["_id"]) for d in world.chunks.find()}
    assert {one["original_id"] for one in listed} == {"a", "b"}


@pytest.mark.parametrize(
    ("chunk", "recording"),
    [
        (Binary(uuid.UUID(int=5).bytes, 4), Binary(uuid.UUID(int=6).bytes, 4)),
        (START, START + timedelta(days=1)),
    ],
    ids=["UUID", "date"],
)
def test_an_id_that_is_shown_is_accepted(
    world: World,
    whisper: FakeWhisper,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chunk: Any,
    recording: Any,
) -> None:
    world.record([0], original_id=recording, data=None, _id=chunk)
    world.record([9], original_id=recording)
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)

    def stt(*arguments: str, code: int = 0) -> str:
        assert main(list(arguments)) == code
        return capsys.readouterr().out

    assert main(["--max-workers", "1"]) == 1
    [step] = re.findall(r"newest transcript: python stt\.py (.+)", capsys.readouterr().err)
    assert "/9" in stt(*shlex.split(step))
    [listed] = json.loads(stt("errors", "--json"))["chunks"]
    [row] = re.findall(r"^(\S.*?)  +(\S.*?)  +invalid_chunk  +\S+$", stt("errors"), re.MULTILINE)
    assert row == (listed["id"], listed["original_id"])
    for name in row:
        [story] = json.loads(stt("show", name, "--json"))["chunks"]
        assert (story["id"], story["original_id"]) == row
        assert "1 chunk will" in stt("errors", "retry", name)
    assert "/9" in stt("export", row[1])
    [heard] = json.loads(stt("show", row[1], "--json"))["transcripts"]
    assert heard["recording"] == row[1]
    assert f"ID: {row[1]}" in world.log


def test_a_long_list_is_cut(world: World) -> None:
    world.record(range(30), original_id="a", data=None)
    assert world.run().returncode == 1
    text = world.run("errors").stdout
    assert len(re.findall(r"invalid_chunk +(due|later)$", text, re.MULTILINE)) == 20
    assert max(map(len, text.splitlines())) <= 80
    assert "and 10 more chunks" in text
    assert len(json.loads(world.run("errors", "--json").stdout)["chunks"]) == 30


def test_listing_reads_the_index_and_no_audio(world: World) -> None:
    failed(world, "a", "b")
    world.db.command("profile", 2)
    world.run("errors", "--all")
    world.db.command("profile", 0)
    query = {"ns": f"{world.database}.audio_chunks", "docsExamined": {"$exists": True}}
    assert [read["docsExamined"] for read in world.db["system.profile"].find(query)] == [0, 0, 0]


def test_discarded_chunks_are_hidden_and_skipped_but_not_marked(
    world: World, whisper: FakeWhisper
) -> None:
    failed(world, "a", "b")
    done = world.run("errors", "discard", "a", "--yes")
    assert done.stdout == "2 chunks discarded.\n"
    chunks = list(world.chunks.find({"original_id": "a"}))
    assert all(chunk["transcribed_at"] is None for chunk in chunks)
    assert all(chunk["stt"]["discarded_at"] for chunk in chunks)
    listed = json.loads(world.run("errors", "--json").stdout)
    assert {one["original_id"] for one in listed["chunks"]} == {"b"}
    assert [kind["chunks"] for kind in listed["kinds"]] == [2]
    everything = json.loads(world.run("errors", "--all", "--json").stdout)["chunks"]
    assert {one["original_id"] for one in everything} == {"a", "b"}
    assert len(re.findall(r" discarded$", world.run("errors", "--all").stdout, re.MULTILINE)) == 2

    world.chunks.update_many({}, {"$set": {"data": b"sound"}})
    assert world.run("--retry-errors").returncode == 0
    assert {d["original"] for d in world.transcriptions.find()} == {"b"}
    assert world.run().returncode == 0
    assert {d["original"] for d in world.transcriptions.find()} == {"b"}

    assert "2 chunks will be retried" in world.run("errors", "retry", "a").stdout
    assert world.run().returncode == 0
    world.assert_all_done()
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0


NO_TIMEOUT = "No failure of kind timeout.\n"


def test_discarded_chunks_are_listed_by_their_kind(world: World) -> None:
    failed(world, "a")
    world.run("errors", "discard", "a", "--yes")
    every = json.loads(world.run("errors", "--all", "--kind", "invalid_chunk", "--json").stdout)
    assert [one["original_id"] for one in every["chunks"]] == ["a", "a"]
    assert world.run("errors", "--all", "--kind", "timeout").stdout == NO_TIMEOUT
    assert world.run("errors", "retry", "--kind", "timeout").stdout == NO_TIMEOUT


def test_retrying_everything_leaves_discarded_chunks_alone(world: World) -> None:
    failed(world, "a", "b")
    world.run("errors", "discard", "a", "--yes")
    assert "2 chunks will be retried" in world.run("errors", "retry").stdout
    assert "2 chunks will be retried" in world.run("errors", "retry", "a").stdout
    assert "4 chunks will be retried" in world.run("errors", "retry").stdout


def test_discarding_asks_first(world: World) -> None:
    failed(world, "a")
    done = world.run("errors", "discard", "a")  # standard input is empty: no answer
    assert done.returncode != 0
    assert "Discard 2 failed chunks?" in done.stderr
    assert world.chunks.count_documents({"stt.discarded_at": {"$exists": True}}) == 0
    done = world.run("errors", "discard", "nobody")
    assert (done.returncode, done.stderr) == (1, "stt: no failed chunk matches\n")
    done = world.run("errors", "discard")
    assert done.returncode == 2
    assert "give the ID of a chunk or a recording, or --kind" in done.stderr


def test_declining_to_discard_is_not_an_interruption(world: World) -> None:
    failed(world, "a")
    done = subprocess.run(
        [sys.executable, f"{ROOT}/stt.py", "errors", "discard", "a"],
        env=world.env,
        input="n\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("stt: nothing was discarded\n")
    assert world.chunks.count_documents({"stt.discarded_at": {"$exists": True}}) == 0


def test_retrying_with_nothing_failed_says_so(world: World) -> None:
    assert world.run("errors", "retry").stdout == "Nothing has failed.\n"

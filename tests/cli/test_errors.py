"""`errors`: what failed, and bringing it back."""

import json
import re

from stt_lib.errors import FailureKind
from tests.support.whisper import FakeWhisper, echo, status
from tests.support.world import World


def test_errors_shows_what_failed_and_brings_it_back(world: World, whisper: FakeWhisper) -> None:
    assert "Nothing has failed" in world.run("errors").stdout
    world.record([0], original_id="bad")
    world.record([0], original_id="gone", data=None)
    whisper.script = lambda _: status(400) if _.audio[0].startswith(b"bad") else echo(_)
    assert world.run("--max-failures", "1").returncode == 1

    rows = {kind["kind"]: kind for kind in json.loads(world.run("errors", "--json").stdout)}
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

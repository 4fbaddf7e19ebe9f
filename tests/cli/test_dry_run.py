"""`--dry-run`: what a run would do, in its order; and nothing is touched."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

from tests.support.whisper import FakeWhisper
from tests.support.world import ROOT, START, World, chunk

HOUR = timedelta(hours=1)


def test_it_shows_what_a_run_would_do_in_order_and_touches_nothing(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(3), original_id="older")
    world.record(range(5), original_id="newer", start=START + HOUR, silent=[1])
    broken = {**chunk("broken", 0, START - HOUR), "index": "first"}
    world.chunks.insert_one(broken)
    before = list(world.chunks.find())
    done = world.run("--dry-run", env={"TZ": "UTC"})
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["#", "start", "chunks", "audio", "done", "in", "recording"]
    told = [(row.split()[1:4], row.split()[-1]) for row in rows[:3]]
    assert told == [
        (["2026-03-01", "09:00:20", "3"], "newer"),
        (["2026-03-01", "09:00:00", "1"], "newer"),
        (["2026-03-01", "08:00:00", "3"], "older"),
    ]
    assert "will fail: chunk index is not a whole number" in rows[3]
    assert rows[-1].startswith("4 sequences, 8 chunks, 1 min of audio; ")
    assert "no estimate: nothing was transcribed recently" in rows[-1]
    assert list(world.chunks.find()) == before
    assert set(world.chunks.index_information()) == {"_id_"}
    assert set(world.db.list_collection_names()) == {"audio_chunks"}
    assert not world.log_file.exists()
    assert not whisper.requests


def test_it_respects_limit_and_filters_and_knows_the_recent_speed(world: World) -> None:
    assert "Nothing to do." in world.run("--dry-run").stdout
    for number in range(4):
        world.record(range(2), original_id=number, start=START + number * HOUR)
    now = datetime.now(UTC)
    world.record(range(30), original_id="done", transcribed_at=now, start=now)
    ids = [chunk["_id"] for chunk in world.chunks.find({"original_id": "done"})]
    saved = {"original": "done", "chunk_ids": ids, "start": now, "segments": []}
    world.transcriptions.insert_one(saved)  # its _id says when
    done = world.run("--dry-run", "--limit", "2", "--until", "2026-03-01T10:30Z")
    assert [row.split()[-1] for row in done.stdout.splitlines()[1:3]] == ["2", "1"]
    assert "2 sequences, 4 chunks, 40 s of audio; done in less than a minute at" in done.stdout
    assert "at the speed of the last hour" in done.stdout


def test_whoever_reads_it_may_stop(world: World) -> None:
    world.chunks.insert_many([chunk(number, 0) for number in range(2000)])
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} {ROOT}/stt.py --dry-run | head -n 3",
        shell=True,
        executable="/bin/bash",
        env=world.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3


def test_it_does_not_go_with_watch(world: World) -> None:
    done = world.run("--dry-run", "--watch")
    assert done.returncode == 2
    assert "use it without --watch" in done.stderr

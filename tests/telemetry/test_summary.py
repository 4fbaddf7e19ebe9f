"""What a run says at its end, and how long it says that it will take."""

import json
import os
import random
import re
import stat
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from stt_lib.telemetry.stats import RECENT, Observations
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import ROOT, World


@pytest.mark.parametrize("seed", range(3))
def test_observations_are_counted_in_buckets_and_the_recent_ones_have_percentiles(
    seed: int,
) -> None:
    rng = random.Random(seed)
    numbers = [rng.lognormvariate(0, 2) for _ in range(3000)]
    seen = Observations()
    for number in numbers:
        seen.add(number)
    recent = numbers[-RECENT:]
    assert seen.percentile(50) == pytest.approx(statistics.median(recent))
    assert seen.percentile(95) == pytest.approx(sorted(recent)[949], rel=0.05)
    for place, bound in enumerate(seen.bounds):
        assert sum(seen.buckets[: place + 1]) == sum(number <= bound for number in numbers)
    assert seen.count == len(numbers)
    assert seen.total == pytest.approx(sum(numbers))


def test_percentiles_of_few_observations() -> None:
    seen = Observations()
    assert seen.percentile(50) is None
    seen.add(2.0)
    assert seen.percentile(95) == 2.0


def sometimes(request: Request) -> Reply:
    return status(400) if request.audio[0].startswith(b"bad") else echo(request)


def test_the_summary_says_what_a_run_came_to(world: World, whisper: FakeWhisper) -> None:
    world.record(range(30), original_id="good")
    world.record([7], original_id="bad")
    whisper.script = sometimes
    file = world.folder / "summary.json"
    done = world.run("--summary", str(file), env={"STT_MAX_FAILURES": "1"})

    document = json.loads(file.read_text())
    assert document["exit_code"] == done.returncode == 1
    assert document["sequences"] == {
        "transcribed": 1,
        "empty": 0,
        "error": 1,
        "skipped": 0,
        "given_back": 0,
    }
    assert document["chunks"] == {"transcribed": 30, "empty": 0, "error": 1}
    assert document["audio_seconds"] == {"transcribed": 300, "empty": 0, "error": 10}
    assert document["realtime_factor"] == pytest.approx(310 / document["seconds"], rel=0.05)
    assert document["errors"] == {"invalid_audio": 1}
    [server] = document["servers"]
    assert server["server"] in whisper.url
    assert (server["answered"], server["errors"]) == (1, {"invalid_audio": server["failed"]})
    assert 0 < server["median_seconds"] <= server["p95_seconds"]
    assert document["left"] == {"pending": 0, "failed": 0, "parked": 1}
    assert document["stopped_by"] is None

    lines = [line.partition(" - INFO - ")[2] for line in world.log.splitlines()]
    told = [line for line in lines if line.startswith("Summary: ")]
    assert re.match(r"Summary: 5 min of audio in \d+\.\ds, \d+\.\d times real time", told[0])
    assert re.match(r"Summary: server \S+ \| 1 answer \| median \d", told[1])
    assert told[2:] == [
        "Summary: errors | invalid_audio=1",
        "Summary: left | 0 pending chunks, 0 of them failed before | 1 parked",
    ]
    assert lines[-1].startswith("Finished: 2 sequences")
    assert lines[-3:-1] == [
        "To read the newest transcript: python stt.py export good",
        "To see what failed and why: python stt.py errors",
    ]


def test_a_run_without_work_says_only_what_is_left(world: World, whisper: FakeWhisper) -> None:
    assert world.run().returncode == 0
    assert world.log.count("Summary: ") == 1
    assert "left | 0 pending chunks" in world.log


def test_there_is_a_summary_of_a_run_that_could_not_begin(world: World) -> None:
    file = world.folder / "summary.json"
    away = {"MONGODB_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"}
    assert world.run("--summary", str(file), env=away).returncode == 3
    document = json.loads(file.read_text())
    assert document["exit_code"] == 3
    assert "MongoDB" in document["stopped_by"]
    assert document["left"] is None


def test_a_summary_that_can_never_be_written_is_told_before_the_work(world: World) -> None:
    world.record(range(1))
    done = world.run("--summary", str(world.folder / "nowhere" / "summary.json"))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"--summary: {world.folder / 'nowhere'} does not exist or is not writable" in line
    assert len(world.pending()) == 1


def test_the_summary_goes_into_a_pipe_and_does_not_replace_it(
    world: World, whisper: FakeWhisper
) -> None:
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert world.run("--summary", str(pipe)).returncode == 0
        assert json.loads(os.read(reader, 65536))["exit_code"] == 0
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("report", ["--summary", "--metrics-file"])
def test_a_pipe_that_nobody_reads_does_not_block_the_run(
    world: World, whisper: FakeWhisper, report: str
) -> None:
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)
    done = world.run(report, str(pipe))
    assert done.returncode == 0
    assert done.stderr.count(f"{pipe} cannot be written") == 1
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_summary_on_standard_output_is_added_to_the_file_behind_it(
    world: World, whisper: FakeWhisper
) -> None:
    file = world.folder / "summaries"
    file.write_text("what was there\n")
    with file.open("a") as stream:
        subprocess.run(
            [sys.executable, f"{ROOT}/stt.py", "--summary", "/dev/stdout"],
            env=world.env,
            stdout=stream,
            check=True,
        )
    before, _, document = file.read_text().partition("\n")
    assert before == "what was there"
    assert json.loads(document)["exit_code"] == 0


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    from stt_lib.files import write_whole

    path = tmp_path / "file"
    write_whole(path, "old")
    with path.open() as reader:
        write_whole(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "nowhere" / "file", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_may_have_the_longest_name_that_there_is(tmp_path: Path) -> None:
    from stt_lib.files import write_whole

    path = tmp_path / f"{'é' * 124}.part"
    assert len(path.name.encode()) > 250
    write_whole(path, "text")
    assert path.read_text() == "text"
    assert list(tmp_path.iterdir()) == [path]

"""Standard streams that are closed, full or limited to few characters; and reports that fail."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.whisper import FakeWhisper
from tests.support.world import ROOT, World


def shell(world: World, command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in which `stt` is the program."""
    return subprocess.run(
        command.replace("stt", f"{sys.executable} {ROOT}/stt.py", 1),
        shell=True,
        executable="/bin/bash",
        env={**world.env, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "1>&- 2>&-", "<&- 1>&- 2>&-"])
def test_a_run_needs_no_standard_streams(world: World, whisper: FakeWhisper, closed: str) -> None:
    world.record(range(2))
    assert shell(world, f"stt {closed}").returncode == 0
    world.assert_all_done()
    assert "Finished: 1 sequence in" in world.log


def test_no_other_file_takes_the_place_of_a_closed_stream(
    world: World, whisper: FakeWhisper
) -> None:
    """Otherwise the log file would be descriptor 2, and messages of libraries end in it."""
    world.record(range(2))
    shell(world, "stt 1>&- 2>&-")
    assert all(" - " in line for line in world.log.splitlines())


@pytest.mark.parametrize("command", ["status", "errors", "--help", "export"])
def test_a_full_disk_is_reported_in_one_line(
    world: World, whisper: FakeWhisper, command: str
) -> None:
    world.record(range(2))
    assert world.run().returncode == 0
    done = shell(world, f"stt {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "stt: standard output cannot be written: No space left on device\n"


def test_a_name_that_is_too_long_is_reported_in_one_line(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2))
    world.run()
    done = world.run("export", "-o", f"{'x' * 300}.txt")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "File name too long" in line


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("command", ["status", "--help", "errors", "doctor"])
def test_characters_that_the_terminal_lacks_are_replaced(
    world: World, whisper: FakeWhisper, encoding: str, command: str
) -> None:
    world.record(range(3), start=datetime.now(UTC) - timedelta(hours=1))
    assert world.run().returncode == 0
    done = subprocess.run(
        [sys.executable, f"{ROOT}/stt.py", command],
        env={**world.env, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding)


def test_the_log_can_be_a_pipe(world: World, whisper: FakeWhisper, tmp_path: Path) -> None:
    world.record(range(2))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE, text=True)
    while not os.listdir(f"/proc/{reader.pid}/fd"):
        pass
    done = world.run("--log-file", str(fifo))
    assert done.returncode == 0
    if "No log file" in done.stderr:  # the reader had not opened it yet
        reader.kill()
    out, _ = reader.communicate(timeout=20)
    assert "No log file" in done.stderr or "Finished: 1 sequence" in out
    assert stat.S_ISFIFO(fifo.stat().st_mode), "it was not rotated away"


def test_a_pipe_that_nobody_reads_does_not_block_the_run(
    world: World, whisper: FakeWhisper, tmp_path: Path
) -> None:
    world.record(range(2))
    os.mkfifo(tmp_path / "fifo")
    done = world.run("--log-file", str(tmp_path / "fifo"))
    assert done.returncode == 0
    assert done.stderr.count("No log file") == 1


def test_a_log_on_a_full_disk_is_reported_once(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2))
    done = world.run("--log-file", "/dev/full")
    assert done.returncode == 0
    assert done.stderr.count("Lines are missing from the log file: /dev/full") == 1
    assert "Finished: 1 sequence" in done.stderr


def test_a_log_whose_links_form_a_loop_is_reported(
    world: World, whisper: FakeWhisper, tmp_path: Path
) -> None:
    world.record(range(2))
    (tmp_path / "a.log").symlink_to(tmp_path / "b.log")
    (tmp_path / "b.log").symlink_to(tmp_path / "a.log")
    done = world.run("--log-file", str(tmp_path / "a.log"))
    assert done.returncode == 0
    assert done.stderr.count("No log file") == 1
    assert "Traceback" not in done.stderr

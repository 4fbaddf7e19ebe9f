"""The README says what is: every command in it runs, every option and kind in it exists."""

import re
import shlex
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stt_lib.config.installation import ROOT
from stt_lib.config.settings import Settings
from stt_lib.errors import FailureKind
from stt_lib.local import samples
from tests.support.whisper import FakeWhisper, echo, status
from tests.support.world import START, World

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
OURS = [command for command in COMMANDS if command.startswith("python stt.py")]


def test_every_command_is_of_a_known_sort() -> None:
    rest = [command for command in COMMANDS if command not in OURS]
    assert sorted(rest) == [
        "export MONGODB_URI=mongodb://localhost:27017",
        "export STT_SERVER_URL=http://localhost:8081",
        "make demo",
        "make test",
        "pip install -r requirements-local.txt",
        "pip install -r requirements.txt",
        "python3 -m venv .venv-mine && . .venv-mine/bin/activate",
        "tail -f logs/stt.log",
    ]


@pytest.mark.parametrize("target", ["demo", "test", "check", "soak"])
def test_make_targets_exist(target: str) -> None:
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_log_is_where_the_readme_looks_for_it() -> None:
    assert Settings().log_file == ROOT / "logs" / "stt.log"
    assert Settings().mongodb_uri == "mongodb://localhost:27017"
    assert Settings().server_url == ("http://localhost:8081",)


def test_the_requirements_that_the_readme_names_pin_every_package() -> None:
    for name in ("requirements.txt", "requirements-local.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            assert not line or line.startswith(("#", "-r ")) or "==" in line, f"{name}: {line}"


ELSEWHERE = ("serve", "--local", "export")


@pytest.mark.parametrize("command", [c for c in OURS if not any(w in c for w in ELSEWHERE)])
def test_the_command_runs(world: World, whisper: FakeWhisper, command: str) -> None:
    world.record([0], original_id="ID")
    whisper.script = lambda r: status(400) if r.audio[0].startswith(b"ID") else echo(r)
    assert world.run().returncode == 1
    whisper.script = echo
    world.record(range(3), original_id="good")
    heard = {"_id": "TRANSCRIPT_ID", "original": "heard", "chunk_ids": ["a chunk"], "segments": []}
    world.transcriptions.insert_one({**heard, "start": START, "end": START})
    free = {"9464": "0"}  # that port may be taken
    done = world.run(*(free.get(part, part) for part in shlex.split(command)[2:]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in OURS if "export" in c])
def test_the_command_writes_what_was_said(
    world: World, whisper: FakeWhisper, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.record(range(3), original_id="ID", start=datetime.now(UTC) - timedelta(days=1))
    assert world.run().returncode == 0
    monkeypatch.chdir(world.folder)  # the files in the commands are in this folder
    done = world.run(*shlex.split(command)[2:])
    assert done.returncode == 0, done.stderr
    name = command.partition("-o ")[2]
    assert "ID/0" in ((world.folder / name).read_text() if name else done.stdout)


@pytest.mark.timeout(180)
def test_the_commands_for_ones_own_recordings_transcribe_them(world: World) -> None:
    """`ingest --local` and a `--local` run, on a real MongoDB and a real model, as written."""
    talk = Path(samples.__file__).parent / "library.opus"
    for command in (c for c in OURS if "--local" in c):
        arguments = [str(talk) if a == "talk.mp3" else a for a in shlex.split(command)[2:]]
        done = world.run(*arguments, seconds=120)
        assert done.returncode == 0, done.stderr
    assert "Finished: 1 sequences" in world.log
    assert "transcribed=1" in world.log


def test_serve_runs_until_it_is_stopped(world: World) -> None:
    [command] = (c for c in OURS if "serve" in c)
    arguments = shlex.split(command)[2:]
    arguments[arguments.index("--port") + 1] = "0"  # 8081 may be taken
    process = world.start(*arguments)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Whisper server ready on http://127.0.0.1:")
        process.terminate()
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGTERM


def test_every_kind_of_failure_is_explained() -> None:
    names = re.findall(r"^\| `([a-z_]+)` \|", README, re.MULTILINE)
    explained = [name for name in names if not name.startswith("stt_")]  # those are metrics
    assert sorted(explained) == sorted(map(str, FailureKind))

"""README and docs describe what exists: every command runs, every link and kind is real."""

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
from stt_lib.local.ingest import SAMPLES
from tests.support.whisper import FakeWhisper, echo, status
from tests.support.world import World

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]


def commands_in(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands_in(page)))
PYTHON = ("python stt.py", ".venv/bin/python stt.py")
OURS = [command for command in COMMANDS if command.startswith(PYTHON)]


def test_every_command_is_of_a_known_sort() -> None:
    rest = [command for command in COMMANDS if command not in OURS]
    assert [command for command in rest if not command.startswith("make ")] == [
        "pip install -r requirements.txt",
        "export MONGODB_URI=mongodb://localhost:27017",
        "export STT_SERVER_URL=http://localhost:8081",
        "tail -f logs/stt.log",
    ]


def test_make_targets_exist() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    targets |= set(re.findall(r"`make ([a-z-]+)`", text))
    assert targets >= {"demo", "test", "check", "soak"}
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    """Among them those where a newcomer is sent to change something."""
    named = re.findall(r"`((?:stt_lib|tests|deploy|docs)/[\w./*-]*)`", page.read_text())
    missing = [path for path in named if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[a-z-]+\.md)\)", README.read_text()))
    assert linked == {f"docs/{page.name}" for page in DOCS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    pattern = r"`((?:stt_lib|deploy|tests|docs)/[\w./-]+)`"
    for path in re.findall(pattern, page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_log_is_where_the_documentation_says() -> None:
    assert Settings().log_file == ROOT / "logs" / "stt.log"
    assert Settings().mongodb_uri == "mongodb://localhost:27017"
    assert Settings().server_url == ("http://localhost:8081",)


def test_the_requirements_pin_every_package() -> None:
    for name in ("requirements.txt", "requirements-local.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            assert not line or line.startswith(("#", "-r ")) or "==" in line, f"{name}: {line}"


EMBEDDED = [c for c in OURS if "--local" in c.split() or c.split()[2] == "transcribe"]
EXPORTS = [c for c in OURS if c.split()[2] == "export" and c not in EMBEDDED]
SERVES = [c for c in OURS if c.split()[2] == "serve"]
OTHERS = [c for c in OURS if c not in {*EMBEDDED, *EXPORTS, *SERVES}]


@pytest.mark.parametrize("command", OTHERS)
def test_the_command_runs(world: World, whisper: FakeWhisper, command: str) -> None:
    world.record([0], original_id="ID")
    whisper.script = lambda r: status(400) if r.audio[0].startswith(b"ID") else echo(r)
    assert world.run().returncode == 1
    whisper.script = echo
    world.record(range(3), original_id="good")
    said = [{"start": 0.0, "end": 9.0, "text": "The roof still leaks when there is rain."}]
    heard = {"_id": "TRANSCRIPT_ID", "original": "heard", "chunk_ids": ["a chunk"]}
    yesterday = datetime.now(UTC) - timedelta(days=1)
    world.transcriptions.insert_one(
        {**heard, "segments": said, "start": yesterday, "end": yesterday}
    )
    # That port may be taken, and that server does not exist.
    free = {"9464": "0", "dns+http://whisper:8081": whisper.url}
    done = world.run(*(free.get(part, part) for part in shlex.split(command)[2:]))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", EXPORTS)
def test_the_command_writes_what_was_said(
    world: World, whisper: FakeWhisper, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.record(range(3), original_id="ID", start=datetime.now(UTC) - timedelta(days=1))
    assert world.run().returncode == 0
    monkeypatch.chdir(world.folder)  # the files in the commands are in this folder
    done = world.run(*shlex.split(command)[2:])
    assert done.returncode == 0, done.stderr
    name = "transcripts/ID.txt" if "--to" in command else command.partition("-o ")[2]
    assert "ID/0" in ((world.folder / name).read_text() if name else done.stdout)


@pytest.mark.timeout(180)
def test_the_commands_for_ones_own_recordings_transcribe_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`transcribe`, `ingest` and `export --local`, on a real MongoDB and a real model."""
    commands = [c for c in commands_in(ROOT / "docs" / "quickstart.md") if c in EMBEDDED]
    assert set(EMBEDDED) == set(commands)
    monkeypatch.chdir(world.folder)
    world.server_url = ""  # the embedded one
    named = {sample.stem: sample for sample in SAMPLES}
    for name, sample in (("talk.mp3", "library"), ("phone.mp3", "phone")):
        Path(name).write_bytes(named[sample].read_bytes())
    for command in commands:
        done = world.run(*shlex.split(command)[2:], seconds=120)
        assert done.returncode == 0, done.stderr
    assert world.log.count("| transcribed=") == 2
    assert "transcribed=0" not in world.log
    for name in ("talk.txt", "everything.txt"):
        assert "library this evening" in Path(name).read_text()
    assert "library this evening" in Path("subtitles/talk.srt").read_text().replace("\n", " ")


def test_serve_runs_until_it_is_stopped(world: World) -> None:
    [command] = SERVES
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
    page = (ROOT / "docs" / "failures.md").read_text()
    assert sorted(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == sorted(FailureKind)

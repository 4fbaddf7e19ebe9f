"""`doctor` finds each fault by its name, on real services, and leaves no trace."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from stt_lib.cli import main
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.local.mongod import Mongod
from stt_lib.reports import doctor
from stt_lib.reports.doctor import Finding, State, examine
from stt_lib.store import Store
from stt_lib.store.diagnostics import Diagnostics
from tests.support.ports import free_port
from tests.support.whisper import FakeWhisper, Reply, Script, echo, status, transcription
from tests.support.world import World


def settings(world: World, **more: Any) -> Settings:
    return load(more, {**world.env, "STT_TIMEOUT_BASE": "0.3", "STT_TIMEOUT_PER_CHUNK": "0.2"})


def examined(world: World, **more: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(settings(world, **more))}


def problems(found: dict[str, Finding]) -> set[str]:
    return {check for check, finding in found.items() if finding.state is State.PROBLEM}


# -- the command ------------------------------------------------------------------------------


def test_all_is_well(world: World, store: Store, whisper: FakeWhisper) -> None:
    world.record(range(3))
    before = world.pending()
    done = world.run("doctor")
    assert done.returncode == 0, done.stdout
    assert done.stdout.rstrip().endswith("Everything works.")
    checks = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("✓")]
    expected = "settings MongoDB rights chunks indexes clock its server log disk"
    assert " ".join(checks) == expected
    assert "transcribed a test clip in 0." in done.stdout
    assert "real time" not in done.stdout, "a clip of a second says nothing about the speed"
    [request] = whisper.requests
    assert request.is_probe
    assert world.pending() == before
    assert world.transcriptions.count_documents({}) == 0
    assert not world.log_file.exists()


def test_an_empty_database_stays_empty(world: World) -> None:
    done = world.run("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["ok"] is True
    notes = {f["check"]: f["text"] for f in report["findings"] if f["state"] == "warning"}
    assert set(notes) == {"chunks", "indexes", "its disk"}
    assert "stt_pending" in notes["indexes"]
    assert world.db.list_collection_names() == []


def test_a_wrong_setting_is_the_first_finding(world: World) -> None:
    done = world.run("doctor", env={"STT_LEASE": "0.1"})
    assert done.returncode == 1
    assert done.stdout.startswith("✗ settings  STT_LEASE must be at least 3")
    assert "1 problem." in done.stdout


def test_the_rest_is_checked_when_one_thing_is_away_and_no_secret_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stt_lib.store.database.CONNECT_SECONDS", 0.3)
    url = world.server_url.replace("http://", "http://ann:s3cret@")
    for name, value in {
        **world.env,
        "MONGODB_URI": f"mongodb://joe:hunter2@127.0.0.1:{free_port()}",
        "STT_SERVER_URL": url,
        "STT_API_KEY": "k3y-k3y",
    }.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    assert "✗ MongoDB" in shown.out
    assert "✓ server" in shown.out
    for planted in ("hunter2", "s3cret", "k3y-k3y"):
        assert planted not in shown.out + shown.err


# -- MongoDB ----------------------------------------------------------------------------------


@pytest.fixture
def guarded(auth_mongod: Mongod, whisper: FakeWhisper, tmp_path: Path) -> Iterator[World]:
    host = f"127.0.0.1:{auth_mongod.port}"
    world = World(f"mongodb://root:r00t-pw@{host}/", tmp_path, whisper.url)
    yield world
    world.close()


@pytest.mark.parametrize(
    ("role", "missing"),
    [
        ("readWrite", ""),
        ("read", "update audio_chunks, insert into transcriptions, update transcriptions"),
        ("read", "update stt_dropped, insert into stt_seams, update stt_seams"),
    ],
)
def test_missing_rights_are_named_and_tried_without_a_trace(
    guarded: World, auth_mongod: Mongod, role: str, missing: str
) -> None:
    guarded.record([0])
    guarded.db.command("createUser", "eve", pwd="pw", roles=[role])
    eve = f"mongodb://eve:pw@127.0.0.1:{auth_mongod.port}/{guarded.database}"
    found = examined(guarded, mongodb_uri=eve)
    assert problems(found) == ({"rights"} if missing else set())
    if missing:
        assert missing in found["rights"].text
        assert "readWrite" in found["rights"].advice
    assert guarded.db.list_collection_names() == ["audio_chunks"]


def test_a_wrong_password_is_told(guarded: World, auth_mongod: Mongod) -> None:
    wrong = f"mongodb://root:wrong@127.0.0.1:{auth_mongod.port}/"
    found = examined(guarded, mongodb_uri=wrong)
    assert problems(found) == {"MongoDB"}
    assert "check the user and password" in found["MongoDB"].text


def test_clocks_versions_and_disks_are_judged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "now", lambda _: datetime.now(UTC) - timedelta(minutes=2))
    monkeypatch.setattr(Diagnostics, "version", (4, 2, 24))
    full = SimpleNamespace(total=10**10, used=10**10, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    found = examined(world)
    assert found["clock"].state is State.WARNING
    assert "120." in found["clock"].text
    assert problems(found) == {"MongoDB", "disk"}
    assert "4.4 or newer" in found["MongoDB"].advice


# -- STT servers ------------------------------------------------------------------------------


def hang(fake: FakeWhisper) -> Script:
    """As whisper.cpp's server with a dead-lock: it accepts, and answers nothing."""

    def wait(_: Any) -> Reply:
        fake.released.wait(20)
        return echo(_)

    return wait


@pytest.mark.parametrize(
    ("script", "state", "text"),
    [
        (lambda _: status(401), State.PROBLEM, "set STT_API_KEY"),
        (lambda _: status(404), State.PROBLEM, "is STT_SERVER_URL the address"),
        (lambda _: status(500), State.PROBLEM, "500"),
        (lambda _: Reply(body=b"<html>welcome"), State.PROBLEM, ""),
        (lambda _: Reply(body=b'{"text": "hello"}'), State.PROBLEM, "openai"),
        (lambda _: Reply(raw=b""), State.PROBLEM, "broke"),
        (lambda _: Reply(drips="body"), State.PROBLEM, "no complete answer"),
        (lambda _: status(503, Retry_After="1"), State.WARNING, "503"),
        (lambda _: transcription([]), State.WARNING, "heard no speech"),
        (echo, State.OK, "transcribed a test clip in"),
    ],
)
def test_a_server_is_judged_by_a_real_transcription(
    world: World, whisper: FakeWhisper, script: Script, state: State, text: str
) -> None:
    whisper.script = script
    found = examined(world)["server"]
    assert found.state is state, found
    assert text in found.text
    assert state is not State.OK or not found.advice


def test_a_server_that_hangs_is_found_in_its_time(world: World, whisper: FakeWhisper) -> None:
    whisper.script = hang(whisper)
    found = examined(world)["server"]
    assert found.state is State.PROBLEM
    assert "no complete answer" in found.text
    assert "try again" in found.advice


def test_each_server_is_checked_with_its_own_protocol(world: World, whisper: FakeWhisper) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    urls = f"{away},{whisper.url},nothing+{whisper.url}"
    with pytest.raises(Exception, match="no protocol 'nothing'"):
        settings(world, server_url=urls)
    servers = [
        finding
        for finding in examine(settings(world, server_url=f"{away},{whisper.url}"))
        if finding.check == "server"
    ]
    assert [finding.state for finding in servers] == [State.PROBLEM, State.OK]
    assert "refused the connection" in servers[0].text


def test_a_server_is_checked_with_the_options_of_a_run(world: World, whisper: FakeWhisper) -> None:
    options = ["--model", "small", "--language", "de", "--prompt", "Ahoy, ünder sail"]
    done = world.run("doctor", "--server", f"openai+{whisper.url}", *options)
    assert done.returncode == 0, done.stdout
    [request] = whisper.requests
    assert request.is_probe
    sent = {name: request.fields[name] for name in ("model", "language", "prompt")}
    assert sent == {"model": "small", "language": "de", "prompt": "Ahoy, ünder sail"}


# -- places -----------------------------------------------------------------------------------


def test_a_log_that_is_a_device_or_a_pipe_needs_no_folder_and_no_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in the worker's image, whose user may not write in /dev, a small tmpfs."""
    monkeypatch.setattr(doctor, "_database", lambda _: iter(()))
    monkeypatch.setattr(doctor, "_servers", lambda _: iter(()))
    monkeypatch.setattr(tempfile, "TemporaryFile", Mock(side_effect=PermissionError(13, "denied")))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=65_536, free=65_536))
    [found] = examine(Settings(log_file=Path("/dev/null")))
    assert (found.check, found.state) == ("log", State.OK)

    os.mkfifo(tmp_path / "unread")
    [found] = examine(Settings(log_file=tmp_path / "unread"))
    assert (found.check, found.state) == ("log", State.PROBLEM)


def test_a_log_that_cannot_be_written_is_told(world: World) -> None:
    blocker = world.folder / "blocker"
    blocker.write_text("a file where the folder should be")
    found = examined(world, log_file=blocker / "logs" / "stt.log")
    assert problems(found) == {"log"}
    assert "--log-file" in found["log"].advice
    assert examined(world, log_file=world.folder / "new" / "logs" / "stt.log")["log"].state is (
        State.OK
    )
    assert not (world.folder / "new").exists()

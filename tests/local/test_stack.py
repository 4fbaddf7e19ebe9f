import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pymongo
import pytest
import requests

from stt_lib.cli.session import reachable
from stt_lib.config.loader import load
from stt_lib.errors import LocalStackError, Stopped
from stt_lib.local.stack import MARK, Stack, _Servers, running_stack
from tests.local.running import ROOT
from tests.support.waiting import eventually

ENV = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}

COMMAND = """
import os, sys
from pathlib import Path
from stt_lib.local.stack import running_stack
env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
with running_stack(Path(sys.argv[1]), env=env, whisper="whisper" in sys.argv) as stack:
    print(stack.mongodb_uri, stack.server_url, flush=True)
    sys.stdin.readline()
"""


class User:
    """A command in a process of its own that uses the stack until told to go."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(folder), *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def stack(self) -> Stack:
        """Return what it got, once it has it."""
        uri, url = self._pipe(self._process.stdout).readline().split()
        return Stack(uri, None if url == "None" else url)

    def leave(self) -> None:
        self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0

    def die(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose servers are gone after the test, even when it failed."""
    made = tmp_path / "local data"
    yield made
    if servers(made):
        with running_stack(made, env=ENV, whisper=False):
            pass


def works(stack: Stack) -> bool:
    with pymongo.MongoClient[dict[str, int]](stack.mongodb_uri) as client:
        database = bool(client.admin.command("ping")["ok"])
    url = stack.server_url
    return database and (url is None or requests.get(f"{url}/health", timeout=5).ok)


def servers(folder: Path) -> dict[str, int]:
    """The running servers of a folder and their process ids."""
    marked = {}
    for process in psutil.process_iter(["environ"]):
        place, _, name = (process.info["environ"] or {}).get(MARK, "").rpartition("/")
        if place == str(folder.resolve()):
            marked[name] = process.pid
    return marked


def test_starts_both_and_stops_both(folder: Path) -> None:
    with running_stack(folder, env=ENV) as stack:
        assert works(stack)
        running = servers(folder)
        assert set(running) == {"mongod", "whisper-tiny.en"}
        # Out of reach of a Ctrl-C in the terminal.
        assert all(os.getsid(pid) == pid for pid in running.values())
    assert servers(folder) == {}
    for pid in running.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_data_stays(folder: Path) -> None:
    with running_stack(folder, env=ENV, whisper=False) as stack:
        assert stack.server_url is None
        assert set(servers(folder)) == {"mongod"}
        with pymongo.MongoClient[dict[str, int]](stack.mongodb_uri) as client:
            client.stt.things.insert_one({"one": 1})
    with (
        running_stack(folder, env=ENV, whisper=False) as stack,
        pymongo.MongoClient[dict[str, int]](stack.mongodb_uri) as client,
    ):
        assert client.stt.things.count_documents({}) == 1


def test_the_last_of_several_commands_stops_the_servers(folder: Path) -> None:
    first = User(folder)
    stack = first.stack()
    second = User(folder, "whisper")
    assert second.stack().mongodb_uri == stack.mongodb_uri
    first.leave()
    assert set(servers(folder)) == {"mongod", "whisper-tiny.en"}
    assert works(stack)
    second.leave()
    assert servers(folder) == {}


def test_commands_that_start_at_once_share(folder: Path) -> None:
    users = [User(folder) for _ in range(3)]
    assert len({user.stack().mongodb_uri for user in users}) == 1
    for user in users:
        user.leave()
    assert servers(folder) == {}


def test_what_a_killed_command_left_is_used_again_and_then_stopped(folder: Path) -> None:
    user = User(folder, "whisper")
    left = user.stack()
    user.die()
    running = servers(folder)
    assert len(running) == 2
    with running_stack(folder, env=ENV) as stack:
        assert stack == left
        assert works(stack)
        assert servers(folder) == running
    assert servers(folder) == {}


def test_a_left_server_that_hangs_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_lib.local.stack.STOP_SECONDS", 0.5)
    monkeypatch.setattr("stt_lib.local.stack.ANSWER_SECONDS", 0.5)
    user = User(folder, "whisper")
    user.stack()
    user.die()
    hanging = servers(folder)["whisper-tiny.en"]
    os.kill(hanging, signal.SIGSTOP)
    with running_stack(folder, env=ENV) as stack:
        assert works(stack)
        assert servers(folder)["whisper-tiny.en"] != hanging


def test_a_command_that_dies_while_starting_leaves_nothing_behind_for_ever(folder: Path) -> None:
    user = User(folder, "whisper")
    eventually(lambda: "whisper-tiny.en" in servers(folder))
    user.die()
    with running_stack(folder, env=ENV) as stack:
        assert works(stack)
    assert servers(folder) == {}


def test_another_stack_on_the_machine_is_left_alone(tmp_path: Path, folder: Path) -> None:
    with (
        running_stack(tmp_path / "local data 2", env=ENV, whisper=False) as other,
        running_stack(folder, env=ENV, whisper=False) as stack,
    ):
        assert stack.mongodb_uri != other.mongodb_uri
    assert servers(folder) == {}


def test_a_model_whose_name_begins_like_another_is_a_server_of_its_own(folder: Path) -> None:
    with running_stack(folder, env=ENV):
        looking = _Servers(folder, ENV, threading.Event(), ())
        assert list(looking._running("whisper-tiny.en"))
        assert not list(looking._running("whisper-tiny"))


def test_a_server_with_other_options_is_a_server_of_its_own(folder: Path) -> None:
    options = ["--device=cpu", "--batch=2"]
    user = User(folder, "whisper")
    usual = user.stack()
    with (
        running_stack(folder, env=ENV, options=options) as special,
        running_stack(folder, env=ENV, options=options) as again,
    ):
        assert works(special)
        assert again == special != usual
        name = "whisper-tiny.en--device_cpu--batch_2"
        assert set(servers(folder)) == {"mongod", "whisper-tiny.en", name}
        assert psutil.Process(servers(folder)[name]).cmdline()[-2:] == options
        user.leave()
    assert servers(folder) == {}


def test_the_whisper_server_gets_its_settings_and_the_environment_but_no_secrets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "models")}
    device = {"STT_DEVICE": "cpu", "STT_COMPUTE_TYPE": "float32", "STT_BATCH": "2"}
    secret = {"STT_API_KEY": "not for the servers", "MONGODB_URI": "mongodb://u:secret@host"}
    for name, value in {**kept, **device, **secret}.items():
        monkeypatch.setenv(name, value)
    with reachable(load({"local": True, "data_dir": folder}), whisper=True):
        [pid] = (pid for name, pid in servers(folder).items() if name != "mongod")
        environment = psutil.Process(pid).environ()
        command = psutil.Process(pid).cmdline()
    assert kept.items() <= environment.items()
    assert not environment.keys() & (device.keys() | secret.keys())
    assert command[-3:] == ["--device=cpu", "--compute-type=float32", "--batch=2"]


def test_servers_get_the_given_environment_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STT_API_KEY", "not for the servers")
    with running_stack(folder, env=ENV, whisper=False):
        environment = Path(f"/proc/{servers(folder)['mongod']}/environ").read_bytes()
    assert b"STT_API_KEY" not in environment


def test_a_server_that_does_not_start_says_why_and_nothing_stays(folder: Path) -> None:
    program = ["/bin/sh", "-c", "echo first; echo 'no luck today'; exit 3"]
    with (
        pytest.raises(LocalStackError, match="no luck today") as caught,
        running_stack(folder, env=ENV, program=program),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert servers(folder) == {}


def test_starting_can_be_stopped(folder: Path) -> None:
    stop = threading.Event()
    program = ["/bin/sh", "-c", "exec sleep 60"]
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    with pytest.raises(Stopped), running_stack(folder, env=ENV, program=program, stop=stop):
        pass
    timer.join()
    assert servers(folder) == {}


def test_waiting_for_another_command_can_be_stopped(folder: Path) -> None:
    folder.mkdir()
    stop = threading.Event()
    stop.set()
    with (folder / "gate.lock").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(Stopped), running_stack(folder, env=ENV, stop=stop):
            pass
    assert servers(folder) == {}


def test_a_command_leaves_while_another_one_loads_its_model(folder: Path) -> None:
    model = folder / "model"
    program = (sys.executable, "-c", SLOW_SERVER, str(model))
    first = User(folder)
    works(first.stack())

    def use() -> None:
        with running_stack(folder, env=ENV, program=program):
            pass

    second = threading.Thread(target=use)
    second.start()
    try:
        eventually(lambda: "whisper-tiny.en" in servers(folder))
        first.leave()
        assert set(servers(folder)) == {"mongod", "whisper-tiny.en"}
    finally:
        model.touch()
        second.join()
    assert servers(folder) == {}


SLOW_SERVER = """
import signal, socket, sys, time
from pathlib import Path
while not Path(sys.argv[1]).exists():
    time.sleep(0.02)
listener = socket.create_server(("127.0.0.1", 0))
signal.pause()
"""


def test_a_command_that_comes_while_the_servers_are_stopped_starts_them_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newcomers: list[User] = []
    stop = _Servers.stop

    def stop_late(leaving: _Servers, name: str | None = None) -> None:
        if name is None:
            newcomers.append(User(folder))
            eventually(lambda: is_held(folder / "gate.lock"))
        stop(leaving, name)

    monkeypatch.setattr(_Servers, "stop", stop_late)
    with running_stack(folder, env=ENV, whisper=False):
        pass
    [newcomer] = newcomers
    assert works(newcomer.stack())
    newcomer.leave()
    assert servers(folder) == {}


def is_held(lock: Path) -> bool:
    with lock.open("ab") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_waiting_for_the_servers_to_be_stopped_can_be_stopped(folder: Path) -> None:
    folder.mkdir()
    stop = threading.Event()
    stop.set()
    with (folder / "users.lock").open("wb") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        with pytest.raises(Stopped), running_stack(folder, env=ENV, stop=stop):
            pass
    assert servers(folder) == {}


def test_an_error_in_the_command_stops_the_servers_too(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), running_stack(folder, env=ENV, whisper=False):
        raise KeyboardInterrupt
    assert servers(folder) == {}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LocalStackError, match="cannot use the folder"),
        running_stack(tmp_path / "file" / "data", env=ENV),
    ):
        pass

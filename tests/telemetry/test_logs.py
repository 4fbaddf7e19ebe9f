"""The log: whole lines whoever writes them, and a machine's view of each."""

import ast
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stt_lib.config.installation import ROOT
from stt_lib.telemetry import logs
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.rotation import RotatedFile
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import START, World

WRITER = """
import logging, sys
from pathlib import Path
from stt_lib.telemetry.rotation import RotatedFile
path, name, lines = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = logging.Logger("writer")
log.addHandler(RotatedFile(path, max_bytes=20_000, backups=200))
sys.stdin.readline()
for number in range(lines):
    log.info("%s/%d %s.", name, number, "x" * (number % 200))
"""


def contents(folder: Path) -> list[str]:
    return [line for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


def test_three_processes_write_through_rotations_and_no_line_is_lost_or_torn(
    tmp_path: Path,
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "stt.log"), name, "2000"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for writer in writers:
        writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0
    lines = Counter(contents(tmp_path))
    expected = {f"{name}/{n} {'x' * (n % 200)}." for name in "abc" for n in range(2000)}
    assert set(lines) == expected
    assert set(lines.values()) == {1}
    assert len(list(tmp_path.iterdir())) > 20
    assert all(file.stat().st_size < 25_000 for file in tmp_path.iterdir())


@pytest.fixture
def file(tmp_path: Path) -> Any:
    log = logging.Logger("test")
    handler = RotatedFile(tmp_path / "stt.log", max_bytes=100, backups=2)
    log.addHandler(handler)
    yield log
    handler.close()


def test_a_process_that_was_frozen_while_it_rotated_holds_up_nobody(
    file: logging.Logger, tmp_path: Path
) -> None:
    file.info("a" * 100)
    with (tmp_path / "stt.log").open() as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)
        file.info("written to the full file")
    file.info("written to the next one")
    assert (tmp_path / "stt.log.1").read_text().endswith("a\nwritten to the full file\n")
    assert (tmp_path / "stt.log").read_text() == "written to the next one\n"


def test_a_log_that_somebody_moves_or_removes_is_made_anew(
    file: logging.Logger, tmp_path: Path
) -> None:
    file.info("one")
    (tmp_path / "stt.log").rename(tmp_path / "moved")
    file.info("two")
    (tmp_path / "stt.log").unlink()
    file.info("three")
    assert (tmp_path / "moved").read_text() == "one\n"
    assert (tmp_path / "stt.log").read_text() == "three\n"


def test_a_log_that_cannot_be_renamed_grows_instead_of_losing_lines(
    file: logging.Logger, tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"stt.log.{number}" / "in the way").mkdir(parents=True)
    for _ in range(5):
        file.info("x" * 99)
    assert (tmp_path / "stt.log").stat().st_size == 500


def test_a_linked_log_is_rotated_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "stt.log").symlink_to(tmp_path / "there" / "real.log")
    log = logging.Logger("test")
    log.addHandler(handler := RotatedFile(tmp_path / "stt.log", max_bytes=10, backups=2))
    for text in ("a" * 10, "b" * 10):
        log.info(text)
    handler.close()
    assert (tmp_path / "stt.log").is_symlink()
    assert len(list((tmp_path / "there").iterdir())) == 2


def sometimes(request: Request) -> Reply:
    return status(400) if request.audio[0].startswith(b"bad") else echo(request)


LOGS_ONE_LINE = """
import logging, pathlib, sys
from stt_lib.telemetry.rotation import RotatedFile
handler = RotatedFile(pathlib.Path(sys.argv[1]), 10, 1)
handler.emit(logging.makeLogRecord({"msg": "a line longer than ten bytes"}))
handler.emit(logging.makeLogRecord({"msg": "another"}))
"""


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_log_may_go_to_the_pipe_that_is_the_output(path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOGS_ONE_LINE, path], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("a line longer than ten bytes\nanother\n", "")


def test_a_log_may_go_to_a_link_to_the_output(tmp_path: Path) -> None:
    """As in images whose log is a link to /dev/stdout."""
    link = tmp_path / "stt.log"
    link.symlink_to("/dev/stdout")
    done = subprocess.run(
        [sys.executable, "-c", LOGS_ONE_LINE, link], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("a line longer than ten bytes\nanother\n", "")


def test_a_log_may_go_to_a_pipe_of_the_shell() -> None:
    """>(command) gives the path of a pipe that is not the output."""
    reader, writer = os.pipe()
    subprocess.run(
        [sys.executable, "-c", LOGS_ONE_LINE, f"/dev/fd/{writer}"],
        cwd=ROOT,
        pass_fds=[writer],
        check=True,
    )
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert stream.read() == "a line longer than ten bytes\nanother\n"


def test_a_file_that_is_the_output_is_not_rotated(tmp_path: Path) -> None:
    file = tmp_path / "out"
    with file.open("ab") as stream:
        subprocess.run(
            [sys.executable, "-c", LOGS_ONE_LINE, "/dev/stdout"],
            cwd=ROOT,
            stdout=stream,
            check=True,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert file.read_text() == "a line longer than ten bytes\nanother\n"


def test_json_is_one_object_a_line_with_stable_fields(world: World, whisper: FakeWhisper) -> None:
    world.record(range(3), original_id="good")
    world.record([7], original_id="bad")
    whisper.script = sometimes
    done = world.run("--log-format", "json", env={"STT_API_KEY": "planted-key"})
    assert done.returncode == 1
    lines = [json.loads(line) for line in world.log.splitlines()]
    console = [json.loads(line) for line in done.stderr.splitlines()]
    assert [{k: v for k, v in line.items() if k != "trace"} for line in lines] == console

    assert all(set(line) >= {"time", "level", "event", "message", "pid"} for line in lines)
    assert {line["event"] for line in lines} <= set(Event)
    [completed] = [line for line in lines if line["event"] == "completed"]
    assert completed["sequence"] == "2026-03-01T08:00:00+00:00"
    assert (completed["recording"], completed["chunks"]) == ("good", 3)
    assert completed["outcome"] == "transcribed"
    assert 0 <= completed["seconds"] < 60
    [failed] = [line for line in lines if line["event"] == "failed"]
    assert (failed["level"], failed["recording"]) == ("ERROR", "bad")
    assert (failed["kind"], failed["outcome"]) == ("invalid_audio", "error")
    assert failed["server"] in whisper.url
    assert "Traceback" in failed["trace"]
    assert lines[-1]["event"] == "finished"
    assert lines[-1]["sequences"] == {"transcribed": 1, "empty": 0, "error": 1, "skipped": 0}


def test_retries_say_which_attempt_it_was(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2), start=START + timedelta(hours=1))
    world.record(range(2))
    answers = iter([None, status(500)])  # the newer one is evidence that the server works
    whisper.script = lambda r: next(answers, None) or echo(r)
    assert world.run("--log-format", "json").returncode == 0
    lines = [json.loads(line) for line in world.log.splitlines()]
    assert [line["attempt"] for line in lines if line["event"] == "retrying"] == [1]


def test_secrets_are_blotted_out_of_json_whatever_they_look_like(tmp_path: Path) -> None:
    secret = 'pa"ss\\wörd\n'
    logs.set_up(tmp_path / "stt.log", [secret, "7"], format="json")
    try:
        raise ValueError(secret)
    except ValueError:
        logs.log.exception(
            "with %s", secret, extra=Event.FAILED.of(server=f"u:{secret}@h", chunks=7)
        )
    [line] = map(json.loads, (tmp_path / "stt.log").read_text().splitlines())
    assert (line["message"], line["server"], line["chunks"]) == ("with ***", "u:***@h", 7)
    assert line["trace"].endswith("ValueError: ***")


@pytest.mark.parametrize("kind", ["text", "json"])
def test_warnings_of_libraries_are_part_of_the_log(tmp_path: Path, kind: Any) -> None:
    logs.set_up(tmp_path / "stt.log", format=kind)
    logging.getLogger("urllib3.connectionpool").warning("Connection pool is full")
    logging.getLogger("urllib3.connectionpool").info("chatter")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        warnings.warn("old ways", stacklevel=1)
        logging.captureWarnings(False)
    text = (tmp_path / "stt.log").read_text()
    assert "Connection pool is full" in text
    assert "old ways" in text
    assert "chatter" not in text
    if kind == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["event"] for line in lines] == ["library", "library"]
        assert [line["logger"] for line in lines] == ["urllib3.connectionpool", "py.warnings"]


def test_verbose_says_more_and_quiet_less_but_the_file_has_all(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2), original_id="good")
    world.record([7], original_id="bad")
    whisper.script = sometimes
    done = world.run("--quiet", "--verbose")
    assert "INFO" not in done.stderr
    assert "ERROR - Error processing" in done.stderr
    assert "INFO - Completed sequence" in world.log
    assert "DEBUG - Answer of" in world.log


def test_every_line_of_ours_names_its_event() -> None:
    """A sentence may be reworded, its event stays: so that programs can rely on it."""
    for path in (ROOT / "stt_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in ("debug", "info", "warning", "error", "exception", "critical")
            ):
                assert any(keyword.arg == "extra" for keyword in node.keywords), (
                    f"{path}:{node.lineno}: add extra=Event.….of(…)"
                )


def test_the_documentation_names_every_event() -> None:
    monitoring = (ROOT / "docs" / "monitoring.md").read_text()
    table = re.search(r"Events: (.*?)\n\n", monitoring, re.DOTALL)
    assert table is not None
    assert sorted(re.findall(r"`([a-z_]+)`", table[1])) == sorted(Event)

"""`ingest` and `serve` from the command line."""

import os
import re
import shutil
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stt_lib.cli import main
from stt_lib.local import ingest
from stt_lib.local.ingest import read_recording
from stt_lib.store import Store
from tests.local.sounds import SAMPLES, encoded, silent_video, tone
from tests.support.world import START, World


def test_good_files_are_stored_and_bad_ones_are_listed_at_the_end(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("not a sound\n" * 100)
    (tmp_path / "film.mkv").write_bytes(silent_video())
    (tmp_path / "tone.wav").write_bytes(encoded(tone(12, rate=48_000), "wav", "pcm_s16le"))
    files = ["text.txt", "library.opus", "missing.wav", "film.mkv", "tone.wav"]
    paths = [SAMPLES / name if name == "library.opus" else tmp_path / name for name in files]
    done = world.run("ingest", *map(str, paths))
    assert done.returncode == 1
    good = done.stdout.splitlines()
    assert re.fullmatch(r".*library\.opus: 4 chunks, 4 with speech \(recording \w{24}\)", good[0])
    assert re.fullmatch(r".*tone\.wav: 2 chunks, 0 with speech \(recording \w{24}\)", good[1])
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == ["stt:"] * 3
    assert all(name in done.stderr for name in ("text.txt", "missing.wav", "film.mkv"))
    assert world.chunks.count_documents({}) == 6
    assert set(world.chunks.distinct("file")) == {"library.opus", "tone.wav"}

    again = world.run("ingest", str(SAMPLES / "library.opus"))
    assert again.returncode == 0
    assert "4 chunks, 4 with speech, 4 stored before" in again.stdout


def test_a_file_that_grows_while_it_is_read_costs_no_other(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    growing, good = tmp_path / "growing.opus", SAMPLES / "library.opus"
    shutil.copy(good, growing)

    def survey(path: Path, *arguments: Any, **options: Any) -> ingest.Recording:
        found = survey_(path, *arguments, **options)
        if path == growing:
            with growing.open("ab") as file:
                file.write((SAMPLES / "phone.opus").read_bytes())
        return found

    survey_ = ingest.survey
    monkeypatch.setattr(ingest, "survey", survey)
    for name, value in world.env.items():
        monkeypatch.setenv(name, value)
    assert main(["ingest", str(growing), str(good)]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{good}: 4 chunks")
    changed = "changed while it was read: repeat the command once it is complete"
    assert shown.err == f"stt: {growing} {changed}\n"
    assert world.chunks.distinct("file") == [good.name]


def test_a_file_name_need_not_be_utf_8(world: World, tmp_path: Path) -> None:
    sound = tmp_path / os.fsdecode(b"caf\xe9.opus")
    shutil.copy(SAMPLES / "library.opus", sound)
    missing = tmp_path / os.fsdecode(b"no\xe9l.opus")
    done = world.run("ingest", str(sound), str(missing), str(SAMPLES / "phone.opus"))
    assert done.returncode == 1, done.stderr
    assert "caf?.opus: 4 chunks" in done.stdout
    assert re.fullmatch(r"stt: .*no\?l\.opus cannot be read: No such file or.*\n", done.stderr)
    assert set(world.chunks.distinct("file")) == {"caf\ufffd.opus", "phone.opus"}


@pytest.fixture
def half(store: Store, tmp_path: Path) -> Path:
    """A file of which two chunks are stored, and which was touched a day later."""
    path = tmp_path / "talk.opus"
    shutil.copy(SAMPLES / "library.opus", path)
    store.chunks.insert(read_recording(path, START)[:2])
    later = (START + timedelta(days=1)).timestamp()
    os.utime(path, (later, later))
    return path


@pytest.mark.parametrize("options", [(), ("--start", START.isoformat())])
def test_a_file_that_is_half_stored_keeps_its_start(
    world: World, half: Path, options: tuple[str, ...]
) -> None:
    done = world.run("ingest", str(half), *options)
    assert done.returncode == 0, done.stderr
    assert "4 chunks, 4 with speech, 2 stored before" in done.stdout
    starts = [chunk["start"] for chunk in world.chunks.find().sort("index")]
    assert starts == [START + timedelta(seconds=10 * index) for index in range(4)]


def test_another_start_for_a_stored_file_is_refused(world: World, half: Path) -> None:
    other = str(SAMPLES / "phone.opus")
    done = world.run("ingest", str(half), other, "--start", "2026-03-02T08:00Z", env={"TZ": "UTC"})
    assert done.returncode == 1
    assert done.stderr == (
        f"stt: {half} was stored before and begins at 2026-03-01 08:00:00,"
        " which --start cannot change\n"
    )
    assert "phone.opus" in done.stdout
    assert world.chunks.count_documents({"file": half.name}) == 2


@pytest.mark.parametrize("start", ["9999-12-31T23:59:55Z", "0001-01-01T00:00:00Z"])
def test_a_start_at_an_end_of_the_calendar_is_a_usage_error(world: World, start: str) -> None:
    done = world.run("ingest", str(SAMPLES / "library.opus"), "--start", start)
    assert done.returncode == 2
    assert done.stderr == f"stt: --start must be in the years 2 to 9998, not '{start}'\n"
    assert world.chunks.count_documents({}) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nonsense"], "the Whisper model nonsense does not load"),
        (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        (["--device", "cuda:1"], "the Whisper model tiny.en does not load"),
        (["--compute-type", "int3"], "the Whisper model tiny.en does not load"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(
    world: World, arguments: list[str], message: str
) -> None:
    done = world.run("serve", "--port", "0", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_busy_port_is_a_usage_error(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = world.run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1 port" in done.stderr

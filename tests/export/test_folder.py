"""`export --to`: one file per recording, and only what changed since the last export."""

import errno
import fcntl
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from stt_lib.errors import InputError
from stt_lib.export import VERSIONS, deliver, file_name, locked
from stt_lib.store import Store
from tests.support.whisper import FakeWhisper
from tests.support.world import START, World


def save(world: World, recording: Any, start: datetime, text: str) -> None:
    segments = [{"start": 0.0, "end": 2.0, "text": text}]
    document = {"original": recording, "start": start, "segments": segments}
    world.transcriptions.insert_one({**document, "created_at": datetime.now(UTC)})


def export(world: World, *arguments: str, code: int = 0) -> str:
    done = world.run("export", "--to", str(folder_of(world)), *arguments)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def folder_of(world: World) -> Path:
    return world.folder / "exported" / "texts"


def written(world: World) -> dict[str, int]:
    """The files with the number that changes whenever one is replaced."""
    return {file.name: file.stat().st_ino for file in folder_of(world).glob("[!.]*")}


@pytest.fixture
def two(world: World) -> dict[str, int]:
    save(world, "a", START, "first")
    save(world, "b", START + timedelta(days=1), "second")
    assert "2 files written" in export(world)
    return written(world)


def test_each_recording_has_a_file_as_export_would_write_it(
    world: World, two: dict[str, int]
) -> None:
    assert set(two) == {"a.txt", "b.txt"}
    assert (folder_of(world) / "a.txt").read_text() == world.run("export", "a").stdout
    assert {file.name for file in folder_of(world).glob(".*")} == {VERSIONS}


def test_only_what_changed_is_written_again(world: World, two: dict[str, int]) -> None:
    assert "0 files written" in export(world)
    assert written(world) == two
    save(world, "a", START + timedelta(minutes=5), "more")
    assert "1 file written" in export(world)
    now = written(world)
    assert now["b.txt"] == two["b.txt"]
    assert "more" in (folder_of(world) / "a.txt").read_text()


def test_a_file_that_was_deleted_is_written_again(world: World, two: dict[str, int]) -> None:
    (folder_of(world) / "a.txt").unlink()
    assert "1 file written" in export(world)
    assert set(written(world)) == set(two)


def test_a_full_disk_is_blamed_on_the_folder_and_replaces_no_other_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr("stt_lib.export.written_whole", full)
    with (
        pytest.raises(InputError, match=rf"^{tmp_path}/{VERSIONS} cannot be written: No space"),
        locked(tmp_path),
    ):
        pass
    with pytest.raises(InputError, match=r"^a\.txt cannot be written: No space"), locked(tmp_path):
        deliver(["text"], Path("a.txt"))


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a.txt": 3}'])
def test_lost_versions_cost_only_time(world: World, two: dict[str, int], content: str) -> None:
    (folder_of(world) / VERSIONS).write_text(content)
    assert "2 files written" in export(world)
    assert set(written(world)) == set(two)
    assert "0 files written" in export(world)


def test_each_format_has_files_of_its_own(world: World, two: dict[str, int]) -> None:
    assert "1 file written" in export(world, "a", "--format", "srt")
    assert set(written(world)) == {*two, "a.srt"}
    assert "0 files written" in export(world)
    assert "0 files written" in export(world, "a", "--format", "srt")


def test_a_period_selects_recordings_which_are_written_as_a_whole(world: World) -> None:
    save(world, "a", START, "first")
    save(world, "a", START + timedelta(days=1), "second")
    save(world, "b", START, "other")
    since = ("--since", "2026-03-02")
    assert "1 file written" in export(world, *since)
    assert "first" in (folder_of(world) / "a.txt").read_text()
    assert "0 files written" in export(world, "--since", "2026-03-01T12:00")


def test_a_transcript_that_is_replaced_or_restored_is_a_change(
    world: World, whisper: FakeWhisper, store: Store
) -> None:
    recording = world.record(range(2))
    world.run()
    before = store.transcripts.versions()
    assert list(before) == [str(recording)]
    assert world.run("--retranscribe", "all").returncode == 0
    after = store.transcripts.versions()
    assert after != before
    world.transcriptions.update_one({}, {"$push": {"segments": {"text": "restored"}}})
    assert store.transcripts.versions() != after


def test_a_transcript_is_a_change_whatever_the_clock_of_its_worker_says(
    world: World, store: Store
) -> None:
    save(world, "a", START, "first")
    save(world, "a", START + timedelta(minutes=5), "second")
    world.transcriptions.update_many({}, {"$set": {"created_at": START}})
    before = store.transcripts.versions()
    replaced = {"created_at": START - timedelta(minutes=1), "revision": 2}
    world.transcriptions.update_one({}, {"$set": replaced})
    assert store.transcripts.versions() != before


def test_ids_that_are_shown_alike_share_a_file(world: World) -> None:
    save(world, "7", START, "text")
    save(world, 7, START, "number")
    assert "1 file written" in export(world)
    assert "0 files written" in export(world)
    text = (folder_of(world) / "7.txt").read_text()
    assert "text" in text
    assert "number" in text


def test_no_id_leads_out_of_the_folder(world: World) -> None:
    ids = ["..", "../up", "/root", "a b", ".stt-export", "日本", "x" * 300, "x" * 301, "a%20b"]
    names = [file_name(id_, "txt") for id_ in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name.encode()) < 255
    for id_ in ids:
        save(world, id_, START, "text")
    assert f"{len(ids)} files written" in export(world)
    assert set(written(world)) == set(names)


def test_two_exports_to_one_folder_do_not_overlap(world: World, two: dict[str, int]) -> None:
    lock = os.open(folder_of(world), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert "another export is writing to" in export(world, code=1)
    finally:
        os.close(lock)
    assert "2 unchanged" in export(world)
    assert written(world) == two


def test_stopped_half_way_it_goes_on_from_there(world: World) -> None:
    save(world, "a", START, "first")
    for number in range(300):
        save(world, "b", START + timedelta(seconds=number), "words " * 2000)
    folder = folder_of(world)
    folder.mkdir(parents=True)
    os.mkfifo(folder / "b.txt")  # the export waits for a reader of the pipe
    with (
        world.start("export", "--to", str(folder)) as process,
        (folder / "b.txt").open("rb") as pipe,
    ):
        pipe.read(10)
        process.send_signal(signal.SIGTERM)
        pipe.read()
        assert process.wait(30) == 143
    (folder / "b.txt").unlink()
    assert "1 file written" in export(world)
    assert {file.name for file in folder.iterdir()} == {"a.txt", "b.txt", VERSIONS}


def test_what_cannot_be_written_is_one_line(world: World) -> None:
    save(world, "a", START, "first")
    (world.folder / "exported").write_text("a file")
    [line] = export(world, code=1).splitlines()
    assert "cannot be written" in line


def test_one_output_is_enough(world: World) -> None:
    assert "cannot be combined" in export(world, "-o", "x.txt", code=2)

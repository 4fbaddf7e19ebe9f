"""`transcribe`: files become texts beside them, whatever happens on the way."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from stt_lib.cli.transcribe import _read, _recordings, _Texts
from stt_lib.config.installation import ROOT
from stt_lib.domain.models import Failure
from stt_lib.errors import FailureKind, InputError
from stt_lib.local.cores import cores
from stt_lib.local.ingest import read_recording
from stt_lib.local.stack import running_stack
from stt_lib.store import Store
from tests.local.sounds import SAMPLES
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import START, World

PHONE_CHUNKS = 7
PROBE = (ROOT / "stt_lib" / "servers" / "probe.opus").read_bytes()

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _in_a_folder_with_recordings(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    shutil.copy(SAMPLES / "library.opus", "talk.mp3")
    shutil.copy(SAMPLES / "phone.opus", "phone.opus")


def posted(whisper: FakeWhisper) -> set[bytes]:
    return {sound for request in whisper.requests for sound in request.audio}


def ending(sound: bytes) -> bytes:
    """The last sounds of a chunk: unlike its headers, they are the same each time it is made."""
    return sound[-100:]


def test_good_files_become_texts_and_bad_ones_are_listed(
    world: World, whisper: FakeWhisper
) -> None:
    Path("bad.wav").write_text("no sound")
    done = world.run("transcribe", "bad.wav", "talk.mp3", "missing.wav", "phone.opus")
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == ["phone.opus: phone.txt", "talk.mp3: talk.txt"]
    errors = sorted(done.stderr.splitlines())
    assert errors == [
        "stt: bad.wav is not audio",
        "stt: missing.wav cannot be read: No such file or directory",
    ]
    assert "testing" in Path("talk.txt").read_text()
    assert not Path("bad.txt").exists()
    assert len(posted(whisper)) == 4 + PHONE_CHUNKS

    count = len(whisper.requests)
    again = world.run("transcribe", "talk.mp3", "--format", "vtt", "-o", "subtitles/vtt")
    assert again.returncode == 0, again.stderr
    assert Path("subtitles/vtt/talk.vtt").read_text().startswith("WEBVTT")
    assert len(whisper.requests) == count
    assert world.chunks.count_documents({}) == 0, "the user's own database is left alone"


def test_a_file_name_need_not_be_utf_8(world: World) -> None:
    sound = Path("talk.mp3").rename(os.fsdecode(b"caf\xe9.mp3"))
    done = world.run("transcribe", str(sound), "phone.opus")
    assert done.returncode == 0, done.stderr
    assert "caf?.mp3: caf?.txt" in done.stdout.splitlines()
    assert "testing" in sound.with_suffix(".txt").read_text()


def test_the_embedded_server_gets_one_request_per_core(world: World) -> None:
    done = world.run("transcribe", "talk.mp3", env={"STT_SERVER_URL": ""})
    assert done.returncode == 0, done.stderr
    assert f"Using {cores()} parallel worker(s)" in world.log_file.read_text()
    (log,) = world.folder.glob("**/whisper-*.log")
    assert "warning" not in log.read_text().lower()


def test_a_file_that_vanishes_before_it_is_read_costs_no_other(store: Store) -> None:
    problems: list[InputError] = []
    source, texts = Mock(), Mock(problems=problems)
    _read(store, source, [Path("gone.mp3"), Path("talk.mp3")], texts, threading.Event())
    assert list(map(str, problems)) == ["gone.mp3 cannot be read: No such file or directory"]
    [stored] = texts.stored.call_args_list
    assert stored.args[0] == Path("talk.mp3")
    assert store.chunks.is_whole(stored.args[1])
    source.complete.assert_called_once_with()


def test_a_killed_command_is_finished_by_the_next(world: World, whisper: FakeWhisper) -> None:
    shutil.copy(SAMPLES / "tides.opus", "tides.opus")  # two sequences

    def hold_short_ones(request: Request) -> Reply:
        if len(request.audio) < 20:
            whisper.released.wait(60)
        return echo(request)

    whisper.script = hold_short_ones
    env = {"STT_LEASE": "3"}
    process = world.start("transcribe", "tides.opus", env=env)
    try:
        eventually(lambda: len(whisper.requests) > 1, seconds=60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    whisper.script = echo
    done = world.run("transcribe", "tides.opus", env=env)
    assert done.returncode == 0, done.stderr
    assert "testing" in Path("tides.txt").read_text()
    assert len(posted(whisper)) == 33


def test_a_file_that_was_touched_after_an_interruption_keeps_its_start(world: World) -> None:
    with (
        running_stack(
            world.folder / "data", whisper=False, model="tiny.en", env=world.env
        ) as stack,
        Store(stack.mongodb_uri, "stt", mongo_wait=5) as store,
    ):
        store.chunks.insert(read_recording(Path("talk.mp3"), START)[:2])
    done = world.run("transcribe", "talk.mp3")
    assert done.returncode == 0, done.stderr
    (recording,) = json.loads(world.run("recordings", "--local", "--json").stdout)
    assert (recording["start"], recording["seconds"]) == (START.isoformat(), 40)


def test_a_text_is_not_replaced_by_nothing(world: World, whisper: FakeWhisper) -> None:
    """Neither if the audio is rejected, nor while another command transcribes it."""
    text = Path("talk.txt")
    text.write_text("my notes")
    whisper.script = lambda request: echo(request) if request.audio == [PROBE] else status(422)
    done = world.run("transcribe", "talk.mp3")
    assert done.returncode == 1
    assert "4 chunks not transcribed; to see why: python stt.py errors" in done.stderr
    assert "no speech" not in done.stdout
    assert text.read_text() == "my notes"

    def hold(request: Request) -> Reply:
        whisper.released.wait(60)
        return echo(request)

    whisper.script = hold
    count = len(whisper.requests)
    process = world.start("transcribe", "talk.mp3", "-o", "other")
    try:
        eventually(lambda: len(whisper.requests) > count, seconds=60)
        done = world.run("transcribe", "talk.mp3", env={"STT_LEASE": "3"})
        assert done.returncode == 1
        assert "another command is at work on it; run the same command again" in done.stderr
        assert text.read_text() == "my notes"
    finally:
        whisper.released.set()
        process.communicate(timeout=60)
    assert Path("other/talk.txt").read_text()


def test_a_recording_is_not_replaced_by_its_text(world: World, whisper: FakeWhisper) -> None:
    sound = Path("talk.mp3").rename("talk.txt")
    before = sound.read_bytes()
    shutil.copy(SAMPLES / "phone.opus", "talk.opus")
    for files in (["talk.txt", "phone.opus"], ["talk.opus", "talk.txt"]):
        done = world.run("transcribe", *files)
        assert done.returncode == 2
        assert "talk.txt would be replaced by the text of" in done.stderr
        assert sound.read_bytes() == before
    assert not whisper.requests


def test_repeated_with_a_pattern_it_leaves_the_texts_out(world: World) -> None:
    assert world.run("transcribe", "talk.mp3").returncode == 0
    again = world.run("transcribe", "talk.mp3", "talk.txt")
    assert again.returncode == 0
    assert again.stdout == "talk.mp3: talk.txt\n"
    assert again.stderr == "stt: talk.txt is left out: it is the text of talk.mp3\n"


def test_what_cannot_be_written_is_said_before_the_work(world: World, whisper: FakeWhisper) -> None:
    Path("talk.txt").mkdir()
    done = world.run("transcribe", "phone.opus", "talk.mp3")
    assert done.returncode == 2
    assert "talk.txt cannot be written" in done.stderr
    assert not whisper.requests


def test_options_for_a_file_that_was_transcribed_before_are_not_ignored_in_silence(
    world: World, whisper: FakeWhisper
) -> None:
    assert world.run("transcribe", "talk.mp3").returncode == 0
    count = len(whisper.requests)
    done = world.run("transcribe", "talk.mp3", "--language", "de")
    assert done.returncode == 0
    assert "talk.mp3 was transcribed before, so --language had no effect" in done.stderr
    assert world.run("transcribe", "talk.mp3", "--language", "en").stderr == "", "as it was"
    anew = world.run("transcribe", "talk.mp3", "--language", "de", "--data-dir", "another")
    assert anew.returncode == 0, anew.stderr
    assert len(whisper.requests) > count


@pytest.mark.parametrize("has_failed", [False, True])
def test_each_text_is_written_once_its_file_is_done(
    world: World, whisper: FakeWhisper, *, has_failed: bool
) -> None:
    talk = [ending(chunk.data) for chunk in read_recording(Path("talk.mp3"))]

    def only_talk(request: Request) -> Reply:
        said = set(map(ending, request.audio))
        if not said.issubset(talk):
            whisper.released.wait(60)
        return status(400) if has_failed and talk[1] in said else echo(request)

    whisper.script = only_talk
    files = "talk.mp3", "phone.opus"
    process = world.start("transcribe", *files, "--max-workers", "3", env={"STT_GRACE": "0.1"})
    try:
        eventually(Path("talk.txt").exists, seconds=60)
        eventually(lambda: len(posted(whisper)) > len(talk), seconds=60)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out) == (130, "talk.mp3: talk.txt\n"), err
    assert "1 of 2 texts written; run the same command again to continue" in err
    assert ("talk.mp3: 1 chunk not transcribed" in err) == has_failed
    assert "testing" in Path("talk.txt").read_text()
    assert not Path("phone.txt").exists()

    whisper.script = echo
    whisper.requests.clear()
    done = world.run("transcribe", *files)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["phone.opus: phone.txt", "talk.mp3: talk.txt"]
    posted_again = {sound for sound in map(ending, posted(whisper)) if sound in talk}
    assert posted_again == set(talk[:3] if has_failed else []), "the failed one and its neighbours"
    assert len(posted(whisper)) == PHONE_CHUNKS + len(posted_again)


def test_what_failed_is_reported_and_tried_again(world: World, whisper: FakeWhisper) -> None:
    whisper.script = lambda r: status(400) if whisper.requests[0].audio[1] in r.audio else echo(r)
    done = world.run("transcribe", "talk.mp3")
    assert done.returncode == 1
    stack = f"--local --data-dir {world.folder / 'data'}"
    assert "stt: talk.mp3: 1 chunk not transcribed; to see why:" in done.stderr
    assert done.stderr.rstrip().endswith(f"errors {stack}")
    assert world.run("errors", "--local").stdout.count(stack) == 3, "what to do works there"
    assert world.run("search", "--local", "testing").stdout.rstrip().endswith(stack)
    assert "testing" in Path("talk.txt").read_text()
    assert len(posted(whisper)) == 4
    whisper.script = echo
    (failed,) = json.loads(world.run("errors", "--local", "--json").stdout)["chunks"]
    world.run("errors", "discard", failed["id"], "--yes", "--local")
    count = len(whisper.requests)
    done = world.run("transcribe", "talk.mp3")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(whisper.requests) == count, "what was discarded is given up on"
    world.run("errors", "retry", failed["id"], "--local")
    done = world.run("transcribe", "talk.mp3")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(whisper.requests) > count
    assert "testing" in Path("talk.txt").read_text()


def test_a_file_that_was_discarded_as_a_whole_gets_no_text(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = Path("talk.mp3"), Path("talk.txt")
    target.write_text("my notes")
    store.chunks.insert(read_recording(path, START))
    problems: list[InputError] = []
    (recording,) = _recordings(store, [path], problems).values()
    ids = store.chunks.pending_of(recording)
    failure = Failure(FailureKind.TIMEOUT, "", None)
    store.failures.record(ids, failure, attempt="1", audio_at_fault=True, due_in=0, max_failures=1)
    assert store.failures.discard(text=recording) == 4
    assert _recordings(store, [path], problems) == {path: recording}
    texts = _Texts(store, {path: target}, "txt", problems, "")
    assert texts.is_known(path, recording)
    texts.close(is_complete=True)
    assert problems == []
    assert target.read_text() == "my notes"
    assert capsys.readouterr().out == "talk.mp3: no text, because its chunks were discarded\n"


def test_a_server_that_is_away_is_exit_code_3(world: World) -> None:
    env = {"STT_SERVER_WAIT": "0"}
    done = world.run("transcribe", "talk.mp3", "--server", "http://127.0.0.1:9", env=env)
    assert done.returncode == 3
    assert not Path("talk.txt").exists()


def test_two_files_never_share_a_text(world: World) -> None:
    done = world.run("transcribe", "talk.mp3", "talk.wav")
    assert done.returncode == 2
    assert done.stderr == "stt: talk.mp3 and talk.wav would both become talk.txt\n"


def test_without_the_embedded_stack_one_line_says_what_to_install(world: World) -> None:
    Path("psutil.py").write_text("raise ModuleNotFoundError(name='psutil')")
    done = world.run("transcribe", "talk.mp3", env={"PYTHONPATH": str(world.folder)})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install" in done.stderr

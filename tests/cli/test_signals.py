"""Signals: the first stops cleanly, the second at once, and nohup is respected."""

import fcntl
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.local.sounds import encoded, noise
from tests.support.whisper import FakeWhisper, Reply, Request, echo
from tests.support.world import World


@pytest.fixture(autouse=True)
def hang_up_is_not_ignored() -> Iterator[None]:
    """As it would be where the tests themselves run under nohup: processes inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def wait_for(is_true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "this took too long"
        time.sleep(0.01)


def waiting(whisper: FakeWhisper) -> Callable[[Request], Reply]:
    def script(request: Request) -> Reply:
        whisper.released.wait(30)
        return echo(request)

    return script


def started(world: World, whisper: FakeWhisper, *arguments: str) -> subprocess.Popen[str]:
    """A run whose only request is at the server, which does not answer yet."""
    world.record(range(2))
    whisper.script = waiting(whisper)
    process = world.start(*arguments)
    wait_for(lambda: whisper.requests)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_first_signal_lets_requests_finish(
    world: World, whisper: FakeWhisper, number: signal.Signals, code: int
) -> None:
    process = started(world, whisper)
    process.send_signal(number)
    wait_for(lambda: "Stopping: requests in flight" in world.log)
    whisper.released.set()
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    world.assert_all_done()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_says_so_and_leaves_no_claim(
    world: World, whisper: FakeWhisper, number: signal.Signals
) -> None:
    process = started(world, whisper, "--lease", "600")
    assert world.db["stt_claims"].count_documents({}) == 1
    process.send_signal(number)
    wait_for(lambda: "Stopping: requests in flight" in world.log)
    process.send_signal(number)
    asked = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - asked < 3
    assert process.returncode == 128 + number
    assert "Stopping at once after a second signal" in err
    assert world.db["stt_claims"].count_documents({}) == 0
    whisper.script = echo
    assert world.run().returncode == 0
    world.assert_all_done()


def test_the_second_ends_a_run_whose_mongodb_hangs(world: World, whisper: FakeWhisper) -> None:
    """Releasing claims is limited to a second."""
    process = started(world, whisper, "--lease", "600")
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "Stopping: requests in flight" in world.log)
    world.client.admin.command("fsync", lock=True)
    try:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
    finally:
        world.client.admin.command("fsyncUnlock")
    assert process.returncode == 130


@pytest.mark.parametrize(
    "arguments", [("--local",), ("export", "--local"), ("ingest", "--local", "talk.opus")]
)
def test_the_start_of_the_embedded_stack_can_be_stopped(
    world: World, arguments: tuple[str, ...]
) -> None:
    (data := world.folder / "data").mkdir()
    with (data / "gate.lock").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # as if another command was starting the servers
        process = world.start(*arguments)
        wait_for((data / "users.lock").exists)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 143, err


def test_ingest_stops_between_chunks_and_is_continued(world: World) -> None:
    path = world.folder / "hiss.wav"
    path.write_bytes(encoded(noise(600, 0.1), "wav", "pcm_s16le", rate=16_000))
    process = world.start("ingest", str(path))
    wait_for(lambda: world.chunks.count_documents({}))
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (129, ""), err
    assert err == (
        "stt: 0 of 1 file stored; run the same command again to continue:"
        " what is stored so far is kept\n"
    )
    count = world.chunks.count_documents({})
    assert 0 < count < 60
    done = world.run("ingest", str(path))
    assert f"60 chunks, 0 with speech, {count} stored before" in done.stdout, done.stderr


def test_under_nohup_a_closed_terminal_does_not_stop_the_run(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2))
    whisper.script = waiting(whisper)
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited by the child
    try:
        process = world.start()
    finally:
        signal.signal(signal.SIGHUP, old)
    wait_for(lambda: whisper.requests)
    process.send_signal(signal.SIGHUP)
    whisper.released.set()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    world.assert_all_done()


def test_a_run_says_on_demand_what_it_is_doing_and_goes_on(
    world: World, whisper: FakeWhisper
) -> None:
    process = started(world, whisper)
    process.send_signal(signal.SIGUSR1)
    whisper.released.set()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "stt_lib/servers/transport.py" in err
    world.assert_all_done()

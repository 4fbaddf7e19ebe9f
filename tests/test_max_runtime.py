"""`--max-runtime`: the run is over by then, and what it began is done or given back."""

import time
from datetime import timedelta

import pytest

from stt_lib.domain.deadline import CLOSING_SECONDS, Deadline
from tests.support.whisper import FakeWhisper, Reply, Request, echo
from tests.support.world import START, World


def test_without_an_end_there_is_always_time() -> None:
    assert Deadline(None, 0.0).leaves_time(1e12, 1e6)


def test_work_is_begun_while_nearly_every_sequence_would_end_in_time() -> None:
    deadline = Deadline(1000.0, 50.0)
    for _ in range(40):
        deadline.took(10.0)
    deadline.took(300.0)  # one of many took its retries
    last = 1050.0 - CLOSING_SECONDS - 10.0
    assert deadline.leaves_time(last, 95.0)
    assert not deadline.leaves_time(last + 0.1, 95.0)
    for _ in range(10):
        deadline.took(300.0)
    assert not deadline.leaves_time(last - 200, 95.0)


@pytest.mark.parametrize("seconds", [0.5, 10.0, 100.0])
def test_even_a_short_run_begins_something(seconds: float) -> None:
    deadline = Deadline(seconds, 0.0)
    assert deadline.leaves_time(0.0, 95.0)
    assert not deadline.leaves_time(seconds * 0.6, 95.0)
    assert deadline.cuts_at >= 0.9 * seconds


def test_intake_ends_so_early_that_what_was_begun_is_done_in_time(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(200):
        world.record([0], original_id=number, start=START + timedelta(hours=number))

    def slow(request: Request) -> Reply:
        time.sleep(0.1)
        return echo(request)

    whisper.script = slow
    done = world.run("--max-runtime", "3s", "--max-workers", "2")
    assert done.returncode == 0
    assert "Starting no more work: this run must end by " in done.stderr
    assert "Stopping" not in done.stderr
    assert "given back" not in done.stderr
    assert 0 < world.transcriptions.estimated_document_count() < 200
    assert world.chunks.count_documents({"stt": {"$exists": True}}) == 0
    finished = float(done.stderr.rpartition("sequences in ")[2].partition("s")[0])
    assert 1.0 < finished < 3.0


def test_what_outlasts_it_is_cut_off_and_given_back(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2))

    def hang(_: Request) -> Reply:
        whisper.released.wait(60)
        return Reply(raw=b"")

    whisper.script = hang
    done = world.run("--max-runtime", "2", seconds=20)
    assert done.returncode == 0, "stopped by plan is no failure"
    assert "1 given back" in done.stderr
    assert [c.get("stt") for c in world.pending()] == [None, None]

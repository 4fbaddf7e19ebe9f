"""A whole run on a store in memory: what it plans, starts, waits for and reports."""

import math
import threading
from datetime import timedelta
from typing import Any

import pytest

from stt_lib.domain.models import Outcome
from stt_lib.errors import StoreError, StoreUnavailable
from stt_lib.pipeline.runner import Report
from stt_lib.servers.pool import ServerPool, Slot
from stt_lib.servers.transport import Reply
from stt_lib.timing import REAL
from tests.pipeline.lab import Lab, Posted, echo, refuse
from tests.support.manual_time import START
from tests.support.memory_store import Away, Network


@pytest.fixture
def lab() -> Lab:
    return Lab(timing=REAL)


def test_everything_pending_is_transcribed_newest_first(lab: Lab) -> None:
    for number in range(120):
        lab.record([0, 1], f"rec{number:03}.", start=START + timedelta(hours=number))
    report = lab.run(max_workers=1)
    assert report.tally[Outcome.TRANSCRIBED] == 120
    lab.assert_all_done()
    assert [posted[0] for posted in lab.requests] == [f"rec{n:03}.0" for n in range(119, -1, -1)]


def test_a_long_recording_is_cut_and_each_word_is_there_once(lab: Lab) -> None:
    lab.record(range(100))
    assert lab.run(max_workers=3).tally[Outcome.TRANSCRIBED] >= 4
    lab.assert_all_done()
    assert lab.text == [f"rec{n}" for n in range(100)]


def test_nothing_to_do(lab: Lab) -> None:
    report = lab.run()
    assert report.tally.attempted == 0
    assert report.halted_by is None
    assert not lab.requests


def test_the_limit_counts_sequences(lab: Lab) -> None:
    for number in range(9):
        lab.record([0], f"rec{number}.", start=START + timedelta(hours=number))
    assert lab.run(limit=4, max_workers=3).tally.attempted == 4
    assert len(lab.pending) == 5


def test_a_failure_is_recorded_once_and_not_tried_again_in_this_run(lab: Lab) -> None:
    lab.record([0], "rec-bad.")
    lab.record([0], "rec-good.", start=START + timedelta(hours=1))
    lab.script = lambda posted: refuse(415) if "bad" in posted[0] else echo(posted)
    report = lab.run()
    assert (report.tally[Outcome.ERROR], report.tally[Outcome.TRANSCRIBED]) == (1, 1)
    [left] = lab.pending
    assert left["stt"]["failures"] == 1
    assert lab.run().tally.attempted == 0, "it is not due yet"
    assert lab.run(retry_errors=True).tally[Outcome.ERROR] == 1


@pytest.mark.parametrize("retry_errors", [False, True])
def test_a_clock_that_is_set_back_brings_no_failure_back_in_the_same_run(
    lab: Lab, retry_errors: bool
) -> None:
    """A failover may lead to a primary whose clock is behind."""
    for number in range(120):
        lab.record([0], f"rec{number:03}.", start=START + timedelta(hours=number))
    lab.script = lambda _: refuse(415)
    if retry_errors:
        lab.run()
        lab.requests.clear()

    def set_back(_: Posted) -> Reply:
        lab.database.clock_error = timedelta(hours=-1)
        if len(lab.requests) > 200:
            lab.stop.set()
        return refuse(415)

    lab.script = set_back
    report = lab.run(retry_errors=retry_errors)
    assert not report.stopped
    assert len(lab.requests) == len(set(lab.requests)) > 0


def test_a_claim_of_a_dead_worker_is_waited_for(lab: Lab) -> None:
    lab.record(range(3))
    dead = lab.store(lease=0.3)
    assert dead.claims.acquire(lab.planned()[0], "dead", "dead")
    report = lab.run(lease=3.0)
    assert report.tally[Outcome.TRANSCRIBED] == 1
    lab.assert_all_done()


def test_a_claim_of_a_dead_worker_that_is_found_by_a_conflict_is_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_lib.pipeline.runner.CONTENDED_REPLAN_SECONDS", 0.0)
    for number in range(14):
        lab.record([0], f"rec{number:02}.", start=START + timedelta(hours=number))
    dead = lab.store(lease=1.0)
    wanted = lab.planned()[7]

    def claim(posted: Posted) -> Reply:
        if len(lab.requests) == 4:
            assert dead.claims.acquire(wanted, "dead", "dead")
        return echo(posted)

    lab.script = claim
    assert lab.run(lease=3.0, max_workers=1).tally[Outcome.TRANSCRIBED] == 14
    lab.assert_all_done()


def test_a_claim_of_a_live_worker_is_left_alone(lab: Lab) -> None:
    lab.record([0], "rec-held.")
    lab.record([0], "rec-free.", start=START + timedelta(hours=1))
    other = lab.store(lease=60)
    [held] = [s for s in lab.planned() if s.original_id == "rec-held."]
    assert other.claims.acquire(held, "alive", "alive")
    finished = threading.Event()

    def renew() -> None:
        while not finished.wait(0.05):
            other.claims.renew(["alive"])

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        report = lab.run()
    finally:
        finished.set()
        renewing.join()
    assert report.tally[Outcome.SKIPPED] == 0, "what is known to be held is not even tried"
    assert [chunk["original_id"] for chunk in lab.pending] == ["rec-held."]


def test_work_beyond_what_others_hold_is_found(lab: Lab) -> None:
    """Even if they hold more than a whole batch."""
    for number in range(100):
        lab.record([0], f"rec{number:03}.", start=START + timedelta(hours=number))
    other = lab.store()
    for sequence in lab.planned()[:90]:
        assert other.claims.acquire(sequence, f"t{sequence.original_id}", "other")

    def finish(posted: Posted) -> Reply:
        if len(lab.requests) == 10:
            for claim in list(lab.database.claims):
                if claim["worker"] == "other":
                    other.claims.release(claim["_id"])
        return echo(posted)

    lab.script = finish
    report = lab.run()
    assert report.tally[Outcome.TRANSCRIBED] == 100, "and what they released is done at the end"
    lab.assert_all_done()


def test_urgent_work_overtakes_the_plan(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_lib.pipeline.runner.REPLAN_SECONDS", 0.0)
    for number in range(40):
        lab.record([0], f"rec{number:03}.", start=START + timedelta(hours=number))

    def prioritise(posted: Posted) -> Reply:
        if len(lab.requests) == 5:
            lab.store().chunks.prioritize("rec003.", 1)
        return echo(posted)

    lab.script = prioritise
    assert lab.run().tally[Outcome.TRANSCRIBED] == 40
    at = [posted[0] for posted in lab.requests].index("rec003.0")
    assert 5 <= at <= 15
    lab.assert_all_done()


def test_what_cannot_be_written_is_tried_once_in_a_run(lab: Lab) -> None:
    """Its claim is released all the same."""
    lab.record([0], "rec-bad.")
    lab.record([0], "rec-good.", start=START + timedelta(hours=1))

    class Refusing(Network):
        def before(self, command: str) -> None:
            if command in ("save", "record failure") and lab.requests[-1][0] == "rec-bad.0":
                raise StoreError("a validator refuses the document")

    report = lab.runner(lab.store(network=Refusing())).run()
    assert (report.tally[Outcome.ERROR], report.tally[Outcome.TRANSCRIBED]) == (1, 1)
    assert len(lab.requests) == 2
    assert list(lab.database.claims) == []


def test_a_database_that_stays_away_ends_the_run(lab: Lab) -> None:
    lab.record(range(3))

    class Gone(Network):
        def before(self, command: str) -> None:
            if command == "load":
                raise Away("gone")

    report = lab.runner(lab.store(network=Gone())).run()
    assert isinstance(report.halted_by, StoreUnavailable)
    assert report.unfinished == 1


def test_a_watching_run_ends_in_time_though_mongodb_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.support.memory_store.STOPPING_SECONDS", 0.5)
    monkeypatch.setattr("stt_lib.pipeline.runner.AFTER_CUT_SECONDS", 0.5)
    lab = Lab(timing=REAL)
    lab.record(range(3))

    class Gone(Network):
        def before(self, command: str) -> None:
            if list(lab.database.transcripts) and not list(lab.database.claims):
                raise Away("gone")

    store = lab.store(mongo_wait=math.inf, network=Gone())
    runner = lab.runner(store, watch="0.1", max_runtime="1")
    reports: list[Report] = []
    running = threading.Thread(target=lambda: reports.append(runner.run()), daemon=True)
    running.start()
    running.join(30)
    lab.stop.set()
    assert [type(report.halted_by) for report in reports] == [StoreUnavailable]


def test_a_stop_lets_requests_finish_and_releases_the_rest(lab: Lab) -> None:
    for number in range(20):
        lab.record([0], f"rec{number}.", start=START + timedelta(hours=number))

    def stop(posted: Posted) -> Reply:
        lab.stop.set()
        return echo(posted)

    lab.script = stop
    report = lab.run(max_workers=1)
    assert report.stopped
    assert report.tally[Outcome.TRANSCRIBED] == 1
    assert len(lab.pending) == 19
    assert list(lab.database.claims) == []


def test_statistics_belong_to_the_run(lab: Lab) -> None:
    lab.record(range(4))
    lab.run()
    figures = lab.stats.figures()
    assert figures.chunks[Outcome.TRANSCRIBED] == 4
    assert figures.sequences[Outcome.TRANSCRIBED] == 1


def test_a_slot_that_is_granted_before_its_waiter_looks_is_not_lost(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another request ends just after a ticket has entered the line."""
    granted = ServerPool._granted

    def late(pool: ServerPool, waiter: Any) -> Slot:
        with pool._lock:
            pool._dispatch()
        return granted(pool, waiter)

    monkeypatch.setattr(ServerPool, "_granted", late)
    lab.record(range(3))
    lab.record(range(3), "rec-b")
    too_late = threading.Timer(20, lab.stop.set)
    too_late.start()
    report = lab.run(max_workers=1)
    too_late.cancel()
    assert not report.stopped
    lab.assert_all_done()

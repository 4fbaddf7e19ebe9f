"""One sequence from claim to mark, on a store in memory."""

import logging
import random
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest

from stt_lib.domain.models import ChunkSequence, Outcome
from stt_lib.errors import FailureKind, ServerTrouble, Stopped, StoreError, StoreUnavailable
from stt_lib.pipeline.heartbeat import Heartbeat
from stt_lib.servers.transport import Reply
from stt_lib.timing import Timing
from tests.pipeline.lab import Lab, Posted, answer, echo, refuse
from tests.support.manual_time import START, ManualTiming
from tests.support.memory_store import Away, Network
from tests.support.speech import spoken_chunks


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def heartbeat(lab: Lab) -> Iterator[Heartbeat]:
    """One that renews nothing unasked: the clock of these tests is moved by hand."""
    beat = Heartbeat(lab.store().claims, lease=60.0, timing=lab.timing)
    yield beat
    beat.stop()


def only(lab: Lab) -> ChunkSequence:
    [sequence] = lab.planned()
    return sequence


def failures(lab: Lab) -> dict[str, tuple[str, int, int]]:
    """Of each pending chunk: kind, failures of the audio, failures of servers."""
    return {
        chunk["_id"]: (
            chunk["stt"]["error"]["kind"],
            chunk["stt"].get("failures", 0),
            chunk["stt"].get("excuses", 0),
        )
        for chunk in lab.pending
        if "stt" in chunk
    }


# -- claims -----------------------------------------------------------------------------------


def test_a_sequence_that_somebody_holds_is_refused(lab: Lab) -> None:
    lab.record(range(3))
    sequence = only(lab)
    assert lab.store().claims.acquire(sequence, "other", "other")
    result = lab.process(sequence)
    assert (result.outcome, result.is_refused) == (Outcome.SKIPPED, True)
    assert not lab.requests


def test_a_stale_plan_is_harmless(lab: Lab) -> None:
    lab.record(range(3))
    sequence = only(lab)
    assert lab.process(sequence).outcome is Outcome.TRANSCRIBED
    result = lab.process(sequence)
    assert (result.outcome, result.is_settled) == (Outcome.SKIPPED, False)
    assert len(lab.requests) == 1
    lab.assert_all_done()


def test_what_a_dead_worker_saved_is_only_marked(lab: Lab) -> None:
    lab.record(range(3))
    sequence = only(lab)

    class DiesBeforeMarking(Network):
        def before(self, command: str) -> None:
            if command == "mark":
                raise Away("killed")

    with pytest.raises(StoreUnavailable):
        lab.process(sequence, store=lab.store(mongo_wait=0, network=DiesBeforeMarking()))
    assert [claim["worker"] for claim in lab.database.claims] != [], "nobody could release it"
    lab.timing.sleep(61)
    lab.store().claims.delete_expired()
    assert lab.process(sequence).outcome is Outcome.TRANSCRIBED
    assert len(lab.requests) == 1
    lab.assert_all_done()


def test_after_a_freeze_it_renews_and_loads_again_before_it_posts(
    lab: Lab, heartbeat: Heartbeat
) -> None:
    """A freeze between loading and posting, in which another worker does everything."""
    lab.record(range(3))
    sequence = only(lab)

    class Frozen(Network):
        def after(self, command: str) -> None:
            if command == "load" and not lab.requests:
                lab.timing.sleep(61)
                lab.store().claims.delete_expired()
                lab.process(sequence)

    result = lab.process(sequence, store=lab.store(network=Frozen()), heartbeat=heartbeat)
    assert (result.outcome, result.is_settled) == (Outcome.SKIPPED, False)
    assert len(lab.requests) == 1, "the other worker's"
    lab.assert_all_done()


def test_a_slow_load_that_nobody_used_only_renews(lab: Lab, heartbeat: Heartbeat) -> None:
    lab.record(range(3))
    loads: list[str] = []

    class Slow(Network):
        def after(self, command: str) -> None:
            if command == "load":
                loads.append(command)
                lab.timing.sleep(45 if len(loads) == 1 else 0)

    result = lab.process(only(lab), store=lab.store(network=Slow()), heartbeat=heartbeat)
    assert result.outcome is Outcome.TRANSCRIBED
    assert len(loads) == 2
    lab.assert_all_done()


def test_a_result_whose_claim_was_lost_is_dropped(lab: Lab, heartbeat: Heartbeat) -> None:
    lab.record(range(3))

    def freeze(posted: Posted) -> Reply:
        lab.timing.sleep(61)
        lab.store().claims.delete_expired()
        return echo(posted)

    lab.script = freeze
    assert lab.process(only(lab), heartbeat=heartbeat).outcome is Outcome.SKIPPED
    assert lab.transcripts == []
    assert len(lab.pending) == 3


def test_a_transcript_of_somebody_faster_wins(lab: Lab) -> None:
    """The database forbids a second one; its chunks are marked because they are owned."""
    lab.record(range(3))
    sequence = only(lab)
    others: list[Outcome] = []

    class TooLate(Network):
        def before(self, command: str) -> None:
            if command == "save" and not others:
                others.append(Outcome.SKIPPED)
                for claim in list(lab.database.claims):
                    lab.database.claims.remove(claim["_id"])
                others.append(lab.process(sequence).outcome)

    result = lab.process(sequence, store=lab.store(network=TooLate()))
    assert (others[-1], result.outcome) == (Outcome.TRANSCRIBED, Outcome.SKIPPED)
    lab.assert_all_done()


def test_the_claim_outlives_the_mark(lab: Lab) -> None:
    lab.record(range(3))
    order: list[str] = []

    class Watching(Network):
        def after(self, command: str) -> None:
            order.append(command)

    lab.process(only(lab), store=lab.store(network=Watching()))
    assert order == ["acquire", "load", "save", "mark", "release"]


def test_stopping_releases_the_claim(lab: Lab) -> None:
    lab.record(range(3))

    def stop(_: Posted) -> Reply:
        lab.stop.set()
        return refuse(503)

    lab.script = stop
    with pytest.raises(Stopped):
        lab.process(only(lab))
    assert list(lab.database.claims) == []
    assert failures(lab) == {}


# -- results ----------------------------------------------------------------------------------


def test_no_speech_is_marked_without_a_transcript(lab: Lab) -> None:
    lab.record(range(3))
    lab.script = lambda posted: answer([])
    assert lab.process(only(lab)).outcome is Outcome.EMPTY
    assert (lab.transcripts, lab.pending) == ([], [])


def test_text_that_the_filter_dropped_is_set_aside_before_the_mark(lab: Lab) -> None:
    lab.record([0])
    noise = {"start": 0.0, "end": 9.0, "text": " Thank you.", "no_speech_prob": 0.9}
    lab.script = lambda posted: answer([noise])
    order: list[str] = []

    class Watching(Network):
        def after(self, command: str) -> None:
            order.append(command)

    result = lab.process(only(lab), store=lab.store(network=Watching()), filter="strict")
    assert result.outcome is Outcome.EMPTY
    assert order[2:] == ["save dropped text", "mark", "release"]
    assert [t.dropped[0].segment.text for t in lab.store().dropped.all()] == [" Thank you."]


# -- failures ---------------------------------------------------------------------------------


def test_a_bad_chunk_is_found_and_costs_no_neighbour(lab: Lab) -> None:
    lab.record(range(8))
    lab.script = lambda posted: refuse(415) if "rec5" in posted else echo(posted)
    assert lab.process(only(lab)).outcome is Outcome.ERROR
    assert failures(lab) == {"rec-5": ("invalid_audio", 1, 0)}
    assert lab.text == [f"rec{n}" for n in range(8) if n != 5]
    assert list(lab.database.claims) == []


def test_chunks_that_cannot_be_posted_fail_alone(lab: Lab) -> None:
    lab.record([0, 2])
    lab.record([1], data="no bytes")
    assert lab.process(only(lab)).outcome is Outcome.ERROR
    assert failures(lab) == {"rec-1": ("invalid_chunk", 1, 0)}
    assert lab.text == ["rec0", "rec2"]


def test_half_a_chunk_is_transcribed_and_reported(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    speech = spoken_chunks("library")[0].data
    lab.record([0], data=speech)
    lab.record([1], data=speech[: len(speech) // 2])
    assert lab.process(only(lab)).outcome is Outcome.EMPTY
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert re.fullmatch(
        r"Chunk rec-1 is cut off or damaged: only its first [45]\.\d s can be heard", warning
    )


def test_a_broken_server_is_not_the_fault_of_the_audio(lab: Lab) -> None:
    lab.record(range(3))
    lab.script = lambda posted: refuse(502)
    lab.probe = lambda: refuse(502)
    assert lab.process(only(lab), retries=0).outcome is Outcome.ERROR
    assert set(failures(lab).values()) == {("server_error", 0, 1)}
    assert list(lab.database.claims) == []


def test_a_request_that_is_cut_off_at_the_end_of_a_run_has_not_failed(lab: Lab) -> None:
    lab.record(range(3))

    def cut_off(posted: Posted) -> Reply:
        lab.stop.set()
        raise ServerTrouble(FailureKind.CONNECTION, "the connection broke", "http://memory")

    lab.script = cut_off
    with pytest.raises(Stopped):
        lab.process(only(lab), retries=0)
    assert failures(lab) == {}
    assert list(lab.database.claims) == []


def test_a_chunk_that_makes_servers_crash_ends_up_alone(lab: Lab) -> None:
    """No answer says which chunk it is, and the servers are well with everything else."""
    lab.record(range(30))

    def crash(posted: Posted) -> Reply:
        if "rec7" in posted:
            raise ServerTrouble(FailureKind.CONNECTION, "the connection broke", "http://memory")
        return echo(posted)

    lab.script = crash
    for _ in range(7):
        assert lab.run(retries=0).halted_by is None
        for chunk in lab.pending:
            chunk["stt"]["retry_at"] = START
            lab.database.chunks.put(chunk)
    assert set(failures(lab)) == {"rec-7"}
    assert sorted(lab.text) == sorted(f"rec{n}" for n in range(30) if n != 7)
    assert list(lab.database.claims) == []


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """In real time, with pauses of milliseconds."""
    monkeypatch.setattr("stt_lib.servers.health.BUSY_BASE_SECONDS", 0.002)
    monkeypatch.setattr("stt_lib.servers.health.BUSY_MAX_SECONDS", 0.02)
    monkeypatch.setattr("stt_lib.servers.pool.POLL_SECONDS", 0.001)
    return Lab(timing=Timing())


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("others", [0, 10])
def test_audio_to_which_a_server_always_says_busy_does_not_block_the_backlog(
    brisk: Lab, workers: int, others: int
) -> None:
    """A gateway answers 503 when its server dies of one chunk; to all else it works."""
    brisk.record(range(8), start=START + timedelta(days=1))
    for number in range(others):
        brisk.record(range(2), f"recording{number}")
    brisk.script = lambda posted: refuse(503) if "rec5" in posted else echo(posted)
    report = brisk.run(max_workers=workers, server_wait=30.0)
    assert report.halted_by is None
    assert failures(brisk) == {"rec-5": ("server_error", 1, 0)}
    assert len(brisk.pending) == 1
    assert {f"rec{n}" for n in range(8) if n != 5} <= set(brisk.text)
    assert sum("rec5" in posted for posted in brisk.requests) < 40
    assert brisk.stats.figures().servers["http://memory"].errors.keys() == {"server_error"}


@pytest.mark.parametrize("wait", [None, "0"])
def test_nothing_is_blamed_when_a_server_is_too_busy_for_a_test_clip_as_well(
    brisk: Lab, wait: str | None
) -> None:
    brisk.record(range(3))
    full = Reply(503, {"retry-after": wait} if wait else {}, b"")
    refused = 0

    def full_for_long(posted: Posted) -> Reply:
        nonlocal refused
        refused += 1
        return full if refused <= 12 else echo(posted)

    brisk.script = full_for_long
    brisk.probe = lambda: full
    assert brisk.run(server_wait=30.0, max_workers=1).halted_by is None
    brisk.assert_all_done()
    assert len(brisk.requests) == 13


def test_nothing_is_blamed_when_each_request_meets_another_server(brisk: Lab) -> None:
    """A load balancer in front of servers that are full nine times out of ten."""
    rng = random.Random(1)
    for number in range(15):
        brisk.record([0], f"recording{number}", start=START + timedelta(hours=number))
    brisk.script = lambda posted: refuse(503) if rng.random() < 0.9 else echo(posted)
    brisk.probe = lambda: refuse(503) if rng.random() < 0.9 else answer([])
    assert brisk.run(max_workers=1, server_wait=60.0).halted_by is None
    assert failures(brisk) == {}
    brisk.assert_all_done()


def test_a_full_server_that_has_room_for_a_test_clip_is_asked_at_once(brisk: Lab) -> None:
    """It has room for the request as well, or says again that it is busy."""
    brisk.record(range(3))
    replies = iter([*(refuse(503) for _ in range(3)), Reply(503, {"retry-after": "0"}, b"")])
    brisk.script = lambda posted: next(replies, None) or echo(posted)
    assert brisk.process(only(brisk), retries=0).outcome is Outcome.TRANSCRIBED
    assert len(brisk.requests) == 5


def test_a_request_is_not_posted_again_once_the_run_is_stopped(brisk: Lab) -> None:
    brisk.record(range(3))
    brisk.script = lambda posted: refuse(503)

    def probed() -> Reply:
        brisk.stop.set()
        return answer([])

    brisk.probe = probed
    with pytest.raises(Stopped):
        brisk.process(only(brisk))
    assert len(brisk.requests) == 3


def test_a_defect_is_counted_on_each_chunk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.record(range(3))
    monkeypatch.setattr("stt_lib.filtering.judge", lambda *_: 1 / 0)
    assert lab.process(only(lab)).outcome is Outcome.ERROR
    assert set(failures(lab).values()) == {("internal", 1, 0)}


def test_one_chunk_that_cannot_be_written_costs_no_neighbour(lab: Lab) -> None:
    """The log has its error; the others fail as usual; no claim is left."""
    lab.record(range(3))
    written: list[str] = []

    class Refusing(Network):
        def before(self, command: str) -> None:
            if command == "save":
                raise StoreError("a validator refuses the transcript")
            if command == "record failure":
                written.append(command)
                if len(written) == 2:
                    raise StoreError("a validator refuses the chunk")

    result = lab.process(only(lab), store=lab.store(network=Refusing()))
    assert (result.outcome, result.is_settled) == (Outcome.ERROR, False)
    assert len(failures(lab)) == 2
    assert list(lab.database.claims) == []


def test_time_is_injected() -> None:
    """Nothing of this waits for real: an hour passes in the test's own clock."""
    lab = Lab(timing=ManualTiming(seed=7))
    lab.record(range(2))

    def slow(posted: Posted) -> Reply:
        lab.timing.sleep(3600)
        return echo(posted)

    lab.script = slow
    assert lab.process(only(lab), lease=3 * 3600.0, store=lab.store(lease=3 * 3600)).seconds == 3600

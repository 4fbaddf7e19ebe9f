"""Several servers: who gets what, what happens when one of them is in trouble, and rates."""

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from stt_lib.domain.models import Chunk
from stt_lib.errors import FailureKind, ServerBusy, ServerMisconfigured, ServerTrouble
from stt_lib.servers.health import BUSY_BASE_SECONDS
from stt_lib.servers.pool import ServerPool
from stt_lib.timing import Timing
from tests.pipeline.lab import Lab, refuse
from tests.pipeline.lab import echo as respond
from tests.support.manual_time import ManualTiming
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import World


@pytest.fixture
def second() -> Iterator[FakeWhisper]:
    fake = FakeWhisper()
    yield fake
    fake.stop()


def both(whisper: FakeWhisper, second: FakeWhisper) -> list[str]:
    return ["--server", whisper.url, "--server", second.url]


def slow(seconds: float, whisper: FakeWhisper) -> None:
    whisper.script = lambda request: (whisper.released.wait(seconds), echo(request))[1]


def backlog(world: World, count: int) -> None:
    for number in range(count):
        world.record(range(2), original_id=number)


def test_two_servers_share_the_work(
    world: World, whisper: FakeWhisper, second: FakeWhisper
) -> None:
    backlog(world, 20)
    slow(0.05, whisper)
    slow(0.05, second)
    assert world.run(*both(whisper, second), "--max-workers", "4").returncode == 0
    assert len(whisper.requests) + len(second.requests) == 20
    assert min(len(whisper.requests), len(second.requests)) >= 5
    world.assert_all_done()


def test_the_faster_server_gets_more(
    world: World, whisper: FakeWhisper, second: FakeWhisper
) -> None:
    backlog(world, 40)
    slow(0.02, whisper)
    slow(0.4, second)
    assert world.run(*both(whisper, second), "--max-workers", "2").returncode == 0
    assert len(whisper.requests) > 3 * len(second.requests)


def test_a_failed_request_is_retried_on_another_server_first(
    world: World, whisper: FakeWhisper, second: FakeWhisper
) -> None:
    backlog(world, 1)
    whisper.script = lambda _: Reply(raw=b"")
    patient = ["--backoff-base", "100", "--backoff-max", "100"]  # the other one is free at once
    assert world.run(*both(whisper, second), *patient, seconds=40).returncode == 0
    assert len(whisper.requests) == 1
    assert len(second.requests) == 1
    world.assert_all_done()


def test_one_server_down_of_two_costs_nothing_but_its_share(
    world: World, whisper: FakeWhisper
) -> None:
    backlog(world, 10)
    done = world.run("--server", "http://127.0.0.1:9", "--server", whisper.url)
    assert done.returncode == 0
    assert len(whisper.sequences) == 10
    assert done.stderr.count("rests until") < 8
    world.assert_all_done()


def test_a_server_that_is_back_gets_requests_though_others_have_more_room() -> None:
    lab = Lab()
    pool = lab.pool(lab.settings(server_url="http://well,http://back", max_workers=8))
    back = pool.servers[1]
    back.failed(ServerTrouble(FailureKind.CONNECTION, "refused", back.name), certain=True)
    back.answered()
    with ExitStack() as slots:
        used = [slots.enter_context(pool.slot(n, audio=1.0)).server for n in range(2)]
    assert back in used


def test_a_server_with_the_wrong_key_is_left_out_and_named_once(
    world: World, whisper: FakeWhisper, second: FakeWhisper
) -> None:
    backlog(world, 10)
    whisper.script = lambda _: status(401)
    done = world.run(*both(whisper, second), "--max-workers", "2")
    assert done.returncode == 0
    assert done.stderr.count("is out for this run") == 1
    assert "STT_API_KEY" in done.stderr
    world.assert_all_done()


@pytest.mark.parametrize("status", [401, 404])
def test_a_server_that_has_answered_is_tried_again_whatever_is_wrong_with_it(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Its container is being replaced, and the proxy in front of it knows no address so far."""
    monkeypatch.setattr("stt_lib.servers.health.FIRST_REST_SECONDS", 0.002)
    monkeypatch.setattr("stt_lib.servers.pool.POLL_SECONDS", 0.001)
    lab = Lab(timing=Timing())
    for number in range(4):
        lab.record(range(2), f"recording{number}")
    replies = iter([None, refuse(status), refuse(status)])
    lab.script = lambda posted: next(replies, None) or respond(posted)
    lab.probe = lambda: next(replies, None) or respond(("probe",))
    report = lab.run(max_workers=1, server_wait=30.0)
    assert (report.halted_by, len(lab.requests)) == (None, 5)
    lab.assert_all_done()


def test_a_wrong_answer_without_any_right_one_before_ends_the_use_of_a_server() -> None:
    lab = Lab()
    pool = lab.pool(lab.settings())
    [server] = pool.servers
    wrong = ServerMisconfigured(FailureKind.WRONG_SERVER, "no", server.name)
    pool._trouble(server, wrong, certain=False, seconds=0.0)
    assert server.misconfigured
    assert is_outage(pool)


def test_a_decoder_that_is_missing_here_ends_the_use_of_a_server_that_has_answered() -> None:
    """It transcribes test clips all the same, and would be back each time."""
    lab = Lab()
    pool = lab.pool(lab.settings())
    [server] = pool.servers
    pool._answered(server)
    missing = ServerMisconfigured(FailureKind.REJECTED, "pip install av", server.name)
    pool._trouble(server, missing, certain=False, seconds=0.0)
    assert is_outage(pool)


def test_the_log_says_when_a_server_rests_until_when_and_when_it_is_back(
    world: World, whisper: FakeWhisper
) -> None:
    backlog(world, 6)
    seen: list[Request] = []

    def trouble_at_first(request: Request) -> Reply:
        seen.append(request)
        return Reply(raw=b"") if len(seen) <= 3 else echo(request)

    whisper.script = trouble_at_first
    assert world.run().returncode == 0
    assert world.log.count("rests until ") == 1
    assert world.log.count("answers again") == 1
    trial = whisper.requests[3]
    assert trial.is_probe, "one real transcription decides"
    world.assert_all_done()


def test_server_max_bounds_each_server(
    world: World, whisper: FakeWhisper, second: FakeWhisper
) -> None:
    backlog(world, 16)
    slow(0.1, whisper)
    slow(0.1, second)
    done = world.run(*both(whisper, second), "--max-workers", "8", "--server-max", "2")
    assert done.returncode == 0
    assert whisper.max_in_flight <= 2
    assert second.max_in_flight <= 2


def test_a_server_that_refuses_too_many_at_once_gets_fewer(
    world: World, whisper: FakeWhisper
) -> None:
    backlog(world, 60)
    at_work: list[Request] = []

    def two_at_a_time(request: Request) -> Reply:
        with whisper.changed:
            if len(at_work) >= 2:
                return status(503, Retry_After="0")
            at_work.append(request)
        whisper.released.wait(0.25)  # much longer than answers are delayed on a busy machine
        with whisper.changed:
            at_work.remove(request)
        return echo(request)

    whisper.script = two_at_a_time
    assert world.run("--max-workers", "12", "--retries", "0", seconds=90).returncode == 0
    world.assert_all_done()
    refused = len(whisper.sequences) - 60
    assert refused < 40


@pytest.mark.parametrize(
    ("option", "rate"), [("--rate-limit", "5"), ("--rate-limit", "300/m"), ("--audio-rate", "100")]
)
def test_rates_are_kept_smoothly(
    world: World, whisper: FakeWhisper, option: str, rate: str
) -> None:
    """Five requests a second; or a hundred hours an hour, which are 5 of 20 s in a second."""
    backlog(world, 10)
    assert world.run(option, rate, "--max-workers", "8").returncode == 0
    starts = [request.started for request in whisper.requests]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert sum(gaps) >= 9 * 0.2 - 0.4
    assert sorted(gaps)[2] > 0.05, "no bursts"


def test_a_rate_does_not_hold_up_a_stop(world: World, whisper: FakeWhisper) -> None:
    backlog(world, 5)
    process = world.start("--rate-limit", "1/h")
    whisper.wait_for(lambda: len(whisper.requests) == 1)
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 143
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("key", ["ключ", "two\nlines", "one\r", "\n"])
def test_an_api_key_that_no_header_can_carry_is_refused_before_any_request(
    world: World, whisper: FakeWhisper, key: str
) -> None:
    backlog(world, 1)
    done = world.run(env={"STT_API_KEY": key})
    assert done.returncode == 2
    assert whisper.requests == []
    assert "STT_API_KEY" in done.stderr
    assert key.strip() == "" or key not in done.stderr + world.log


def test_busy_answers_are_no_failures_of_the_server(world: World, whisper: FakeWhisper) -> None:
    backlog(world, 2)
    replies = [status(429, Retry_After="0"), status(503, Retry_After="0")]
    whisper.script = lambda request: replies.pop() if replies else echo(request)
    assert world.run().returncode == 0
    assert "| 2 answers |" in world.log
    assert "failed: busy" not in world.log


def test_audio_that_was_never_sent_is_no_failure_of_the_server(
    world: World, whisper: FakeWhisper
) -> None:
    backlog(world, 1)
    done = world.run("--server", f"openai+{whisper.url}")
    assert done.returncode == 1
    assert whisper.requests == []
    assert "Summary: server" not in world.log


def test_a_request_at_a_server_that_has_gone_is_still_in_flight() -> None:
    lab = Lab()
    pool = lab.pool(dataclasses.replace(lab.settings(), server_url=()))
    pool.follow("name", ["http://memory"])
    with pool.slot(1, audio=1.0):
        pool.follow("name", [])
        assert pool.in_flight == 1
    assert pool.in_flight == 0


class Stepwise(ManualTiming):
    """Whoever waits for an event takes the next step of the test instead."""

    steps: Iterator[Callable[[], None]]

    def event(self) -> threading.Event:
        timing = self

        class Event(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                next(timing.steps)()
                return self.is_set()

        return Event()


def test_an_outage_does_not_end_a_run_that_has_just_found_a_server() -> None:
    """Also if nobody can post to it yet: the first in line is still loading its audio."""
    timing = Stepwise()
    lab = Lab(timing=timing)
    pool = lab.pool(dataclasses.replace(lab.settings(server_wait=10.0), server_url=()))
    timing.steps = iter(
        [
            lambda: timing.sleep(9.0),
            lambda: pool.follow("name", ["http://memory"]),
            lambda: timing.sleep(9.0),
            lambda: pool.step_out(1),
        ]
    )
    pool.line_up(1)
    with pool.slot(2, audio=1.0) as slot:
        assert slot.server.url == "http://memory"


def is_outage(pool: ServerPool) -> bool:
    with pool._lock:
        return pool._is_outage()


@pytest.mark.parametrize("order", ["refused answered", "answered refused"])
def test_a_long_pause_is_an_outage_whichever_answer_came_last(order: str) -> None:
    lab = Lab()
    pool = lab.pool(lab.settings(server_wait=60.0))
    [server] = pool.servers
    busy = ServerBusy("busy", server.name, 3600.0)
    for event in order.split():
        if event == "answered":
            pool._answered(server)
        else:
            pool._trouble(server, busy, certain=False, seconds=0.1)
    assert not is_outage(pool)
    lab.timing.sleep(59.9)
    assert not is_outage(pool)
    lab.timing.sleep(0.1)
    assert is_outage(pool)


def test_no_outage_began_with_a_busy_answer_before_a_long_request() -> None:
    lab = Lab()
    pool = lab.pool(lab.settings(server_wait=60.0))
    [server] = pool.servers
    busy = ServerBusy("busy", server.name, None)
    late = ServerTrouble(FailureKind.TIMEOUT, "too late", server.name)
    for error in (busy, late, busy):
        pool._trouble(server, error, certain=False, seconds=0.0)
        assert not is_outage(pool)
        lab.timing.sleep(96.0)
    assert is_outage(pool)


def test_refusals_of_slots_that_were_granted_together_count_as_one() -> None:
    """Whenever their threads get to run."""
    lab = Lab()
    lab.script = lambda posted: refuse(503)
    pool = lab.pool(lab.settings(max_workers=8))
    [server] = pool.servers
    limits = []
    audio = [Chunk(0, 0, lab.timing.now(), b"rec0", "opus", 10.0)]
    with pool.slot(1, audio=10.0) as one, pool.slot(2, audio=10.0) as other:
        for slot in (one, other):
            lab.timing.sleep(0.1)
            with pytest.raises(ServerBusy):
                pool.transcribe(slot, audio)
            limits.append(server.limit.value)
    assert limits[0] == limits[1] < 8
    assert server.takes_requests(lab.timing.monotonic() + BUSY_BASE_SECONDS)


URL = "http://memory"


@pytest.fixture
def followed() -> tuple[ServerPool, ManualTiming]:
    """A pool whose servers are addresses of a name, and its clock."""
    timing = ManualTiming()
    lab = Lab(timing=timing)
    settings = lab.settings(max_workers=8, server_max=2)
    return lab.pool(dataclasses.replace(settings, server_url=())), timing


def test_server_max_holds_for_an_address_that_comes_and_goes(
    followed: tuple[ServerPool, ManualTiming],
) -> None:
    pool, timing = followed
    with ExitStack() as slots:
        for look in range(3):
            pool.follow("name", [URL])
            [server] = pool.servers
            if look == 0:
                slots.enter_context(pool.slot(1, audio=1.0))
                slots.enter_context(pool.slot(2, audio=1.0))
            assert not server.takes_requests(timing.monotonic())
            pool.follow("name", [])
        assert pool.in_flight == 2
    pool.follow("name", [URL])
    assert pool.servers == [server]
    assert server.in_flight == 0


@pytest.mark.parametrize(
    ("trouble", "seconds"),
    [(ServerBusy("busy", URL, 60.0), 60.0), (ServerTrouble(FailureKind.CONNECTION, "", URL), 1.0)],
)
def test_an_address_that_comes_back_is_still_left_alone_until_its_pause_or_rest_ends(
    followed: tuple[ServerPool, ManualTiming], trouble: ServerTrouble, seconds: float
) -> None:
    pool, timing = followed
    pool.follow("name", [URL])
    [server] = pool.servers
    pool._trouble(server, trouble, certain=True, seconds=0.1)
    for urls in ([], [], [URL]):
        pool.follow("name", urls)
    assert pool.servers == [server]
    timing.sleep(seconds)
    for urls in ([], [URL]):
        pool.follow("name", urls)
    assert pool.servers != [server], "nothing is kept for ever"

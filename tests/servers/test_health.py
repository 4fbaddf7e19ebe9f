"""One server's health, on a clock that is moved by hand."""

import pytest

from stt_lib.errors import FailureKind, ServerBusy, ServerTrouble
from stt_lib.servers.diagnosis import retry_after
from stt_lib.servers.health import THRESHOLD, Server
from tests.support.manual_time import ManualTiming


@pytest.fixture
def timing() -> ManualTiming:
    return ManualTiming()


@pytest.fixture
def server(timing: ManualTiming) -> Server:
    return Server(
        "transcribe", "http://stt", ceiling=1, workers=1, timeout=lambda _: 5.0, timing=timing
    )


def test_a_resting_server_that_is_busy_is_not_tried_again_before_its_pause_ends(
    server: Server, timing: ManualTiming
) -> None:
    server.failed(ServerTrouble(FailureKind.CONNECTION, "refused", "stt"), certain=True)
    timing.sleep(60.0)
    assert server.wants_trial(timing.monotonic())
    server.failed(ServerBusy("busy", "stt", 5.0))
    assert not server.wants_trial(timing.monotonic())
    timing.sleep(5.0)
    assert server.wants_trial(timing.monotonic())


@pytest.mark.parametrize(
    ("unreachable", "seconds", "longest"),
    [(True, 0.0, 2.0), (True, 0.5, 5.0), (True, 5.0, 30.0), (False, 0.0, 30.0)],
)
def test_a_server_where_nobody_listens_is_tried_again_sooner_unless_a_trial_takes_long(
    server: Server, timing: ManualTiming, unreachable: bool, seconds: float, longest: float
) -> None:
    trouble = ServerTrouble(FailureKind.CONNECTION, "refused", "stt")
    trouble.unreachable = unreachable
    rests = []
    for _ in range(20):
        server.failed(trouble, certain=True, seconds=seconds)
        began = timing.monotonic()
        while not server.wants_trial(timing.monotonic()):
            timing.sleep(0.1)
        rests.append(timing.monotonic() - began)
    assert longest / 2 <= max(rests) <= longest + 0.1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Sun, 01 Mar 2026 08:02:00 GMT", 120.0),
        ("Sunday, 01-Mar-26 08:02:00 GMT", 120.0),
        ("Sun, 01 Mar 2026 08:02:00 -0000", 120.0),
        ("Fri, 01 Mar 2126 08:00:00 GMT", 3600.0),
        ("999999999", 3600.0),
        (500 * "9", 3600.0),
    ],
)
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
    server: Server, value: str, seconds: float
) -> None:
    """A date is compared with the clock of the run, which a simulation replaces."""
    server.failed(ServerBusy("busy", "stt", retry_after(value)))
    assert not server.takes_requests(seconds - 0.1)
    assert server.takes_requests(seconds)


@pytest.mark.parametrize("value", [" 0 ", "Sun, 01 Mar 2026 07:00:00 GMT"])
def test_a_busy_server_that_asks_for_no_pause_is_not_hammered(
    server: Server, timing: ManualTiming, value: str
) -> None:
    tried = 0
    while timing.monotonic() < 60.0:
        if server.takes_requests(timing.monotonic()):
            server.failed(ServerBusy("busy", "stt", retry_after(value)))
            tried += 1
        timing.sleep(0.1)
    assert tried < 10


@pytest.mark.parametrize(
    "value",
    [
        *(None, "soon", "-5", "", "1.5", "Sun, 31 Feb 2026 08:00:00 GMT"),
        f"Sun, 01 Mar {20 * '9'} 08:02:00 GMT",
        f"Sun, 01 Mar 2026 08:02:00 +{20 * '9'}",
    ],
)
def test_a_retry_after_that_makes_no_sense_is_ignored(value: str | None) -> None:
    assert retry_after(value) is None


def test_refusals_of_requests_sent_before_a_pause_began_are_one(
    server: Server, timing: ManualTiming
) -> None:
    """Twelve workers that find a server full have not been refused twelve times in a row."""
    timing.sleep(0.1)
    for _ in range(12):
        server.failed(ServerBusy("busy", "stt", None), seconds=0.1)
    assert server.takes_requests(timing.monotonic() + 1.0)
    server.failed(ServerBusy("busy", "stt", 20.0), seconds=0.1)
    assert not server.takes_requests(timing.monotonic() + 19.9)


def test_an_answer_ends_a_pause_for_which_the_server_has_not_asked(
    server: Server, timing: ManualTiming
) -> None:
    server.failed(ServerBusy("busy", "stt", None))
    assert not server.takes_requests(timing.monotonic())
    server.answered()
    assert server.takes_requests(timing.monotonic())
    server.failed(ServerBusy("busy", "stt", 20.0))
    server.answered()
    assert not server.takes_requests(timing.monotonic() + 19.9)


def test_a_server_that_has_asked_for_a_pause_does_not_serve_until_it_ends(
    server: Server, timing: ManualTiming
) -> None:
    """Also when requests that were sent before are answered meanwhile."""
    server.failed(ServerBusy("busy", "stt", 20.0))
    server.answered()
    timing.sleep(19.9)
    assert not server.serves
    timing.sleep(0.1)
    assert server.serves


def test_a_pause_that_is_much_longer_than_the_last_one_logged_is_logged(
    server: Server, timing: ManualTiming
) -> None:
    """Whatever came before it; but a server that asks for a minute again and again is not."""
    timing.sleep(1.0)

    def is_logged(asked: float | None) -> bool:
        return server.failed(ServerBusy("busy", "stt", asked), seconds=1.0) is not None

    assert [is_logged(asked) for asked in (5.0, None, 20.0)] == [True, False, False]
    server.answered()
    assert [is_logged(asked) for asked in (600.0, 600.0, 60.0)] == [True, False, False]
    timing.sleep(3600.0)
    server.answered()
    assert [is_logged(asked) for asked in (5.0, 60.0, 60.0)] == [True, True, False]


def test_after_trouble_that_is_not_busy_the_breaker_decides_whether_it_serves(
    server: Server, timing: ManualTiming
) -> None:
    served = []
    for _ in range(THRESHOLD):
        server.failed(ServerBusy("busy", "stt", None))
        assert not server.serves
        timing.sleep(1.0)
        server.failed(ServerTrouble(FailureKind.TIMEOUT, "too late", "stt"))
        served.append(server.serves)
    assert served == [True, True, False]

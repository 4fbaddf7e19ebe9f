"""One server's health, on a clock that is moved by hand."""

from stt_lib.errors import FailureKind, ServerBusy, ServerTrouble
from stt_lib.servers.health import Server
from tests.support.manual_time import ManualTiming


def test_a_resting_server_that_is_busy_is_not_tried_again_before_its_pause_ends() -> None:
    timing = ManualTiming()
    server = Server(
        "transcribe", "http://stt", ceiling=1, workers=1, timeout=lambda _: 5.0, timing=timing
    )
    server.failed(ServerTrouble(FailureKind.CONNECTION, "refused", "stt"), certain=True)
    timing.sleep(60.0)
    assert server.wants_trial(timing.monotonic())
    server.failed(ServerBusy("busy", "stt", 5.0))
    assert not server.wants_trial(timing.monotonic())
    timing.sleep(5.0)
    assert server.wants_trial(timing.monotonic())

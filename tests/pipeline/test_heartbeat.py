"""Claims are renewed together, and a lost one is noticed."""

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack

import pytest

from stt_lib.errors import ClaimLost, StoreError
from stt_lib.pipeline.heartbeat import Heartbeat
from stt_lib.store.claims import Claims
from stt_lib.timing import REAL
from tests.support.crew import eventually
from tests.support.manual_time import ManualTiming


class FakeClaims(Claims):
    """Remembers which tokens were renewed together; `gone` ones no longer exist."""

    def __init__(self) -> None:
        self.renewals: list[frozenset[str]] = []
        self.gone: set[str] = set()
        self.error: Exception | None = None

    def renew(self, tokens: Collection[str]) -> frozenset[str]:
        self.renewals.append(frozenset(tokens))
        if self.error is not None:
            raise self.error
        return frozenset(self.gone & set(tokens))

    def release(self, token: str) -> None:
        self.gone.add(token)


@pytest.fixture
def claims() -> FakeClaims:
    return FakeClaims()


@pytest.fixture
def beating(claims: FakeClaims) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat(claims, lease=0.03, timing=REAL)
    yield heartbeat
    heartbeat.stop()


def test_everything_that_is_held_is_renewed_by_one_call(
    claims: FakeClaims, beating: Heartbeat
) -> None:
    with ExitStack() as stack:
        for token in ("a", "b", "c"):
            stack.enter_context(beating.hold(token, REAL.boot_time()))
        eventually(lambda: frozenset("abc") in claims.renewals, 5, "a renewal")
    claims.renewals.clear()
    assert not beating.is_fresh("a")


def test_a_lost_claim_is_logged_once_and_renewed_no_more(
    claims: FakeClaims, beating: Heartbeat, caplog: pytest.LogCaptureFixture
) -> None:
    claims.gone.add("a")
    with (
        caplog.at_level(logging.WARNING, "stt"),
        beating.hold("a", REAL.boot_time()),
        beating.hold("b", REAL.boot_time()),
    ):
        eventually(lambda: claims.renewals.count(frozenset("b")) > 2, 5, "renewals of the other")
        assert not beating.is_fresh("a")
        with pytest.raises(ClaimLost):
            beating.refresh("a")
    assert len([r for r in caplog.records if "Lost 1 of 2 claims" in r.message]) == 1


def test_a_claim_that_was_released_during_a_renewal_is_not_lost(
    claims: FakeClaims, caplog: pytest.LogCaptureFixture
) -> None:
    heartbeat = Heartbeat(claims, lease=600)
    try:
        with caplog.at_level(logging.WARNING, "stt"):
            with heartbeat.hold("a", REAL.boot_time()):
                pass
            claims.release("a")
            heartbeat._renew(["a"])
        assert not caplog.records
    finally:
        heartbeat.stop()


def test_a_renewal_that_fails_is_logged_and_repeated(
    claims: FakeClaims, beating: Heartbeat, caplog: pytest.LogCaptureFixture
) -> None:
    claims.error = StoreError("no")
    with caplog.at_level(logging.WARNING, "stt"), beating.hold("a", REAL.boot_time()):
        eventually(lambda: len(claims.renewals) > 2, 5, "more renewals")
    assert "Claims could not be renewed: no" in caplog.messages


def test_a_claim_is_relied_on_for_two_thirds_of_its_lease(claims: FakeClaims) -> None:
    timing = ManualTiming()
    heartbeat = Heartbeat(claims, lease=60.0, timing=timing)
    try:
        with heartbeat.hold("token", timing.boot_time()):
            timing.sleep(39)
            assert heartbeat.is_fresh("token")
            timing.sleep(2)  # as after a freeze: nobody renewed it
            assert not heartbeat.is_fresh("token")
            assert heartbeat.refresh("token")
            assert heartbeat.is_fresh("token")
        assert not heartbeat.is_fresh("token")
    finally:
        heartbeat.stop()

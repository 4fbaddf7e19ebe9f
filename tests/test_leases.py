"""When a claim may be relied on without asking MongoDB again."""

import pytest

from stt_lib.domain.models import Claim
from stt_lib.pipeline import heartbeat
from stt_lib.pipeline.heartbeat import Leases
from stt_lib.store import Store


def test_a_claim_is_relied_on_for_two_thirds_of_its_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(heartbeat, "moment", lambda: now)
    held = Leases(store, interval=20.0)  # a lease of 60 s
    claim = Claim("token", "recording", ())
    try:
        with held.hold(claim, taken=now):
            assert held.is_fresh("token")
            now += 39
            assert held.is_fresh("token")
            now += 2  # as after a freeze: nobody renewed it
            assert not held.is_fresh("token")
        assert not held.is_fresh("token")
    finally:
        held.stop()

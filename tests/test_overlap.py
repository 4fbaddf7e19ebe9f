"""Runs that start in the same second share the work without getting in each other's way."""

import time
from datetime import timedelta

from tests.support.crew import Crew
from tests.support.whisper import FakeWhisper, Reply, Request, echo
from tests.support.world import START, World

RUNS = 8
SEQUENCES = 240
REQUEST_SECONDS = 0.4
"""Much longer than a claim takes on a busy machine, as real requests are."""


def test_eight_runs_started_together_are_refused_one_claim_in_ten_at_most(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(SEQUENCES):
        world.record([0, 1], original_id=number, start=START + timedelta(hours=number))

    def script(request: Request) -> Reply:
        time.sleep(REQUEST_SECONDS)
        return echo(request)

    whisper.script = script
    with Crew() as crew:
        hands = [crew.start(world, "--max-workers", "2", "--verbose") for _ in range(RUNS)]
        assert [hand.end(120) for hand in hands] == [0] * RUNS, hands[0].console
        refused = sum(hand.log.count("another worker has it") for hand in hands)
        stale = sum(hand.log.count("nothing is left to do") for hand in hands)
    assert refused <= SEQUENCES / 10, (refused, stale)
    assert stale <= SEQUENCES / 10, (refused, stale)
    assert len(whisper.sequences) == SEQUENCES
    world.assert_all_done()

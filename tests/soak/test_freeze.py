"""A worker that is frozen for longer than its lease, and wakes up when another has taken over."""

from contextlib import ExitStack
from typing import Any

import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import Size, Worlds
from tests.support.crew import Crew, Hand, eventually
from tests.support.promises import assert_intact, assert_kept
from tests.support.whisper import FakeWhisper, Reply, Request, echo, faulty
from tests.support.world import START, World

STEPS = ("posting", "saving", "saved")
ALL_STEPS = (*STEPS, "claimed", "answered", "marked")
SKIPS = frozenset({"posting", "answered", "saving"})
"""Frozen there, it has posted, but the other worker's transcript is the first one."""


def _freeze(step: str, world: World, server: FakeWhisper, crew: Crew) -> Hand:
    arguments = ("--max-workers", "1", "--lease", "3", "--limit", "1")
    if step != "posting":
        return crew.start_halting(world, step, "freeze", *arguments)
    server.gate.clear()
    hand = crew.start(world, *arguments)
    server.wait_for(lambda: len(server.requests) == 1, 20)
    hand.freeze()
    return hand


def _wait_until_frozen(hand: Hand) -> None:
    eventually(lambda: hand.is_frozen, 30, "the worker is frozen")


def _expire_claims(world: World) -> None:
    """What waiting for the end of the lease does, too; in another test we really wait."""
    world.claims.update_many({}, {"$set": {"until": START}})


@pytest.mark.timeout(120)
def test_a_worker_frozen_past_its_lease_changes_nothing_when_it_wakes_up(
    mongod: Mongod, worlds: Worlds, crew: Crew, size: Size
) -> None:
    steps = size.of(STEPS, ALL_STEPS)
    with ExitStack() as stack:
        servers = {step: stack.enter_context(faulty()) for step in steps}
        of_step = {step: worlds(mongod.uri, servers[step].url) for step in steps}
        frozen = {}
        for step, world in of_step.items():
            world.record(range(5))
            frozen[step] = _freeze(step, world, servers[step], crew)
        for step, hand in frozen.items():
            _wait_until_frozen(hand)
            servers[step].gate.set()
        others = {step: crew.start(world, "--lease", "3") for step, world in of_step.items()}
        for step, hand in others.items():
            assert hand.end() == 0, f"{step}: {hand.console}"
            assert_kept(of_step[step])
        transcripts = {step: _transcripts(world) for step, world in of_step.items()}
        for hand in frozen.values():
            hand.thaw()
        for step, hand in frozen.items():
            assert hand.end() == 0, f"{step}: {hand.console}"
            assert_kept(of_step[step])
            assert _transcripts(of_step[step]) == transcripts[step], step
            assert _was_skipped_with_a_warning(hand) == (step in SKIPS), f"{step}: {hand.log}"
            posts = set(servers[step].posts().values())
            assert posts == ({2} if step in SKIPS else {1}), step


def _transcripts(world: World) -> list[dict[str, Any]]:
    return list(world.transcriptions.find({}, sort=[("_id", 1)]))


def _was_skipped_with_a_warning(hand: Hand) -> bool:
    return any(
        "WARNING" in line and "Skipped sequence" in line and "result dropped" in line
        for line in hand.log.splitlines()
    )


@pytest.mark.timeout(120)
def test_a_late_transcript_that_comes_first_is_kept_and_the_other_one_dropped(
    mongod: Mongod, worlds: Worlds, crew: Crew
) -> None:
    """It wakes up while the other, which claimed more chunks, still waits for its answer.

    What the other one claimed beyond becomes free again, and is transcribed by the same run.
    """
    with faulty() as server:
        world = worlds(mongod.uri, server.url)
        recording = world.record(range(5))
        late = _freeze("saving", world, server, crew)
        _wait_until_frozen(late)
        _expire_claims(world)
        world.record(range(5, 8), original_id=recording)
        server.gate.clear()
        other = crew.start(world, "--lease", "3")
        eventually(lambda: _is_posting_all(server, 8), 30, "a request of all eight chunks")
        late.thaw()
        assert late.end() == 0, late.console
        assert_intact(world)
        assert world.transcriptions.count_documents({}) == 1
        server.gate.set()
        assert other.end() == 0, other.console
        assert_kept(world)
        assert not _was_skipped_with_a_warning(late), "what it saved counts, and is marked"
        assert _was_skipped_with_a_warning(other)
        # The last of the first five goes along once more: as context of the other three.
        assert sorted(server.posts().values()) == [2] * 7 + [3]


def _is_posting_all(server: FakeWhisper, chunks: int) -> bool:
    return any(len(visit.chunks) == chunks for visit in server.sequences)


@pytest.mark.timeout(60)
def test_audio_whose_claim_was_lost_is_not_posted_again(
    mongod: Mongod, worlds: Worlds, crew: Crew, whisper: FakeWhisper
) -> None:
    """The request fails, and meanwhile another worker has transcribed the chunks."""
    world = worlds(mongod.uri, whisper.url)
    world.record(range(5))

    def take_over_and_fail(request: Request) -> Reply:
        if len(whisper.requests) > 1:
            return echo(request)
        world.chunks.update_many({}, {"$set": {"transcribed_at": START}, "$unset": {"stt": ""}})
        world.claims.delete_many({})
        eventually(lambda: "their results will be dropped" in hands[0].log, 20, "the loss noticed")
        return Reply(raw=b"")  # the connection breaks

    whisper.script = take_over_and_fail
    hands = [crew.start(world, "--lease", "3")]
    [hand] = hands
    code = hand.end()
    assert code == 0, hand.console
    assert len(whisper.sequences) == 1
    assert _was_skipped_with_a_warning(hand)

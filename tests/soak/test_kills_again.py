"""The worker dies at any step of doing transcripts again, and the next run finishes the job."""

from contextlib import ExitStack

import pytest

from stt_lib.local.mongod import Mongod
from tests.soak.conftest import Worlds
from tests.support.again import assert_all_new, heard_new, history, texts, transcribed
from tests.support.crew import Crew
from tests.support.halting import AGAIN_POINTS
from tests.support.whisper import running

ARGUMENTS = ("--retranscribe", "model!=large-v3", "--max-workers", "1", "--lease", "3")
REPLACED = frozenset({"replaced"})
"""Where the new text is there: nothing may be posted again."""


@pytest.mark.timeout(120)
def test_after_a_kill_at_any_step_the_next_run_replaces_each_transcript_once(
    mongod: Mongod, worlds: Worlds, crew: Crew
) -> None:
    with ExitStack() as stack:
        servers = {step: stack.enter_context(running(heard_new)) for step in AGAIN_POINTS}
        of_step = {step: worlds(mongod.uri, servers[step].url) for step in AGAIN_POINTS}
        ids = {step: transcribed(world, 2) for step, world in of_step.items()}
        dying = {
            step: crew.start_halting(world, f"again:{step}", "kill", *ARGUMENTS, "--limit", "1")
            for step, world in of_step.items()
        }
        for step, hand in dying.items():
            assert hand.end() == -9, f"{step}: {hand.console}"
        for step, world in of_step.items():
            assert [d["_id"] for d in world.transcriptions.find(sort=[("start", 1)])] == ids[step]
            assert ("new words" in texts(world)) == (step in REPLACED), step
            assert len(history(world)) == (step in ("copied", "replaced")), step
        following = {step: crew.start(world, *ARGUMENTS) for step, world in of_step.items()}
        for step, hand in following.items():
            assert hand.end() == 0, f"{step}: {hand.console}"
            assert_all_new(of_step[step])
            asked = len(servers[step].sequences)
            assert asked == (2 if step in (*REPLACED, "claimed") else 3), step

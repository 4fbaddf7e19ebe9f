"""Group commit under the scheduler: every interleaving that a seed can think of."""

from collections.abc import Sequence
from functools import partial

import pytest

from stt_lib.errors import Stopped
from stt_lib.store.group_commit import GroupCommit
from tests.simulation.scheduler import Scheduler
from tests.simulation.timing import SimulatedTiming

CALLERS, CALLS = 8, 3


class _Writes:
    """Takes a while; refuses every seventh item, fails as a whole or is torn away now and then."""

    def __init__(self, timing: SimulatedTiming) -> None:
        self.commands: list[list[int]] = []
        self.running = 0
        self._timing = timing

    def write(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.running += 1
        assert self.running == 1, "two commands of one kind at once"
        try:
            self._timing.sleep(self._timing.random.choice([0.0, 0.001, 0.1]))
            fate = self._timing.random.random()
            if fate < 0.1:
                raise Stopped
            if fate < 0.2:
                raise ConnectionError("MongoDB is away")
            self.commands.append(list(items))
            return [ValueError(item) if item % 7 == 0 else 2 * item for item in items]
        finally:
            self.running -= 1


def _play(seed: int) -> tuple[_Writes, dict[int, int | str]]:
    scheduler = Scheduler(seed)
    timing = SimulatedTiming(scheduler.process("p"))
    writes = _Writes(timing)
    group: GroupCommit[int, int] = GroupCommit(writes.write, timing)
    verdicts: dict[int, int | str] = {}

    def call(caller: int) -> None:
        for number in range(CALLS):
            timing.sleep(timing.random.choice([0.0, 0.0005, 0.05]))
            item = 1 + caller * CALLS + number
            try:
                verdicts[item] = group.submit(item)
            except (ValueError, ConnectionError, Stopped) as error:
                verdicts[item] = type(error).__name__

    for caller in range(CALLERS):
        timing.start_thread(partial(call, caller), f"caller{caller}")
    scheduler.run()
    return writes, verdicts


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_each_caller_gets_its_own_verdict_once(first: int) -> None:
    for seed in range(first, first + 50):
        writes, verdicts = _play(seed)
        written = [item for command in writes.commands for item in command]
        assert len(written) == len(set(written))
        assert len(verdicts) == CALLERS * CALLS
        for item, verdict in verdicts.items():
            if item in written:
                assert verdict == ("ValueError" if item % 7 == 0 else 2 * item)
            else:
                assert verdict in ("ConnectionError", "Stopped")


def test_overlapping_calls_share_commands() -> None:
    commands = [command for seed in range(20) for command in _play(seed)[0].commands]
    assert sum(map(len, commands)) / len(commands) > 1.5

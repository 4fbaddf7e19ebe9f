"""Group commit: overlapping calls are served by one command.

A command costs the client and MongoDB about the same whether it carries one write or eight. Of the
callers that arrive while a command is under way, the first becomes the leader of the next one and
writes for all of them. A lone caller is served at once: there is no timer.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from stt_lib.timing import Timing

Item = TypeVar("Item")
Verdict = TypeVar("Verdict")

LARGEST_GROUP: Final = 100


@dataclass(slots=True, eq=False)
class _Call(Generic[Item, Verdict]):
    """One caller's item and what became of it."""

    item: Item
    outcome: Verdict | Exception | None = None
    is_served: bool = False

    def result(self) -> Verdict:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome  # type: ignore[return-value]


class GroupCommit(Generic[Item, Verdict]):
    """Writes items together. Thread-safe.

    `write` takes items and returns for each of them, in this order, its verdict, or the exception
    that its caller shall see.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Sequence[Verdict | Exception]],
        timing: Timing,
    ) -> None:
        self._write = write
        self._changed = timing.condition()
        self._waiting: deque[_Call[Item, Verdict]] = deque()
        self._has_leader = False

    def submit(self, item: Item) -> Verdict:
        """Write the item, alone or in company; returns its verdict or raises its exception."""
        call: _Call[Item, Verdict] = _Call(item)
        with self._changed:
            self._waiting.append(call)
            self._changed.wait_for(lambda: call.is_served or not self._has_leader)
            if call.is_served:
                return call.result()
            self._has_leader = True
            group = self._next_group(call)
        try:
            self._serve(group)
        finally:
            self._step_down(group)
        return call.result()

    def _next_group(self, leader: _Call[Item, Verdict]) -> list[_Call[Item, Verdict]]:
        self._waiting.remove(leader)
        others = min(len(self._waiting), LARGEST_GROUP - 1)
        return [leader, *(self._waiting.popleft() for _ in range(others))]

    def _serve(self, group: list[_Call[Item, Verdict]]) -> None:
        try:
            outcomes = self._write([call.item for call in group])
        except Exception as error:  # noqa: BLE001 - raised again in every caller
            outcomes = [error] * len(group)
        for call, outcome in zip(group, outcomes, strict=True):
            call.outcome, call.is_served = outcome, True

    def _step_down(self, group: list[_Call[Item, Verdict]]) -> None:
        """Wake everybody; if the leader was torn away, the others look for a new one."""
        with self._changed:
            self._waiting.extendleft(call for call in reversed(group[1:]) if not call.is_served)
            self._has_leader = False
            self._changed.notify_all()

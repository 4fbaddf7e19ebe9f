import asyncio
from collections.abc import Callable, Coroutine

import pytest

from stt_lib.local.server.admission import Turns
from stt_lib.local.transcriber import HungUp


class Guest:
    """A client with a request: it waits, works until it may leave, or hangs up."""

    def __init__(self, turns: Turns) -> None:
        self.working = False
        self.may_leave = asyncio.Event()
        self._hang_up = asyncio.Event()
        self.task = asyncio.create_task(self._visit(turns))

    async def _visit(self, turns: Turns) -> None:
        async with turns.turn(asyncio.create_task(self._listen())):
            self.working = True
            await self.may_leave.wait()

    async def _listen(self) -> None:
        await self._hang_up.wait()

    def hang_up(self) -> None:
        self._hang_up.set()

    async def leave(self) -> None:
        self.may_leave.set()
        await self.task


async def settle() -> None:
    """Let every task run as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


async def guests(turns: Turns, count: int) -> list[Guest]:
    made = [Guest(turns) for _ in range(count)]
    await settle()
    return made


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    async def tidy() -> None:
        await test()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(tidy())


def test_first_come_first_served() -> None:
    async def test() -> None:
        turns = Turns(parallel=2, queue=2)
        made = await guests(turns, 4)
        assert [guest.working for guest in made] == [True, True, False, False]
        assert (turns.in_progress, turns.waiting, turns.full) == (2, 2, True)
        await made[1].leave()
        await settle()
        assert [guest.working for guest in made] == [True, True, True, False]
        assert (turns.in_progress, turns.waiting, turns.full) == (2, 1, False)

    run(test)


def test_who_hangs_up_leaves_the_queue_without_working() -> None:
    async def test() -> None:
        turns = Turns(parallel=1, queue=2)
        first, second, third = await guests(turns, 3)
        second.hang_up()
        await settle()
        assert turns.waiting == 1
        with pytest.raises(HungUp):
            await second.task
        await first.leave()
        await settle()
        assert (second.working, third.working) == (False, True)
        await third.leave()
        assert (turns.in_progress, turns.waiting, turns.full) == (0, 0, False)

    run(test)


def test_a_place_is_free_again_when_the_work_fails() -> None:
    async def test() -> None:
        turns = Turns(parallel=1, queue=0)
        (first,) = await guests(turns, 1)
        assert turns.full
        first.task.cancel()
        await settle()
        assert not turns.full
        (second,) = await guests(turns, 1)
        assert second.working

    run(test)


def test_the_wait_is_estimated_from_recent_requests() -> None:
    async def test() -> None:
        turns = Turns(parallel=2, queue=8)
        assert turns.retry_after() == 1
        turns._seconds.extend([10, 14])
        await guests(turns, 5)
        assert turns.waiting == 3
        assert turns.retry_after() == 24

    run(test)

"""Worker processes as cron starts them, to be killed, frozen and looked at.

Each has a log and a console of its own in files: a pipe that nobody reads would stop it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.waiting import eventually as eventually
from tests.support.world import ROOT, World

MOST_RUNS = 3


class Hand:
    """One worker process; `name` is what the STT server knows it by."""

    def __init__(
        self, world: World, name: str, command: Sequence[str], env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log_file = world.folder / f"{name}.log"
        self.console_file = world.folder / f"{name}.console"
        self.started = time.monotonic()
        with self.console_file.open("wb") as console:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={
                    **world.env,
                    "STT_LOG_FILE": str(self.log_file),
                    "STT_API_KEY": name,
                    **env,
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def console(self) -> str:
        return self.console_file.read_text()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> bool:
        """SIGKILL; whether that is what ended it."""
        if self.runs:
            self._process.kill()
        return self.end(10.0) == -signal.SIGKILL

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    @property
    def is_frozen(self) -> bool:
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def end(self, seconds: float = 60.0) -> int:
        """Wait for its end; its exit code, or the negative number of the signal."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGUSR1)  # the stacks of its threads
            time.sleep(1.0)
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"still running after {seconds} s\n{self.console}") from None


class Crew:
    """Starts workers, and leaves none behind."""

    def __init__(self) -> None:
        self.hands: list[Hand] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hand in self.hands:
            hand.kill()

    def start(self, world: World, *arguments: str, env: Mapping[str, str] | None = None) -> Hand:
        """`python stt.py ARGUMENTS`, in the background."""
        return self._hire(world, [str(ROOT / "stt.py"), *arguments], env)

    def start_halting(self, world: World, point: str, how: str, *arguments: str) -> Hand:
        """The same, but it kills or freezes itself when it first comes to a point of its work."""
        return self._hire(world, ["-m", "tests.support.halting", point, how, *arguments], None)

    def run(
        self,
        world: World,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        seconds: float = 60.0,
    ) -> tuple[int, Hand]:
        """`python stt.py ARGUMENTS` from start to end; the exit code comes first."""
        hand = self.start(world, *arguments, env=env)
        return hand.end(seconds), hand

    def run_until_done(self, world: World, *arguments: str, seconds: float = 300.0) -> int:
        """Runs, one after the other, until nothing is pending; returns how many it took."""
        for number in range(MOST_RUNS):
            if not world.pending():
                return number
            code, hand = self.run(world, *arguments, seconds=seconds)
            assert code == 0, hand.console
        raise AssertionError(f"{len(world.pending())} chunks are still pending\n{hand.console}")

    @property
    def running(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.runs]

    def _hire(self, world: World, command: Sequence[str], env: Mapping[str, str] | None) -> Hand:
        hand = Hand(world, f"w{len(self.hands):04d}x", command, env or {})
        self.hands.append(hand)
        return hand

"""A server that may outlive the command that started it, and is never taken for another process."""

import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

from stt_lib.telemetry.events import Event

STOP_SECONDS = 30.0
PID_SECONDS = 5.0
POLL_SECONDS = 0.02

WRITE_PID_AND_BECOME = 'echo $$ > "$0"; exec "$@"'
"""A shell that writes down its process id, then turns into the command; $0 is the state file."""

log = logging.getLogger("stt")


class Daemon:
    """A named server process with its state file and its log in `folder`.

    The state file holds the process id and, once the server is ready, its address. The process
    itself holds the lock on it until it dies, however it dies: so a file that was left by a crash
    or a reboot is recognised, and a process id that was given to another program is not trusted.
    Callers see to it that only one of them looks, starts and stops at a time.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._state = folder / f"{name}.state"
        self._process: subprocess.Popen[bytes] | None = None

    def alive(self) -> bool:
        try:
            with self._state.open("rb") as state:
                return not _lock(state, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def address(self) -> str | None:
        """Return where the server listens; None when it is dead or was never ready."""
        return self._line(1) if self.alive() else None

    def launch(
        self, command: Sequence[str], output: BinaryIO, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start the server in a session of its own, out of reach of a Ctrl-C in the terminal."""
        with self._state.open("ab") as state:
            if not _lock(state, fcntl.LOCK_EX):
                raise RuntimeError(f"{self.name} is running already")
            # A predecessor's process id must not be taken for the one that is about to come.
            state.truncate(0)
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", WRITE_PID_AND_BECOME, str(self._state), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                # The lock lives on in the child's copy of the descriptor.
                pass_fds=[state.fileno()],
                start_new_session=True,
            )
        return self._process

    def publish(self, address: str) -> None:
        """Tell later commands that the server is ready."""
        self._pid()
        with self._state.open("a") as state:
            state.write(f"{address}\n")

    def stop(self) -> None:
        """End the server if it is alive and wait until it is gone."""
        if not self._signalled(signal.SIGTERM):
            log.warning(
                "%s did not stop within %.0f s and was killed",
                self.name,
                STOP_SECONDS,
                extra=Event.STACK.of(),
            )
            self._signalled(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signalled(self, number: signal.Signals) -> bool:
        """Send a signal; returns whether the server is gone."""
        pid = self._pid()
        if pid is None:
            return True
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return not self.alive()

    def _pid(self) -> int | None:
        """Return the process id of the living server; None when it is dead."""
        deadline = time.monotonic() + PID_SECONDS
        while self.alive() and time.monotonic() < deadline:
            if pid := self._line(0):
                return int(pid)
            # It was started this instant and has not written its id yet.
            time.sleep(POLL_SECONDS)
        return None

    def _line(self, number: int) -> str | None:
        lines = self._state.read_text().splitlines(keepends=True)
        # A line without its end is still being written.
        complete = [line.strip() for line in lines if line.endswith("\n")]
        return complete[number] if number < len(complete) else None


def _lock(file: IO[bytes], kind: int) -> bool:
    """Try to take a lock on the file; returns whether it was free."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

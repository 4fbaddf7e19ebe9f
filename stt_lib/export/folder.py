"""A folder with one file per recording, of which only those that changed are written."""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from stt_lib.errors import InputError
from stt_lib.files import write_whole

VERSIONS: Final = ".stt-export.json"
"""Name of the file with the version of each exported file."""

LONGEST_NAME: Final = 200
"""Bytes. Longest name of a file before its extension; most file systems allow 255 in all."""


@contextmanager
def locked(folder: Path) -> Iterator[dict[str, str]]:
    """Create and lock a folder; yields the version of each file by name, to be updated.

    Versions are saved even if an export stops halfway. If they are lost, all files are written
    again.

    Raises:
        InputError: the folder cannot be written, or another export holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        versions = _read(folder / VERSIONS)
        try:
            yield versions
        finally:
            write_whole(folder / VERSIONS, json.dumps(versions, indent=0))
    except BlockingIOError:
        raise InputError(f"another export is writing to {folder}") from None
    finally:
        os.close(lock)


def _read(file: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def file_name(recording: str, extension: str) -> str:
    """Return the name of a recording's file, which is different for every id."""
    name = re.sub(r"[^\w.-]|^\.", lambda match: _escaped(match[0]), recording)
    if len(name.encode()) > LONGEST_NAME:
        name = hashlib.sha256(recording.encode()).hexdigest()
    return f"{name}.{extension}"


def _escaped(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())

"""Exports: transcripts in the formats that people use, and where they are written to.

A writer takes transcripts in order of time and a scope, and yields the text of the file piece by
piece, so that years of transcripts need no more memory than minutes. Only the HTML page is built
as a whole.
"""

import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

from stt_lib.domain.utterances import Stretch
from stt_lib.errors import ConfigurationError, InputError
from stt_lib.export import page, subtitles, tables, text
from stt_lib.export.scope import Scope
from stt_lib.files import written_whole

WRITERS: Final[dict[str, Callable[[Iterable[Stretch], Scope], Iterator[str]]]] = {
    "txt": text.write,
    "srt": subtitles.write_srt,
    "vtt": subtitles.write_vtt,
    "json": tables.write_json,
    "tsv": tables.write_tsv,
    "html": page.write,
}

VERSIONS: Final = ".stt-export.json"
"""Name of the file with the version of each exported file."""

LONGEST_NAME: Final = 200
"""Bytes. Longest name of a file before its extension; most file systems allow 255 in all."""


def by_suffix(path: Path | None) -> str:
    """Return the format for a file name; txt if it has no ending.

    Raises:
        ConfigurationError: no format has that ending.
    """
    suffix = "" if path is None else path.suffix.lower().removeprefix(".")
    name = {"": "txt", "htm": "html"}.get(suffix, suffix)
    if name not in WRITERS:
        raise ConfigurationError(
            f"no format is called .{suffix}: choose from {', '.join(WRITERS)},"
            " or name one with --format"
        )
    return name


def deliver(parts: Iterable[str], path: Path | None) -> None:
    """Write UTF-8 to a file, or to standard output if there is no path.

    A regular file is replaced once everything is written, and keeps its permissions.

    Raises:
        InputError: the file or standard output cannot be written.
        BrokenPipeError: the reader of the pipe has gone.
    """
    try:
        with nullcontext(sys.stdout.buffer) if path is None else written_whole(path) as stream:
            for part in parts:
                stream.write(part.encode("utf-8", "replace"))
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        target = "standard output" if path is None else path
        raise InputError(f"{target} cannot be written: {error.strerror}") from None


# -- a folder with one file per recording ---------------------------------------------------------


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
        versions = _known(folder / VERSIONS)
        try:
            yield versions
        except BaseException:
            with suppress(InputError):  # the error under way says more
                _save(versions, folder)
            raise
        _save(versions, folder)
    except BlockingIOError:
        raise InputError(f"another export is writing to {folder}") from None
    finally:
        os.close(lock)


def _save(versions: dict[str, str], folder: Path) -> None:
    deliver([json.dumps(versions, indent=0)], folder / VERSIONS)


def _known(file: Path) -> dict[str, str]:
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

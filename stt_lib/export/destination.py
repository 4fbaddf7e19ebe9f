"""Where an export goes: a file that is there whole or not at all, or a pipe."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from stt_lib.errors import InputError
from stt_lib.files import written_whole


def deliver(parts: Iterable[str], path: Path | None) -> None:
    """Write to a file, or to standard output when there is none, as UTF-8.

    A file of that name is replaced at once when all is written, and keeps its rights.

    Raises:
        InputError: the file cannot be written.
        BrokenPipeError: the reader of the pipe has gone.
    """
    if path is None:
        _pour(parts, sys.stdout.buffer)
    elif path.exists() and not path.is_file():  # a pipe or a device keeps its name
        with _opened(path) as stream:
            _pour(parts, stream)
    else:
        _replace(parts, path)


def _pour(parts: Iterable[str], stream: BinaryIO) -> None:
    for part in parts:
        stream.write(part.encode("utf-8", "replace"))
    stream.flush()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise _refused(path, error) from None


def _replace(parts: Iterable[str], path: Path) -> None:
    try:
        with written_whole(path) as stream:
            _pour(parts, stream)
    except OSError as error:
        raise _refused(path, error) from None


def _refused(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror}")

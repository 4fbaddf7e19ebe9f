"""Files that others read while we write them."""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe, a device, or the file that our own output is redirected to.

    These are written to and never replaced.
    """
    try:
        found = path.stat()
        outputs = [os.fstat(descriptor) for descriptor in (1, 2)]
    except OSError:
        return False
    is_output = any(os.path.samestat(found, output) for output in outputs)
    return is_output or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))


def is_writable(path: Path) -> bool:
    """Whether a file could be written now, as far as its rights and its folder say.

    What can never be written is better noticed before hours of work than after.
    """
    place = path if is_stream(path) else Path(os.path.realpath(path)).parent
    return not path.is_dir() and os.access(place, os.W_OK)


@contextmanager
def written_whole(path: Path, *, waits: bool = True) -> Iterator[BinaryIO]:
    """A stream whose content replaces the file once the block has ended well.

    Whoever reads the file sees the old content or the new, never a part, even after a power cut.
    It keeps its rights; a symbolic link keeps pointing to it.

    Streams are written to as they are; `waits` says whether to wait until somebody reads a pipe.

    Raises:
        OSError: it cannot be written.
    """
    if is_stream(path):
        with _opened(path, waits=waits) as stream:
            yield stream
        return
    file = Path(os.path.realpath(path))
    draft = file.with_name(f".stt-{secrets.token_hex(8)}.part")  # a longer name might not fit
    try:
        with draft.open("wb") as stream:
            if file.exists():
                shutil.copymode(file, draft)  # before anybody can read what is written
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """The same for a text that is there already; a pipe that nobody reads is an error."""
    with written_whole(path, waits=False) as stream:
        stream.write(text.encode())


def _opened(path: Path, *, waits: bool) -> BinaryIO:
    flags = os.O_WRONLY | os.O_APPEND | (0 if waits else os.O_NONBLOCK)
    stream = os.fdopen(os.open(path, flags), "wb")
    os.set_blocking(stream.fileno(), True)
    return stream

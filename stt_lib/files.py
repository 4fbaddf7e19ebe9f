"""Files that others read while we write them."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content replaces the file once the block has ended well.

    Whoever reads the file sees the old content or the new, never a part, even after a power cut.
    It keeps its rights; a symbolic link keeps pointing to it.

    Raises:
        OSError: it cannot be written.
    """
    file = Path(os.path.realpath(path))
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            shutil.copymode(file, draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """The same for a text that is there already."""
    with written_whole(path) as stream:
        stream.write(text.encode())

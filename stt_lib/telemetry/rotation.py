"""A log file that several processes write at once, rotated without any of them ever waiting.

Each line is one `write` to a file that was opened for appending, which the kernel does whole and
at the end, whoever else writes. So no lock is needed for a line, only for the rotation: it is on
the very file that is full, and the last step renames that file, so that whoever gets the lock
later sees that it has no longer the name, and only opens the new one. Who does not get the lock
goes on with the full file: a process that was frozen while it rotated holds up nobody.
"""

import contextlib
import fcntl
import logging
import os
from pathlib import Path


class RotatedFile(logging.Handler):
    """Appends records to `path`; a full one becomes `path.1`, that one `path.2`, … `path.BACKUPS`.

    A line that another process writes while we rotate ends up at the end of `path.1`. Where
    renaming or locking fails, the file just grows: a line matters more than its size.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        """Open the file, and make its folder.

        Raises:
            OSError: it cannot be written.
        """
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path.resolve()  # a link stays, its target is rotated
        self._max_bytes = max_bytes
        self._names = [self._path, *(_numbered(self._path, n) for n in range(1, backups + 1))]
        self._file = self._open()
        self._identity = _identity(os.fstat(self._file))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            self._turn_to_current()
            os.write(self._file, line)
        except Exception:  # noqa: BLE001 - a full disk must not end the run
            self.handleError(record)

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):  # closed before
            os.close(self._file)

    def _turn_to_current(self) -> None:
        """Rotate the file when it is full, and follow when somebody else did, or removed it."""
        with contextlib.suppress(OSError):  # then the file that we have has to do
            current = self._current()
            if current is None:
                self._reopen()
            elif current.st_size >= self._max_bytes:
                self._rotate()

    def _current(self) -> os.stat_result | None:
        """What has our name now, if that is still the file that we write."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found if _identity(found) == self._identity else None

    def _rotate(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if self._current() is not None:
                for old, new in reversed(list(zip(self._names, self._names[1:], strict=False))):
                    with contextlib.suppress(FileNotFoundError):  # there are not so many yet
                        os.replace(old, new)
            self._reopen()
        except OSError:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            raise

    def _reopen(self) -> None:
        """Open what has the name now; the file that we had is closed, and with it its lock."""
        file = self._open()
        os.close(self._file)
        self._file = file
        self._identity = _identity(os.fstat(file))

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino

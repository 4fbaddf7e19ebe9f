"""A log file that several processes write at once, and rotate without waiting for each other.

Each line is one `write` to a file opened for appending, which the kernel performs as a whole and at
the end of the file, whoever else writes. So only the rotation needs a lock: it is held on the full
file itself, and the last step renames that file, so that the next process to get the lock sees that
the name has moved on and merely opens the new file. A process that cannot get the lock keeps
writing to the full file, so one that freezes during a rotation blocks nobody.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import Final

from stt_lib.telemetry.events import Event

log = logging.getLogger("stt")

MAX_LINKS: Final = 40  # as many links as Linux follows; see path_resolution(7)


class RotatedFile(logging.Handler):
    """Appends records to `path`; a full file becomes `path.1`, that one `path.2`, and so on.

    A line that another process writes during a rotation ends up at the end of `path.1`. Where
    renaming or locking fails, the file grows: a line matters more than its size. Pipes, devices and
    what paths such as /dev/stdout lead to are never rotated.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        """Open the file; create its directory if necessary.

        Raises:
            OSError: it cannot be written.
        """
        super().__init__()
        self._has_failed = False
        # A link stays, its target is rotated; but those like /dev/stdout lead to foreign files.
        is_opened_by_others = _leads_to_an_open_file(path.absolute())
        self._path = path if is_opened_by_others else Path(os.path.realpath(path))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        old = (f"{self._path.name}.{number}" for number in range(1, backups + 1))
        self._names = [self._path, *map(self._path.with_name, old)]
        self._file = self._open()
        is_regular = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._is_rotated = is_regular and not is_opened_by_others

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            if self._is_rotated:
                self._turn_to_current()
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:  # a full disk must not end the run
            self._report(error)
        except Exception:  # noqa: BLE001 - a message that cannot be formatted
            self.handleError(record)

    def _report(self, error: OSError) -> None:
        """Warn once, on the console."""
        if not self._has_failed:
            self._has_failed = True
            text = "Lines are missing from the log file: %s cannot be written (%s)"
            log.warning(text, self._path, error.strerror, extra=Event.LOG_TROUBLE.of())

    def close(self) -> None:
        super().close()
        with contextlib.suppress(OSError):  # closed before
            os.close(self._file)

    def _turn_to_current(self) -> None:
        """Rotate the file when it is full; follow when another process rotated or removed it."""
        with contextlib.suppress(OSError):  # then the present file has to do
            current = self._current()
            if current is None:
                self._reopen()
            elif current.st_size >= self._max_bytes:
                self._rotate()

    def _current(self) -> os.stat_result | None:
        """The file that has the name now, if that is still the one that is open."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found if os.path.samestat(found, os.fstat(self._file)) else None

    def _rotate(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if self._current() is not None:
                for old, new in reversed(list(zip(self._names, self._names[1:], strict=False))):
                    with contextlib.suppress(FileNotFoundError):  # there are fewer so far
                        os.replace(old, new)
            self._reopen()
        except OSError:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            raise

    def _reopen(self) -> None:
        """Open the file that has the name now; closing the old one releases its lock."""
        full, self._file = self._file, self._open()
        os.close(full)

    def _open(self) -> int:
        # O_NONBLOCK: opening a FIFO that nobody reads must fail instead of waiting.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self._path, flags, 0o666)


def _leads_to_an_open_file(path: Path) -> bool:
    """Whether a path is a link to a file descriptor, such as /dev/stdout, or leads to one."""
    for _ in range(MAX_LINKS):  # links may form a loop
        if not path.is_symlink():
            break
        if path.parts[1] in ("dev", "proc"):
            return True
        path = path.parent / path.readlink()
    return False

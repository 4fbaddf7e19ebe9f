"""Wrong clocks: libfaketime between a process and its clock of the day. Durations stay right."""

import os
from importlib.util import find_spec
from pathlib import Path

_FOLDER = Path("vendor", "libfaketime", "src")


def _library() -> Path:
    package = find_spec("libfaketime")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / _FOLDER / "libfaketime.so.1"


def wrong(offset: str) -> dict[str, str]:
    """The environment of a process whose clock is wrong by an offset such as `-90m` or `+3d`."""
    return {
        "LD_PRELOAD": str(_library()),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class JumpingClock:
    """A clock of the day that is set while processes run by it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.jump("+0")
        self.env = {
            **os.environ,
            **wrong("+0"),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
        }
        del self.env["FAKETIME"]  # it would come before the file

    def jump(self, offset: str) -> None:
        """Set the clock, relative to the true time."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{offset}\n")
        written.replace(self._file)

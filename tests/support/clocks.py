"""Wrong clocks: libfaketime between a process and its clock of the day. Durations stay right."""

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
        # Read once: threads that read it again at the same time may end the process.
        "FAKETIME_CACHE_DURATION": "1000000",
    }

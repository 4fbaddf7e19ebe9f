"""Exit codes, for cron and scripts."""

from typing import Final

OK: Final = 0
"""All done, or nothing to do."""
FAILURES: Final = 1
"""Finished, but some sequences failed; or a given file or id cannot be used."""
USAGE: Final = 2
"""A wrong option, setting or environment variable."""
UNAVAILABLE: Final = 3
"""MongoDB or every STT server is away."""


def by_signal(number: int) -> int:
    """130 for SIGINT, 143 for SIGTERM, as a shell counts."""
    return 128 + number

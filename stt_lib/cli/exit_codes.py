"""Exit codes, for cron and scripts."""

from typing import Final

OK: Final = 0
"""Everything done, or nothing to do."""
FAILURES: Final = 1
"""Finished, but some sequences failed; or a file or id that was given cannot be used."""
USAGE: Final = 2
"""A wrong option, setting or credential."""
UNAVAILABLE: Final = 3
"""MongoDB or every STT server is unavailable."""


def by_signal(number: int) -> int:
    """129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM, as in a shell."""
    return 128 + number

"""The progress bar: sequences done, and how they ended."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from stt_lib.logs import counts
from stt_lib.model import Tally

_SHAPE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}] {tally}"


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar with the tally behind the brackets instead of within."""

    tally = ""

    @property
    def format_dict(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {**super().format_dict, "tally": self.tally}


class Progress:
    """A bar on the terminal; nothing when the output goes elsewhere, as under cron."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._bar = _Bar(
            desc="Processing sequences",
            unit="seq",
            total=0,
            disable=quiet or not sys.stderr.isatty(),
            bar_format=_SHAPE,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def show(self, tally: Tally, total: int) -> None:
        """Show the state of a run that will come to about `total` sequences."""
        bar = self._bar
        bar.tally = counts(tally)
        bar.total = max(total, tally.attempted)
        bar.update(tally.attempted - bar.n)

    def close(self) -> None:
        self._bar.close()

"""The sample recordings that come with stt; the README in this folder describes them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

NAMES = ("library", "phone", "birds", "tides")


def recordings(start: datetime) -> Iterator[tuple[Path, datetime]]:
    """Yield the file and the start time of each sample: the first at `start`, then hourly."""
    folder = Path(__file__).parent
    for hours, name in enumerate(NAMES):
        yield folder / f"{name}.opus", start + timedelta(hours=hours)

"""A second of speech that comes with stt, for finding out whether a server works."""

from datetime import datetime
from importlib.resources import files

from stt_lib.domain.models import Chunk

SECONDS = 1.0


def clip() -> Chunk:
    """It, as a chunk."""
    return Chunk(
        id=None,
        index=0,
        start=datetime.now().astimezone(),
        data=files("stt_lib.servers").joinpath("probe.opus").read_bytes(),
        format="opus",
        seconds=SECONDS,
    )

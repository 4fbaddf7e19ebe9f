"""One real transcription of a second of speech by one server: the only proof that it works."""

from datetime import datetime
from importlib.resources import files
from pathlib import Path

from stt_lib.domain.models import Answer, Chunk
from stt_lib.servers import protocols
from stt_lib.servers.protocols import Options, Request
from stt_lib.servers.transport import display_name, http_channels
from stt_lib.timing import REAL


def probe(now: datetime) -> Chunk:
    """A second of speech that comes with stt, as a chunk."""
    return Chunk(
        id=None,
        index=0,
        start=now,
        data=files("stt_lib.servers").joinpath("probe.opus").read_bytes(),
        format="opus",
        seconds=1.0,
    )


def transcribe_probe(
    url: str, protocol: str, options: Options, seconds: float, ca_file: Path | None = None
) -> tuple[Answer, float]:
    """Have the probe transcribed within `seconds`; `protocol` if the URL does not name one.

    Also returns the duration of the request in seconds.

    Raises:
        ConfigurationError: `ca_file`, whose certificates are trusted too, cannot be used.
        AttemptError: why the server does not serve, and what to do.
    """
    protocol, address = protocols.parse(url, protocol)
    channel = http_channels(ca_file)()
    started = REAL.monotonic()
    try:
        request = Request(channel, address, options, display_name(address), seconds)
        answer = protocols.post(protocol, request, (probe(REAL.now()),))
        return answer, REAL.monotonic() - started
    finally:
        channel.close()

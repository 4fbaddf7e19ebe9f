"""One real transcription of a second of speech, by one server: the only proof that it works."""

import time
from dataclasses import dataclass
from pathlib import Path

from stt_lib.domain.models import Answer
from stt_lib.servers import probe, protocols
from stt_lib.servers.options import Options
from stt_lib.servers.transport import Channel, Watchdog, authorities, display_name


@dataclass(frozen=True, slots=True)
class Trial:
    """What a server said, and after how many seconds."""

    protocol: str
    server: str
    answer: Answer
    seconds: float


def transcribe_probe(
    url: str, protocol: str, options: Options, seconds: float, ca_file: Path | None = None
) -> Trial:
    """Have the probe transcribed within `seconds`; `protocol` if the URL does not name one.

    Raises:
        ConfigurationError: `ca_file`, whose certificates are trusted too, cannot be used.
        AttemptError: why the server does not serve, and what to do.
    """
    protocol, address = protocols.parse(url, protocol)
    server = display_name(address)
    channel = Channel(authorities(ca_file))
    watchdog = Watchdog([channel])  # a server that drips its answer must not hold us either
    started = time.monotonic()
    try:
        answer = protocols.transcribe(
            protocol,
            channel,
            address,
            (probe.clip(),),
            options=options,
            server=server,
            seconds=seconds,
        )
    finally:
        watchdog.stop()
        channel.close()
    return Trial(protocol, server, answer, time.monotonic() - started)

"""A changing set of servers: a name in DNS, each of whose addresses is a server.

`dns+http://whisper:8081` follows a headless Service of Kubernetes, a scaled service of Compose or
Swarm, or a service of Consul: new addresses are used at once, vanished ones get no more requests.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from stt_lib.servers.pool import ServerPool
from stt_lib.telemetry.events import Event
from stt_lib.timing import REAL, Timing

log = logging.getLogger("stt")

PREFIX: Final = "dns+"
INTERVAL_SECONDS: Final = 15.0

KEEP_SECONDS: Final = 300.0
"""Seconds. How long the last addresses of a name that does not resolve are used."""

LOOKUP_SECONDS: Final = 5.0

Lookup = Callable[[str], Sequence[str]]
"""The addresses of a name; raises OSError if it has none, or nobody knows."""


def is_dynamic(url: str) -> bool:
    return url.startswith(PREFIX)


def lookup(server: str | None) -> Lookup:
    """Lookups at a DNS server, HOST:PORT; at those of the system if None."""
    import dns.exception  # only runs that follow a name pay for loading these
    import dns.resolver

    resolver = dns.resolver.Resolver(configure=server is None)
    resolver.lifetime = LOOKUP_SECONDS
    if server is not None:
        host, _, port = server.rpartition(":")
        resolver.nameservers, resolver.port = [host.strip("[]")], int(port)

    def addresses(name: str) -> Sequence[str]:
        try:
            found = resolver.resolve(name, "A", search=True, raise_on_no_answer=False)
            found = found or resolver.resolve(name, "AAAA", search=True)
        except dns.exception.DNSException as error:
            raise OSError(f"{name} does not resolve ({type(error).__name__})") from None
        return sorted(record.to_text() for record in found)

    return addresses


def expanded(url: str, addresses: Lookup) -> list[str]:
    """The servers' URLs behind a URL; itself if it is not `dns+`.

    Raises:
        OSError: its name does not resolve.
    """
    if not is_dynamic(url):
        return [url]
    parts = urlsplit(url.removeprefix(PREFIX))
    user, at, _ = parts.netloc.rpartition("@")
    port = "" if parts.port is None else f":{parts.port}"
    hosts = [f"[{a}]" if ":" in a else a for a in addresses(parts.hostname or "")]
    return [parts._replace(netloc=f"{user}{at}{host}{port}").geturl() for host in hosts]


class _Name:
    """One `dns+` URL, and when it last resolved."""

    def __init__(self, url: str, pool: ServerPool, addresses: Lookup, timing: Timing) -> None:
        self._url = url
        self._pool = pool
        self._addresses = addresses
        self._timing = timing
        self._resolved_at = timing.monotonic()
        self._is_lost = False

    def look(self) -> None:
        try:
            urls = expanded(self._url, self._addresses)
        except OSError as error:  # a DNS server that restarts must not cost the servers it knew
            if self._timing.monotonic() - self._resolved_at > KEEP_SECONDS:
                self._pool.follow(self._url, [])
            if not self._is_lost:
                self._is_lost = True
                text = "%s: using its last addresses for up to %.0f s"
                log.warning(text, error, KEEP_SECONDS, extra=Event.SERVER_NAME.of())
        else:
            self._is_lost = False
            self._resolved_at = self._timing.monotonic()
            self._pool.follow(self._url, urls)


@contextmanager
def following(
    pool: ServerPool,
    urls: Sequence[str],
    *,
    dns_server: str | None,
    interval: float = INTERVAL_SECONDS,
    timing: Timing = REAL,
) -> Iterator[None]:
    """Keep the pool's servers up to date within the block; the first lookup is done before it."""
    dynamic = [url for url in urls if is_dynamic(url)]
    if not dynamic:
        yield
        return
    addresses = lookup(dns_server)
    names = [_Name(url, pool, addresses, timing) for url in dynamic]
    over = timing.event()

    def look() -> None:
        for name in names:
            name.look()

    def keep_looking() -> None:
        while not over.wait(interval):
            look()

    look()
    thread = timing.start_thread(keep_looking, "stt-discovery")
    try:
        yield
    finally:
        over.set()
        thread.join(LOOKUP_SECONDS)

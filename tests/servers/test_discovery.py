"""Servers behind a name in DNS that come and go, with a real DNS server on loopback."""

import itertools
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from stt_lib.domain.models import Chunk
from stt_lib.errors import ServerTrouble
from stt_lib.servers.discovery import KEEP_SECONDS, expanded, following, lookup
from stt_lib.servers.pool import ServerPool
from stt_lib.servers.protocols import Options
from stt_lib.servers.transport import http_channels
from stt_lib.telemetry.stats import Stats
from stt_lib.timing import Timing
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper, Reply, echo
from tests.support.world import World

INTERVAL = 0.05


class Dns:
    """Answers every question for `name` with `addresses`; any other does not exist."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.addresses: list[str] = []
        self.answers = True
        self.questions = 0
        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _handler(self) -> Any:
        def handle(request: tuple[bytes, Any], client: Any, _: Any) -> None:
            data, socket = request
            reply = self._reply(dns.message.from_wire(data))
            if self.answers:
                socket.sendto(reply.to_wire(), client)

        return handle

    def _reply(self, query: dns.message.Message) -> dns.message.Message:
        self.questions += 1
        reply = dns.message.make_response(query)
        [question] = query.question
        wanted = "." if question.rdtype == dns.rdatatype.A else ":"
        found = [address for address in self.addresses if wanted in address]
        if question.name.to_text().rstrip(".") != self.name or not self.addresses:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif found:
            kind = dns.rdatatype.to_text(question.rdtype)
            reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, *found))
        return reply

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def names() -> Iterator[Dns]:
    server = Dns("whisper.test")
    yield server
    server.stop()


def slow(_: Any) -> Reply:
    reply = echo(_)
    reply.after = 0.02
    return reply


@pytest.fixture
def fleet() -> Iterator[list[FakeWhisper]]:
    """Four servers with one port and addresses of their own."""
    with ExitStack() as stack:
        servers = [FakeWhisper(slow)]
        servers += [FakeWhisper(slow, servers[0].port, f"127.0.0.{n}") for n in (2, 3, 4)]
        for server in servers:
            stack.callback(server.stop)
        yield servers


def address(server: FakeWhisper) -> str:
    return server.url.removeprefix("http://").partition(":")[0]


class Load:
    """Workers that post as fast as the pool lets them, each chunk until it is answered."""

    def __init__(self, workers: int) -> None:
        self.stop = threading.Event()
        self.pool = ServerPool(
            [],
            options=Options(),
            protocol="transcribe",
            max_in_flight=workers,
            timeout=lambda chunks: 5.0 + 3.0 * chunks,
            server_wait=30.0,
            stop=self.stop,
            stats=Stats(),
            channels=http_channels(),
        )
        self.answered: list[str] = []
        self._tickets = itertools.count()
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._enough.is_set():
            ticket = next(self._tickets)
            data = f"chunk {ticket}".encode()
            chunk = Chunk(ticket, 0, datetime.now(UTC), data, "opus", 10.0)
            while not self._post(ticket, chunk):
                pass

    def _post(self, ticket: int, chunk: Chunk) -> bool:
        try:
            with self.pool.slot(ticket, audio=10.0) as slot:
                [segment] = self.pool.transcribe(slot, [chunk]).segments
        except ServerTrouble:
            return False
        self.answered.append(segment.text.strip())
        return True

    def end(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()
        self.pool.close()


def is_busy(server: FakeWhisper) -> bool:
    """Whether it gets requests from now on."""
    before = len(server.sequences)
    eventually(lambda: len(server.sequences) > before + 3, 10, f"requests at {server.url}")
    return True


def assert_used(load: Load, alive: list[FakeWhisper], idle: list[FakeWhisper]) -> None:
    """Every server that is alive is busy, and the others are drained."""
    expected = {server.url for server in alive}
    eventually(lambda: {server.url for server in load.pool.servers} == expected)
    assert all(is_busy(server) for server in alive)
    eventually(lambda: all(r.ended for server in idle for r in server.requests))
    seen = [len(server.requests) for server in idle]
    assert is_busy(alive[0])
    assert [len(server.requests) for server in idle] == seen


def test_servers_come_and_go_under_load_and_no_chunk_is_lost(
    names: Dns, fleet: list[FakeWhisper]
) -> None:
    names.addresses = [address(fleet[0])]
    url = f"dns+http://whisper.test:{fleet[0].port}"
    load = Load(8)
    with following(load.pool, [url], dns_server=names.address, interval=INTERVAL):
        assert is_busy(fleet[0])
        for alive in (fleet, fleet[1:3], fleet[2:], [fleet[0]], fleet):
            names.addresses = [address(server) for server in alive]
            assert_used(load, alive, [server for server in fleet if server not in alive])
        load.end()
    assert sorted(load.answered) == sorted(f"chunk {n}" for n in range(next(load._tickets)))


def test_a_server_that_dies_with_its_address_still_known_costs_nothing_but_retries(
    names: Dns, fleet: list[FakeWhisper]
) -> None:
    names.addresses = [address(server) for server in fleet[:2]]
    load = Load(4)
    url = f"dns+http://whisper.test:{fleet[0].port}"
    with following(load.pool, [url], dns_server=names.address, interval=INTERVAL):
        assert is_busy(fleet[1])
        fleet[1].script = lambda _: Reply(resets=True)
        assert is_busy(fleet[0])
        names.addresses = [address(fleet[0])]
        eventually(lambda: len(load.pool.servers) == 1)
        load.end()
    assert sorted(load.answered) == sorted(f"chunk {n}" for n in range(next(load._tickets)))


def test_a_name_that_stops_resolving_keeps_its_last_addresses_for_a_while_and_says_so(
    names: Dns, fleet: list[FakeWhisper], caplog: pytest.LogCaptureFixture
) -> None:
    names.addresses = [address(fleet[0])]
    load = Load(1)
    clock = Clock()
    url = f"dns+http://whisper.test:{fleet[0].port}"
    with following(load.pool, [url], dns_server=names.address, interval=INTERVAL, timing=clock):
        assert is_busy(fleet[0])
        names.addresses = []
        eventually(lambda: "whisper.test does not resolve" in caplog.text)
        asked = names.questions
        eventually(lambda: names.questions > asked + 4)
        assert is_busy(fleet[0])
        assert caplog.text.count("using its last addresses for up to 300 s") == 1
        clock.ahead = KEEP_SECONDS + 1
        eventually(lambda: load.pool.servers == [])
        names.addresses = [address(fleet[1])]
        assert is_busy(fleet[1])
        load.end()


class Clock(Timing):
    """Real time, and some more."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def test_each_address_is_a_url_with_the_protocol_and_the_path(names: Dns) -> None:
    addresses = lookup(names.address)
    names.addresses = ["10.0.0.2", "10.0.0.1"]
    assert expanded("dns+openai+http://whisper.test:80/v1", addresses) == [
        "openai+http://10.0.0.1:80/v1",
        "openai+http://10.0.0.2:80/v1",
    ]
    names.addresses = ["fd00::1"]
    assert expanded("dns+http://whisper.test", addresses) == ["http://[fd00::1]"]
    assert expanded("http://whisper.test", addresses) == ["http://whisper.test"]
    with pytest.raises(OSError, match="does not resolve"):
        expanded("dns+http://other.test", addresses)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("dns+asr+http://asr", "asr+http://10.0.0.1"),
        ("dns+openai+http://openai/v1", "openai+http://10.0.0.1/v1"),
        ("dns+http://stt:8081@stt:8081", "http://stt:8081@10.0.0.1:8081"),
    ],
)
def test_only_the_host_gives_way_to_its_address(url: str, server: str) -> None:
    assert expanded(url, lambda _: ["10.0.0.1"]) == [server]


def test_a_run_and_doctor_use_every_address(
    world: World, names: Dns, fleet: list[FakeWhisper]
) -> None:
    names.addresses = [address(server) for server in fleet]
    world.server_url = f"dns+http://whisper.test:{fleet[0].port}"
    world.extra_env = {"STT_DNS_SERVER": names.address}
    for number in range(24):
        world.record(range(2), original_id=number)
    done = world.run("--max-workers", "8")
    assert done.returncode == 0
    assert all(server.sequences for server in fleet)
    world.assert_all_done()
    assert done.stderr.count("is used") == 4
    checked = world.run("doctor")
    assert all(server.url in checked.stdout for server in fleet)


@pytest.mark.parametrize("url", ["dns+https://whisper.test", "dns+ftp://x", "dns+"])
def test_urls_that_cannot_be_followed_are_refused(world: World, url: str) -> None:
    assert world.run("--server", url).returncode == 2

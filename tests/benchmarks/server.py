"""The benchmark server: so many slots, so long a service, and a record of its own idle time.

`python -m tests.benchmarks.server --slots 4 --service 0.1` prints its address; `GET /report`
answers what it has counted. Requests are read but not looked at, so that it needs next to no
processor time beside the program that is measured.
"""

import argparse
import asyncio
import json
import random
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.benchmarks import audio

HOST = "127.0.0.1"
_BUFFER = memoryview(bytearray(512 * 1024))  # what is read is thrown away, so one serves all


@dataclass(frozen=True)
class Behaviour:
    """How this server works; times in seconds.

    A request takes `service`, and `per_audio_second` for each second of its audio. `failing` of
    all requests are answered 500 after that. More than `queue` waiting requests are refused with
    503. From `away_after` the first request on the server is gone for `away_for`.
    """

    slots: int
    service: float = 0.0
    per_audio_second: float = 0.0
    failing: float = 0.0
    queue: int = 1_000_000
    away_after: float = 0.0
    away_for: float = 0.0

    def seconds(self, length: int) -> float:
        return self.service + self.per_audio_second * length / audio.BYTES_PER_SECOND


@dataclass
class Counts:
    """What a server counted; moments are of the monotonic clock, which all processes share."""

    requests: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    abandoned: int = 0
    first_arrival: float | None = None
    last_answer: float | None = None
    nominal: float = 0.0
    """What the answers should have taken; `busy` is what they took."""
    filled_at: float | None = None
    """When all slots were at work for the first time."""
    last_begin: float | None = None
    busy_at_filled: float = 0.0
    busy_at_last_begin: float = 0.0
    busy: list[float] = field(default_factory=list)
    """Of each slot."""


class Slots:
    """The slots, the queue before them, and the clock over them."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.counts = Counts(busy=[0.0] * behaviour.slots)
        self._free = list(range(behaviour.slots))
        self._queue: deque[Connection] = deque()
        self._area = 0.0  # slots at work, over time
        self._changed = 0.0
        self._rng = random.Random(1)
        self._loop = asyncio.get_running_loop()
        self._good = _response(200, audio.answer())
        self._bad = _response(500, b'{"detail": "out of luck"}')
        self._full = _response(503, b'{"detail": "the queue is full"}')

    def arrived(self) -> None:
        if self.counts.first_arrival is None:
            self.counts.first_arrival = time.monotonic()

    def take(self, connection: "Connection") -> None:
        """A whole request is here."""
        self.counts.requests += 1
        if self._free:
            self._begin(connection)
        elif len(self._queue) < self.behaviour.queue:
            self._queue.append(connection)
        else:
            self.counts.refused += 1
            connection.answer(self._full)

    def _begin(self, connection: "Connection") -> None:
        now = self._tick()
        slot = self._free.pop()
        counts = self.counts
        if not self._free and counts.filled_at is None:
            counts.filled_at, counts.busy_at_filled = now, self._area
        counts.last_begin, counts.busy_at_last_begin = now, self._area
        seconds = self.behaviour.seconds(connection.length)
        if seconds:
            self._loop.call_later(seconds, self._end, connection, slot, now, seconds)
        else:
            self._end(connection, slot, now, seconds)

    def _end(self, connection: "Connection", slot: int, began: float, seconds: float) -> None:
        counts = self.counts
        now = self._tick()
        if connection.is_open:
            fails = self.behaviour.failing and self._rng.random() < self.behaviour.failing
            connection.answer(self._bad if fails else self._good)
            counts.failed += bool(fails)
            counts.answered += not fails
            counts.nominal += seconds
            counts.last_answer = now
        else:
            counts.abandoned += 1
        counts.busy[slot] += now - began
        self._free.append(slot)
        while self._queue and self._free:
            waiting = self._queue.popleft()
            if waiting.is_open:
                self._begin(waiting)

    def _tick(self) -> float:
        now = time.monotonic()
        self._area += (self.behaviour.slots - len(self._free)) * (now - self._changed)
        self._changed = now
        return now

    def report(self) -> dict[str, Any]:
        return {
            **asdict(self.behaviour),
            **asdict(self.counts),
            **_shares(self.behaviour, self.counts),
            "cpu_seconds": time.process_time(),
        }


def _shares(behaviour: Behaviour, counts: Counts) -> dict[str, Any]:
    """Busy time over slots × wall, from the first byte of the first request to the last answer.

    `steady_share` leaves out the filling at the start and the last answers at the end.
    `nominal_share` counts no more than the time a request should take, for a server that has to
    wait for a processor is late, and that would pass as busy.
    """
    wall = (counts.last_answer or 0.0) - (counts.first_arrival or 0.0)
    if wall <= 0:
        return {"wall": 0.0}
    capacity = behaviour.slots * wall
    busy = sum(counts.busy)
    shares = {
        "wall": wall,
        "busy_share": busy / capacity,
        "nominal_share": counts.nominal / capacity,
        "idle_seconds_per_slot": wall - busy / behaviour.slots,
        "late_ms": 1000 * (busy - counts.nominal) / max(1, counts.answered + counts.failed),
    }
    if counts.filled_at is not None and counts.last_begin is not None:
        steady = counts.last_begin - counts.filled_at
        shares["fill_seconds"] = counts.filled_at - (counts.first_arrival or 0.0)
        if steady > 0:
            area = counts.busy_at_last_begin - counts.busy_at_filled
            shares["steady_share"] = area / (behaviour.slots * steady)
    return shares


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.BufferedProtocol):
    """One kept-alive connection; one request at a time, as `requests` sends them."""

    def __init__(self, slots: Slots, open_ones: set["Connection"]) -> None:
        self._slots = slots
        self._open_ones = open_ones
        self._head = bytearray()
        self._left = 0
        self.length = 0
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._open_ones.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._open_ones.discard(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._left:
            self._left -= nbytes
        else:
            self._head += _BUFFER[:nbytes]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            if self._head.startswith(b"GET /report "):
                self._head.clear()
                self.answer(_response(200, json.dumps(self._slots.report()).encode()))
                return
            self._slots.arrived()
            self.length = _length(bytes(self._head[:end]))
            self._left = self.length - (len(self._head) - end - 4)
            self._head.clear()
        if self._left <= 0:
            self._left = 0
            self._slots.take(self)

    def answer(self, response: bytes) -> None:
        self.transport.write(response)


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


async def _serve(behaviour: Behaviour) -> None:
    loop = asyncio.get_running_loop()
    slots = Slots(behaviour)
    open_ones: set[Connection] = set()

    async def listen(port: int) -> asyncio.Server:
        return await loop.create_server(
            lambda: Connection(slots, open_ones), HOST, port, backlog=1024
        )

    listener = await listen(0)
    port = listener.sockets[0].getsockname()[1]
    print(f"http://{HOST}:{port}", flush=True)
    if behaviour.away_for:
        while slots.counts.first_arrival is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(behaviour.away_after)
        listener.close()
        for connection in list(open_ones):
            connection.transport.abort()
        await asyncio.sleep(behaviour.away_for)
        listener = await listen(port)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, attribute in Behaviour.__dataclass_fields__.items():
        kind = int if attribute.type is int else float
        required = name == "slots"
        default = None if required else attribute.default
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=kind, required=required, default=default)
    asyncio.run(_serve(Behaviour(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()

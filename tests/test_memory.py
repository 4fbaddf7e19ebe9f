"""The memory that a worker takes: it holds one request's audio per worker, and no copy of it."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from bson import ObjectId

from tests.support.world import World, chunk

CHUNKS = 30
CHUNK_BYTES = 15_000_000
MOST_BYTES = 600_000_000

SEGMENT = {"start": 0, "end": 1, "text": " hello", "no_speech_prob": 0.01}
ANSWER = json.dumps({"language": "en", "segments": [SEGMENT]}).encode()


class _Sink(BaseHTTPRequestHandler):
    """A server that keeps nothing of what it is sent."""

    protocol_version = "HTTP/1.1"
    received: list[int]

    def do_POST(self) -> None:
        left = size = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self.received.append(size)
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def received(world: World) -> Iterator[list[int]]:
    """The sizes of the requests at the server of this world."""
    sizes: list[int] = []
    server = HTTPServer(("127.0.0.1", 0), type("Sink", (_Sink,), {"received": sizes}))
    world.server_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield sizes
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.timeout(180)
def test_thirty_chunks_of_15_mb_take_less_than_600_mb(world: World, received: list[int]) -> None:
    recording = ObjectId()
    for index in range(CHUNKS):
        world.chunks.insert_one(chunk(recording, index, data=bytes(CHUNK_BYTES)))
    process = world.start("--timeout-base", "120", "--mongo-wait", "120")
    peak = peak_bytes(process)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert max(received) > CHUNKS * CHUNK_BYTES
    assert peak < MOST_BYTES


def peak_bytes(process: "subprocess.Popen[str]") -> int:
    """Wait for the end of a process; the most memory that it had, as far as was seen."""
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        time.sleep(0.01)
    return peak

"""A real Whisper server process, and clients that misbehave."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, logging, sys
from stt_lib.local.server import app
from stt_lib.local.server.service import Service
from stt_lib.local.transcriber import Transcriber
logging.basicConfig(level=logging.INFO)
def announce(url): print("ready on", url, flush=True)
def service(parallel=None, api_key=None, **limits):
    return Service(Transcriber(parallel=parallel), api_key=api_key, **limits)
options = json.loads(sys.argv[1])
app.serve(lambda: service(**options), host="127.0.0.1", port=0, announce=announce)
"""

Part = tuple[str, tuple[str, bytes, str]]


class Server:
    """A server with its process, address, key and log."""

    def __init__(self, log_file: Path, *, open_files: int | None = None, **options: Any) -> None:
        limit = f"ulimit -n {open_files};" if open_files else ""
        self.key = options.get("api_key", "")
        self._log_file = log_file
        command = [sys.executable, "-c", PROGRAM, json.dumps(options)]
        with log_file.open("wb") as output:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", f'{limit} exec "$@"', "sh", *command],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: self._url() is not None or self.process.poll() is not None, seconds=60)
        found = self._url()
        assert found, self.log
        self.url = found.group(1)

    def _url(self) -> re.Match[str] | None:
        return re.search(r"ready on (http://\S+)\n", self.log)

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def connect(self) -> socket.socket:
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), 20)

    def post(
        self, *sounds: bytes, key: str | None = None, timeout: float = 60
    ) -> requests.Response:
        return requests.post(
            f"{self.url}/transcribe",
            files=parts(*sounds),
            headers={"X-Api-Key": self.key if key is None else key},
            timeout=timeout,
        )

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = requests.get(f"{self.url}/health", timeout=5).json()
        return answer

    def until_busy(self, *, in_progress: int, waiting: int) -> None:
        def reached() -> bool:
            health = self.health()
            return (health["in_progress"], health["waiting"]) == (in_progress, waiting)

        eventually(reached)

    @contextmanager
    def unanswered(self, *sounds: bytes) -> Iterator[http.client.HTTPConnection]:
        """Post sounds and do not wait for the answer; leaving the block hangs up."""
        prepared = requests.Request(
            "POST", f"{self.url}/transcribe", files=parts(*sounds), headers={"X-Api-Key": self.key}
        ).prepare()
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
        try:
            connection.request("POST", "/transcribe", prepared.body, dict(prepared.headers))
            yield connection
        finally:
            connection.close()

    def stop(self) -> int:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(60)


def parts(*sounds: bytes) -> list[Part]:
    return [("files", (f"chunk_{i}.opus", data, "audio/opus")) for i, data in enumerate(sounds)]

"""The bare loop: threads that do nothing but `requests.post`, with the bodies in memory.

What a program without a database, checks or logs would achieve: the yardstick of the others.
`--lean` goes further than a plain program would: the body is encoded once, before the start,
and the environment is not searched for proxies.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import requests

from tests.benchmarks import audio

SECONDS = 41.0


def files() -> list[tuple[str, tuple[str, bytes, str]]]:
    return [
        ("files", (f"chunk_{i}.opus", data, "audio/opus"))
        for i, data in enumerate(audio.sequence())
    ]


def poster(url: str, *, lean: bool) -> Callable[[requests.Session], None]:
    """What one turn of the loop does."""
    parts = files()
    encoded = requests.Request("POST", url, files=parts).prepare()
    body, headers = encoded.body, {"Content-Type": encoded.headers["Content-Type"]}

    def post(session: requests.Session) -> None:
        session.post(url, files=parts, timeout=SECONDS).raise_for_status()

    def post_encoded(session: requests.Session) -> None:
        session.post(url, data=body, headers=headers, timeout=SECONDS).raise_for_status()

    return post_encoded if lean else post


def run(url: str, threads: int, count: int, *, lean: bool) -> dict[str, Any]:
    """Post `count` requests; what it took."""
    post = poster(f"{url}/transcribe", lean=lean)
    turns = iter(range(count))
    errors: list[str] = []

    def loop() -> None:
        with requests.Session() as session:
            session.trust_env = not lean
            try:
                for _ in turns:  # a range's iterator may be shared by threads
                    post(session)
            except requests.RequestException as error:
                errors.append(type(error).__name__)

    workers = [threading.Thread(target=loop) for _ in range(threads)]
    began, cpu = time.monotonic(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
        "errors": errors,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--lean", action="store_true")
    given = parser.parse_args()
    print(json.dumps(run(given.url, given.threads, given.requests, lean=given.lean)))


if __name__ == "__main__":
    main()

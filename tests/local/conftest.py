from collections.abc import Iterator

import pytest

from tests.local.running import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Computes one request at a time, lets one wait, takes 4 MiB."""
    log_file = tmp_path_factory.mktemp("server") / "whisper.log"
    running = Server(log_file, api_key="sesame", parallel=1, queue=1, max_bytes=4 * 1024 * 1024)
    yield running
    running.stop()

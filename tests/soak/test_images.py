"""The images are built, and the worker's transcribes a backlog with the server's and a mongod."""

import signal
from collections.abc import Iterator

import pytest

from stt_lib import __version__
from stt_lib.local.mongod import Mongod
from tests.local.sounds import SAMPLES
from tests.soak.conftest import Figures, Size, Worlds
from tests.support import containers
from tests.support.containers import Builder, Container
from tests.support.crew import eventually
from tests.support.ports import free_port
from tests.support.processes import is_healthy
from tests.support.world import World


@pytest.fixture(scope="module")
def builder(size: Size, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    if not size.is_long:
        pytest.skip("building images takes minutes: run it with --soak")
    if missing := containers.missing():
        pytest.skip(f"building images needs {', '.join(missing)} (Debian has packages of them)")
    with Builder(tmp_path_factory.mktemp("images")) as made:
        yield made


def _start_server(builder: Builder) -> tuple[Container, str]:
    port = free_port()
    server = builder.start(
        f"stt-server:{__version__}", "serve", "--host", "127.0.0.1", "--port", str(port)
    )
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: is_healthy(url) or not server.runs, 60, "a server that is ready")
    assert server.runs, server.console
    return server, url


def _claims(world: World) -> int:
    return world.db["stt_claims"].count_documents({}) + world.chunks.count_documents(
        {"stt.claim": {"$exists": True}}
    )


@pytest.mark.timeout(1200)
def test_the_images_do_a_backlog(
    builder: Builder, mongod: Mongod, worlds: Worlds, figures: Figures
) -> None:
    took = builder.build()
    server, url = _start_server(builder)
    world = worlds(mongod.uri, url)
    ingested = world.run("ingest", *map(str, sorted(SAMPLES.glob("*.opus"))), seconds=300)
    assert ingested.returncode == 0, ingested.stderr
    backlog = len(world.pending())
    settings = {
        name: value for name, value in world.env.items() if name.startswith(("STT_S", "MONGODB_"))
    }

    stopped = builder.start(f"stt:{__version__}", "--watch", "--max-workers", "2", env=settings)
    eventually(lambda: "Processing" in stopped.console, 60, "a worker at work")
    stopped.signal(signal.SIGTERM)
    assert stopped.end() == 143, stopped.console
    assert _claims(world) == 0
    assert 0 < len(world.pending()) < backlog, "SIGTERM finishes what is in flight and no more"

    finished = builder.start(f"stt:{__version__}", "--max-workers", "2", env=settings)
    assert finished.end(300) == 0, finished.console
    world.assert_all_done()

    server.signal(signal.SIGTERM)
    assert server.end() in (0, 143), server.console
    figures.add(f"{backlog} chunks; seconds {took}; sizes {builder.sizes()}")

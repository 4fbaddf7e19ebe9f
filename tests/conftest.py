import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from stt_lib.local.mongod import Mongod
from stt_lib.store import Store
from stt_lib.telemetry import logs
from tests.support.leaks import PASSWORD, USER, leaks
from tests.support.whisper import FakeWhisper
from tests.support.world import World

LONGEST = {
    *("test_scenarios.py", "test_transcribe.py", "test_readme.py", "test_demo.py"),
    *("test_simulation.py", "test_errors.py", "test_cut_speech.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> None:
    """A person's own settings must not decide how the tests end."""
    for name in list(os.environ):
        if name.startswith(("STT_", "MONGODB_")):
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of the whole suite: what was planted in keys, URIs, audio and answers is in none of them."""
    yield
    assert leaks(tmp_path_factory.getbasetemp()) == []


@pytest.fixture(autouse=True)
def _quiet_log() -> Iterator[None]:
    yield
    logs.tear_down()
    logging.getLogger("stt").propagate = True


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("mongod")) as running:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(running.uri)
        client.admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])
        client.close()
        yield running


@pytest.fixture(scope="session")
def auth_mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("auth"), extra_args=["--auth"]) as running:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(running.uri)
        client.admin.command("createUser", "root", pwd="r00t-pw", roles=["root"])
        client.close()
        yield running


@pytest.fixture
def whisper() -> Iterator[FakeWhisper]:
    fake = FakeWhisper()
    yield fake
    fake.stop()


@pytest.fixture
def world(mongod: Mongod, whisper: FakeWhisper, tmp_path: Path) -> Iterator[World]:
    made = World(mongod.uri, tmp_path, whisper.url, login=f"{USER}:{PASSWORD}")
    yield made
    made.close()


@pytest.fixture
def store(world: World) -> Iterator[Store]:
    with Store(world.uri, world.database, mongo_wait=5) as opened:
        opened.indexes.ensure()
        yield opened

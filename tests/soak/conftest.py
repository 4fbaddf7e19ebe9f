"""The proof of the promises: short in the plain test run, long with `pytest tests/soak --soak`."""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.crew import Crew
from tests.support.world import World

T = TypeVar("T")

LONG_TIMEOUT_SECONDS = 3600

PARTS = 2
"""Parts into which the longest test is divided, because `make soak` runs in so many processes."""

FIGURES = "figures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the long version of each proof")


def _is_long(config: pytest.Config) -> bool:
    # Without this folder on the command line pytest has not seen the option above.
    return bool(config.getoption("--soak", default=False))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _is_long(config):
        for item in items:
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_SECONDS), append=False)
        items.sort(key=_part)  # those at the other end begin in the other process


def _part(item: pytest.Item) -> int:
    callspec = getattr(item, "callspec", None)
    return 0 if callspec is None else int(callspec.params.get("part", 0))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", range(PARTS if _is_long(metafunc.config) else 1))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if _is_long(config):
        terminalreporter.section(FIGURES)
        for outcome in ("passed", "failed"):
            for report in terminalreporter.getreports(outcome):
                for name, text in report.user_properties:
                    if name == FIGURES:
                        terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {text}")


@dataclass(frozen=True)
class Size:
    """How much of a proof is done."""

    is_long: bool

    def of(self, short: T, long: T) -> T:
        return long if self.is_long else short


@dataclass(frozen=True)
class Figures:
    """What was done, for the record: shown at the end of a long run, whichever process did it."""

    properties: list[tuple[str, object]]

    def add(self, text: str) -> None:
        self.properties.append((FIGURES, text))


@dataclass(frozen=True)
class Worlds:
    """Makes databases, each with a folder of its own, and drops them in the end."""

    folder: Path
    made: list[World] = field(default_factory=list)

    def __call__(self, uri: str, server_url: str) -> World:
        folder = self.folder / f"world{len(self.made)}"
        folder.mkdir()
        self.made.append(World(uri, folder, server_url))
        return self.made[-1]


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> Size:
    return Size(_is_long(request.config))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.node.user_properties)


@pytest.fixture
def rng() -> random.Random:
    """Different each time; a failed test shows with which seed it was made."""
    seed = secrets.randbits(32)
    print(f"seed: {seed}")
    return random.Random(seed)


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew() as started:
        yield started


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    worlds = Worlds(tmp_path)
    yield worlds
    for world in worlds.made:
        world.close()

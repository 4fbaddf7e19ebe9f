"""The shape of the house: imports point one way, and three doors to the outside are single."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.world import ROOT

LAYERS = [
    {"stt_lib.cli"},
    {"stt_lib.runner"},
    {"stt_lib.planner", "stt_lib.worker", "stt_lib.local"},
    {"stt_lib.status", "stt_lib.doctor", "stt_lib.export"},
    {"stt_lib.tasks", "stt_lib.again", "stt_lib.neighbours"},
    {"stt_lib.leases", "stt_lib.salvage", "stt_lib.progress"},
    {"stt_lib.servers.pool", "stt_lib.servers.trial"},
    {"stt_lib.ledger", "stt_lib.lookout"},
    {"stt_lib.store", "stt_lib.logs", "stt_lib.servers.protocols", "stt_lib.servers.breaker"},
    {f"stt_lib.servers.{name}" for name in ("transcribe", "openai", "whispercpp", "asr")},
    {"stt_lib.servers.single"},
    {"stt_lib.servers.answers", "stt_lib.servers.joining"},
    {f"stt_lib.servers.{name}" for name in ("form", "hints", "models", "probe", "words")}
    | {"stt_lib.documents"},
    {"stt_lib.servers.transport", "stt_lib.servers.options", "stt_lib.servers.languages"},
    {"stt_lib.summary", "stt_lib.metrics"},
    {"stt_lib.settings", "stt_lib.measures", "stt_lib.local.decoding", "stt_lib.seams"},
    {"stt_lib.sequences", "stt_lib.filtering", "stt_lib.backoff", "stt_lib.limits", "stt_lib.ogg"},
    {"stt_lib.timeline", "stt_lib.conditions"},
    {"stt_lib.model", "stt_lib.moments", "stt_lib.utterances", "stt_lib.deadline"},
    {"stt_lib.log_formats"},
    {"stt_lib.errors", "stt_lib.events", "stt_lib.rotation", "stt_lib.files"},
    {"stt_lib", "stt_lib.servers"},
]
"""From the top down: a module imports only from the rows below its own."""

MODULES = sorted((ROOT / "stt_lib").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if is_module(full) else str(node.module)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def layer(name: str) -> int:
    for number, row in enumerate(LAYERS):
        if name in row:
            return number
    for number, row in enumerate(LAYERS):
        if any(name.startswith(package + ".") for package in row - {"stt_lib", "stt_lib.servers"}):
            return number
    raise AssertionError(f"{name} has no place in the layers")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    own = name_of(path)
    for name in imports(path):
        if not name.startswith("stt_lib") or name == own:
            continue
        same_package = own.split(".")[:2] == name.split(".")[:2] and own.startswith(
            tuple(
                f"stt_lib.{package}" for package in ("cli", "local", "store", "filtering", "export")
            )
        )
        assert same_package or layer(name) > layer(own), f"{own} imports {name}"


@pytest.mark.parametrize(
    ("library", "importer"),
    [
        (("pymongo", "bson"), "stt_lib.store"),
        (("requests", "urllib3"), "stt_lib.servers.transport"),
        (("os.environ",), "stt_lib.settings"),
    ],
)
def test_the_outside_has_one_door_each(library: tuple[str, ...], importer: str) -> None:
    users = {
        "stt_lib.store" if name_of(path).startswith("stt_lib.store.") else name_of(path)
        for path in MODULES
        if any(name.split(".")[0] in library for name in imports(path))
        or ("os.environ" in library and reads_environment(path))
    }
    assert users == {importer}


def reads_environment(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_importing_does_nothing(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import threading, signal, logging\n"
        "import stt, stt_lib.cli\n"
        "assert threading.active_count() == 1\n"
        "assert not logging.getLogger('stt').handlers and not logging.getLogger().handlers\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "import os; assert os.listdir('.') == []\n"
    )
    subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True
    )

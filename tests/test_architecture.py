"""The shape of the code base: imports point one way, and each outside library has one door."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.world import ROOT

ROWS = [
    {"cli"},
    {"local"},
    {"pipeline", "reports", "export"},
    {"store", "servers"},
    {"telemetry"},
    {"config"},
    {"filtering", "audio"},
    {"domain"},
    {"errors", "files", "timing"},
]
"""From the top down: a package imports from the rows below its own, never sideways or upwards."""

ROW_OF = {package: number for number, row in enumerate(ROWS) for package in row}

MODULES = sorted((ROOT / "stt_lib").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, at its top or inside a function."""
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


def package_of(name: str) -> str:
    """The package of a module below `stt_lib`; empty for `stt_lib` itself (its version)."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    own = package_of(name_of(path))
    for name in imports(path):
        theirs = package_of(name)
        if name.split(".")[0] != "stt_lib" or not theirs or theirs == own:
            continue
        assert own, f"stt_lib/__init__.py imports {name}"
        assert ROW_OF[theirs] > ROW_OF[own], f"{name_of(path)} imports {name}"


@pytest.mark.parametrize(
    ("libraries", "importer"),
    [
        ({"pymongo", "bson", "gridfs"}, "stt_lib.store"),
        ({"requests", "urllib3"}, "stt_lib.servers"),
        ({"dns"}, "stt_lib.servers"),
    ],
)
def test_each_outside_library_has_one_door(libraries: set[str], importer: str) -> None:
    users = {
        ".".join(name_of(path).split(".")[:2])
        for path in MODULES
        if any(name.split(".")[0] in libraries for name in imports(path))
    }
    assert users == {importer}


def test_only_config_reads_the_environment() -> None:
    users = {package_of(name_of(path)) for path in MODULES if reads_environment(path)}
    assert users == {"config"}


def reads_environment(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_importing_does_nothing(tmp_path: Path) -> None:
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


SERVER_ROWS = [
    {"discovery"},
    {"pool"},
    {"health", "health_check"},
    {"deadlines", "throttling", "protocols"},
    {"responses"},
    {"diagnosis"},
    {"transport"},
]
"""The files of `servers`, from the top down, by the rule of `ROWS`."""


def test_the_files_of_servers_point_downwards() -> None:
    check_rows("stt_lib.servers.", SERVER_ROWS)


STORE_ROWS = [
    {"search"},
    {"failures", "transcripts", "dropped", "recordings", "statistics"},
    {"chunks"},
    {"claims", "indexes", "seams", "diagnostics", "change_stream"},
    {"database"},
    {"group_commit", "mapping", "ids"},
]
"""The files of `store`, from the top down, by the rule of `ROWS`."""


def test_the_files_of_store_point_downwards() -> None:
    check_rows("stt_lib.store.", STORE_ROWS)


def check_rows(prefix: str, rows: list[set[str]]) -> None:
    row_of = {prefix + name: number for number, row in enumerate(rows) for name in row}
    inside = {name_of(path): path for path in MODULES if name_of(path).startswith(prefix)}
    assert set(row_of) == set(inside)
    for name, path in inside.items():
        for imported in imports(path):
            if imported in row_of:
                assert row_of[imported] > row_of[name], f"{name} imports {imported}"

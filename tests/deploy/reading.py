"""What files of deploy/ say, and whether the program understands it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml  # type: ignore[import-untyped]

from stt_lib.cli.main import stt
from stt_lib.config.loader import FROM_FILES, load
from stt_lib.config.settings import OPTIONS, Settings
from tests.support.world import ROOT

DEPLOY = ROOT / "deploy"
VARIABLES = {option.variable for option in OPTIONS.values()}
FILE_VARIABLES = {f"{OPTIONS[name].variable}_FILE" for name in FROM_FILES}
LONGEST_REQUEST_SECONDS = Settings().timeout(30)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def understood(arguments: Sequence[str]) -> Settings:
    """Settings of a command line; raises a click error or a ConfigurationError on a mistake."""
    name, *rest = arguments or [""]
    command = stt.get_command(click.Context(stt), name)
    if command is None:
        return load(stt.make_context("stt.py", list(arguments)).params, {})
    return load(command.make_context(name, list(rest)).params, {})


def accepted(environment: Mapping[str, str], folder: Path) -> Settings:
    """Settings of an environment; secrets are taken from files that are made for it."""
    assert set(environment) <= VARIABLES | FILE_VARIABLES
    given = dict(environment)
    for name in given.keys() & FILE_VARIABLES:
        given[name] = str(folder / name)
        (folder / name).write_text("mongodb://mongodb.example.org")
    return load({}, given)


def has(program: str) -> bool:
    return shutil.which(program) is not None

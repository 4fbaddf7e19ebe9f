"""Help, version, and what a wrong command line is answered with."""

import re
import subprocess
import sys

import pytest

from stt_lib import __version__
from stt_lib.cli.help import COMMANDS
from stt_lib.cli.main import stt
from stt_lib.config.installation import ROOT
from stt_lib.config.settings import OPTIONS, RUN_OPTIONS, SERVE_ONLY, VARIABLE_ONLY, Group
from tests.support.world import World

MOST_OPTIONS = 28


def shown_flags(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", text, re.MULTILINE))


def test_help_lists_the_common_options_in_groups(world: World) -> None:
    text = world.run("--help").stdout
    common = {OPTIONS[name].flag for name in RUN_OPTIONS if OPTIONS[name].group.is_common}
    assert shown_flags(text) == common | {"--help", "--help-all", "--version"}
    assert len(shown_flags(text)) <= MOST_OPTIONS
    flowing = " ".join(text.split())
    for name in RUN_OPTIONS:
        if OPTIONS[name].group.is_common and OPTIONS[name].shown_default:
            assert f"{OPTIONS[name].help} [default: {OPTIONS[name].shown_default}]" in flowing
    for name in ("MONGODB_URI", "MONGODB_DATABASE", "STT_SERVER_URL", "STT_API_KEY"):
        assert name in text


def test_help_all_lists_every_option(world: World) -> None:
    text = world.run("--help-all").stdout
    assert {OPTIONS[name].flag for name in RUN_OPTIONS} <= shown_flags(text)
    assert set(RUN_OPTIONS) | {*SERVE_ONLY, *VARIABLE_ONLY} == set(OPTIONS)


def test_help_fits_a_narrow_terminal_and_cuts_nothing_short(world: World) -> None:
    text = world.run("--help", env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.partition("\n")[2]
    headings = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    groups = [str(group) for group in Group if group.is_common]
    assert headings == ["Examples", "Commands", *groups, "Help", "Environment", "Exit codes"]
    assert re.search(r"^  --limit N {2,}\w", text, re.MULTILINE), "the text is beside the option"


def test_every_command_exists_and_has_help() -> None:
    for name in COMMANDS:
        command = stt.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name != "argument":
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_version_is_shown(world: World) -> None:
    assert world.run("--version").stdout == f"stt, version {__version__}\n"


@pytest.mark.parametrize("option", ["--help", "--version", "--help-all"])
def test_help_and_version_import_no_heavy_package(option: str) -> None:
    code = f"""
import sys
sys.argv = ["stt.py", {option!r}]
from stt_lib.cli import main
assert main() == 0
heavy = {{"pymongo", "requests", "pydantic", "tqdm", "prometheus_client", "jinja2", "av"}}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_shell_can_complete_commands_and_options(world: World) -> None:
    words = {"_STT_COMPLETE": "bash_complete", "COMP_WORDS": "stt st", "COMP_CWORD": "1"}
    assert "plain,status" in world.run(env=words).stdout
    options = {**words, "COMP_WORDS": "stt --max-w"}
    assert "plain,--max-workers" in world.run(env=options).stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--limit", "0"], {}, "--limit must be at least 1"),
        (["--limit", "-1"], {}, "--limit must be at least 1"),
        (["--limit", "many"], {}, "--limit must be a whole number"),
        (["--max-workers", "0"], {}, "--max-workers must be at least 1"),
        (["--max-workers", "-2"], {}, "--max-workers must be at least 1"),
        (["--max-workers", "two"], {}, "--max-workers must be a whole number"),
        (["--limit"], {}, "requires an argument"),
        (["--colour"], {}, "No such option"),
        (["list"], {}, "No such command 'list' (see"),
        (["statsu"], {}, "Did you mean 'status'?"),
        (["--limit", "3", "errors"], {}, "--limit must follow errors"),
        (["status", "--limit", "3"], {}, "see python stt.py status --help"),
        (["show"], {}, "see python stt.py show --help"),
        (["prioritize", "ID", "--level", "high"], {}, "see python stt.py prioritize --help"),
        ([], {"STT_SERVER_URL": "localhost"}, "STT_SERVER_URL is not a URL"),
        ([], {"MONGODB_URI": "mongodb://"}, "MONGODB_URI has no host"),
        ([], {"MONGODB_URI": "mongodb://h:99999"}, "MONGODB_URI cannot be used"),
        ([], {"MONGODB_URI": "mongodb://u:p@[::1"}, "MONGODB_URI cannot be used"),
        ([], {"MONGODB_URI": "mongodb://u:%zz@h"}, "MONGODB_URI cannot be used"),
        ([], {"MONGODB_DATABASE": "a b"}, "database name cannot be used"),
        ([], {"STT_LEASE": "0.1"}, "STT_LEASE must be at least 3"),
    ],
)
def test_nonsense_exits_2_with_one_line(
    world: World, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = world.run(*arguments, env=environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""

"""What `pip install` installs: the command, its data, and requirements that the pins satisfy."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from stt_lib import __version__
from stt_lib.config.installation import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(*names: str) -> dict[str, str]:
    lines = "\n".join((ROOT / name).read_text() for name in names)
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", lines, re.MULTILINE))


def above_the_comment(name: str) -> set[str]:
    """What a requirements file asks for itself, not what that needs in turn."""
    text = (ROOT / name).read_text().partition("# What these need")[0]
    return set(re.findall(r"^([\w-]+)==", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("requirements", "file"),
    [
        (PROJECT["dependencies"], "requirements.txt"),
        (PROJECT["optional-dependencies"]["local"], "requirements-local.txt"),
    ],
)
def test_the_pins_are_the_requirements_of_the_package(requirements: list[str], file: str) -> None:
    wanted = {parsed.name: parsed for parsed in map(Requirement, requirements)}
    assert set(wanted) == above_the_comment(file)
    for name, version in pins(file).items():
        assert name not in wanted or version in wanted[name].specifier


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip would put it into site-packages."""
    folder = tmp_path_factory.mktemp("package")
    tracked = subprocess.run(
        ["git", "ls-files", "stt_lib", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in filter(lambda name: (ROOT / name).exists(), tracked):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    setup = [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet"]
    build = [*setup, "build_py", "--build-lib", str(folder / "site")]
    subprocess.run(build, cwd=folder / "source", check=True, capture_output=True)
    return folder / "site"


def test_every_file_of_the_package_is_installed(installed: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "stt_lib"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = {n for n in tracked if (ROOT / n).exists() and not n.endswith((".sh", ".md"))}
    found = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    assert expected <= found
    assert PROJECT["scripts"] == {"stt": "stt_lib.cli:run_and_exit"}


def run(installed: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, in an empty directory."""
    code = "import sys; sys.argv[0] = 'stt'; from stt_lib.cli import run_and_exit; run_and_exit()"
    return python(installed, home, code, *arguments)


def python(
    installed: Path, home: Path, code: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=home,
        env={"PYTHONPATH": str(installed), "HOME": str(home), "MONGODB_URI": "mongodb://h:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_installed_command_names_itself_and_the_directories_of_the_platform(
    installed: Path, tmp_path: Path
) -> None:
    assert run(installed, tmp_path, "--version").stdout == f"stt, version {__version__}\n"
    text = run(installed, tmp_path, "--help-all").stdout
    assert text.startswith("Usage: stt [OPTIONS]")
    assert "python stt.py" not in text
    settings = python(
        installed,
        tmp_path,
        "from stt_lib.config.settings import Settings as S; print(S().log_file, S().data_dir)",
    )
    state, data = f"{tmp_path}/.local/state/stt/stt.log", f"{tmp_path}/.local/share/stt"
    assert settings.stdout.split() == [state, data]
    done = run(installed, tmp_path, "--limit", "0")
    assert (done.returncode, done.stderr) == (2, "stt: --limit must be at least 1, not '0'\n")
    assert list(tmp_path.iterdir()) == []


def test_the_installed_package_starts_its_own_whisper_server(
    installed: Path, tmp_path: Path
) -> None:
    code = """
import subprocess
from stt_lib.local.stack import PROGRAM
subprocess.run([*PROGRAM, "serve", "--help"], check=True)
"""
    done = python(installed, tmp_path, code)
    assert done.stdout.startswith("Usage: stt serve"), done.stderr


def test_an_old_python_gets_one_line() -> None:
    """The entry point must be readable by any Python 3, up to the check of its version."""
    code = f"""
import sys
sys.version_info = (3, 9, 1)
try:
    exec(compile(open({str(ROOT / "stt.py")!r}).read(), "stt.py", "exec"))
except SystemExit as error:
    sys.exit(error.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "stt: Python 3.11 or later is required, not 3.9\n"

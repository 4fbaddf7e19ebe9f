"""cron and systemd: options, variables and exit codes of the files in deploy/."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stt_lib.cli import exit_codes
from stt_lib.config.settings import Settings
from tests.deploy.reading import DEPLOY, accepted, has, understood
from tests.support.world import ROOT

UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
BATCH = DEPLOY / "systemd" / "stt.service"
WATCH = DEPLOY / "systemd" / "stt-watch.service"


def _command_lines() -> Iterator[list[str]]:
    """The arguments of every stt.py that is started."""
    for path in [DEPLOY / "crontab", *SERVICES]:
        for line in path.read_text().splitlines():
            if "stt.py" in line and not line.startswith("#"):
                yield shlex.split(line.partition("stt.py")[2])


def _environments() -> Iterator[dict[str, str]]:
    for path in (DEPLOY / "crontab", DEPLOY / "stt.env"):
        yield dict(re.findall(r"^#?((?:STT|MONGODB)_\w+)=(.*)$", path.read_text(), re.MULTILINE))
    for unit in SERVICES:
        yield dict(re.findall(r"^Environment=(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def test_every_command_line_is_understood() -> None:
    lines = list(_command_lines())
    assert len(lines) == 4
    for line in lines:
        understood(line)


def test_every_variable_exists_and_its_value_is_valid(tmp_path: Path) -> None:
    found = list(_environments())
    assert sum(map(len, found)) >= 9
    for environment in found:
        accepted(environment, tmp_path)


def test_systemd_waits_longer_than_the_grace_period() -> None:
    for unit in SERVICES:
        [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert int(seconds) > Settings().grace + 10


def test_systemd_reads_exit_codes_as_they_are_meant() -> None:
    batch, watch = BATCH.read_text(), WATCH.read_text()
    assert f"SuccessExitStatus={exit_codes.FAILURES} {exit_codes.by_signal(15)}\n" in batch
    assert f"SuccessExitStatus={exit_codes.by_signal(15)}\n" in watch
    assert f"RestartPreventExitStatus={exit_codes.USAGE}\n" in watch


@pytest.mark.skipif(not has("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/stt/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text.replace("/opt/stt/", f"{ROOT}/"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")

"""What is in deploy/ fits the program: options, variables, exit codes, the query for what waits."""

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from stt_lib.cli import exit_codes
from stt_lib.config.installation import ROOT
from stt_lib.config.loader import load
from stt_lib.config.settings import OPTIONS, Settings
from stt_lib.store.indexes import WORKABLE

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())
VARIABLES = {option.variable: name for name, option in OPTIONS.items()}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pods() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        for manifest in documents(path):
            spec = manifest.get("spec", {})
            spec = spec.get("jobTemplate", {}).get("spec", spec)
            if "template" in spec:
                yield spec["template"]["spec"]


def compose() -> dict[str, Any]:
    return dict(documents(DEPLOY / "docker" / "compose.yaml")[0]["services"]["stt"])


def command_lines() -> Iterator[list[str]]:
    """The arguments of every stt.py that something in deploy/ starts."""
    for path in [DEPLOY / "crontab", *SERVICES]:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for line in lines:
            if "stt.py" in line:
                yield shlex.split(line.partition("stt.py")[2])
    for pod in pods():
        yield pod["containers"][0]["args"]
    yield compose()["command"]
    yield json.loads(re.findall(r"^CMD (.*)$", dockerfile(), re.MULTILINE)[0])


def dockerfile() -> str:
    return (DEPLOY / "docker" / "Dockerfile").read_text()


def environments() -> Iterator[dict[str, str]]:
    """The variables that something in deploy/ sets."""
    lines = (DEPLOY / "crontab").read_text() + (DEPLOY / "stt.env").read_text()
    yield dict(re.findall(r"^#?((?:STT|MONGODB)_\w+)=(.*)$", lines, re.MULTILINE))
    for unit in SERVICES:
        yield dict(re.findall(r"^Environment=(\w+)=(.*)$", unit.read_text(), re.MULTILINE))
    yield dict(re.findall(r"\b((?:STT|MONGODB)_\w+)=(\S*)", dockerfile()))
    yield compose()["environment"]
    for path in MANIFESTS:
        for manifest in documents(path):
            if manifest["kind"] in ("ConfigMap", "Secret"):
                yield manifest.get("data") or manifest["stringData"]


def test_every_option_that_is_used_exists_and_is_settled() -> None:
    flags = {option.flag: name for name, option in OPTIONS.items()}
    lines = list(command_lines())
    assert len(lines) == 8
    for line in lines:
        given = {flags[word]: "5" for word in line if word.startswith("--")}
        given |= {
            flags[word]: value
            for word, value in itertools.pairwise(line)
            if word.startswith("--") and not value.startswith("--")
        }
        switches = {name for name in given if OPTIONS[name].is_switch}
        load({name: True if name in switches else value for name, value in given.items()}, {})


def test_every_variable_that_is_set_exists_and_its_value_is_good() -> None:
    found = list(environments())
    assert sum(map(len, found)) >= 20
    for environment in found:
        assert set(environment) <= set(VARIABLES)
        load({}, environment)


def test_time_to_stop_is_more_than_the_grace() -> None:
    grace = Settings().grace
    for unit in SERVICES:
        [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert int(seconds) > grace + 10
    assert all(pod["terminationGracePeriodSeconds"] > grace + 10 for pod in pods())
    assert compose()["stop_grace_period"] == "45s"


def test_exit_codes_are_read_as_they_are_meant() -> None:
    batch, watch = (path.read_text() for path in SERVICES[::-1])
    if "oneshot" not in batch:
        batch, watch = watch, batch
    assert f"SuccessExitStatus={exit_codes.FAILURES} {exit_codes.by_signal(15)}\n" in batch
    assert f"SuccessExitStatus={exit_codes.by_signal(15)}\n" in watch
    assert f"RestartPreventExitStatus={exit_codes.USAGE}\n" in watch


def test_keda_counts_what_is_pending() -> None:
    [scaled] = (m for path in MANIFESTS for m in documents(path) if m["kind"] == "ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    assert json.loads(trigger["metadata"]["query"]) == WORKABLE
    assert trigger["metadata"]["collection"] == "audio_chunks"


def test_the_image_holds_what_the_worker_needs() -> None:
    copied = set(re.findall(r"^COPY (\S+) ", dockerfile(), re.MULTILINE))
    assert copied == {"requirements.txt", "stt.py", "stt_lib"}
    for name in copied:
        assert (ROOT / name).exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/stt/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text.replace("/opt/stt/", f"{ROOT}/"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")

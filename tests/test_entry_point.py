"""The very first line that somebody with an old or a bare Python sees."""

import runpy
import subprocess
import sys

import pytest

from stt_lib.config.installation import ROOT


def test_an_old_python_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "stt.py"), run_name="__main__")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "stt: Python 3.11 or later is required, not 3.10\n"


def test_a_python_without_the_packages_gets_one_line() -> None:
    command = [sys.executable, "-S", "-P", str(ROOT / "stt.py"), "--version"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "click is not installed" in line
    assert "make install" in line

"""How many cores there are when a container limits the CPU."""

import os
from pathlib import Path

import pytest

from stt_lib.local import cores


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the kernel shows a limit, on a host with 64 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "CPU_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("max 100000\n", 64),
        ("9900000 100000\n", 64),
        ("garbage\n", 64),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(quota: Path, shown: str, expected: int) -> None:
    quota.write_text(shown)
    assert cores.cores() == expected


def test_without_a_quota_the_affinity_counts(quota: Path) -> None:
    assert not quota.exists()
    assert cores.cores() == 64

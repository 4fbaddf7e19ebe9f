"""How many cores there are when a container limits the CPU."""

import os
import threading
from collections.abc import Iterator
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


def test_results_come_in_the_order_of_the_items_and_few_are_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 2)
    taken: list[int] = []
    second = threading.Event()

    def slow_at_first(item: int) -> int:
        assert item != 0 or second.wait(60), "both threads work"
        if item == 1:
            second.set()
        return -item

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = cores.on_all(slow_at_first, items())
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == [-item for item in range(1, 100)]


def test_an_error_of_an_item_is_raised_in_its_turn() -> None:
    results = cores.on_all(lambda item: 1 // item, [1, 0])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)

"""The benchmarks run, and what they write has the right shape.

No figure is judged here, only the plans of queries are.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from stt_lib.audio import ogg
from stt_lib.local.mongod import Mongod
from tests.benchmarks import audio, crowd, database, processes, speed, tables, writes
from tests.benchmarks.lab import TINY, Goal, Lab, Row, Table


@pytest.fixture
def lab(mongod: Mongod, tmp_path: Path) -> Lab:
    return Lab(mongod, tmp_path, TINY)


def test_saturation_and_commands_make_tables_and_json(lab: Lab, tmp_path: Path) -> None:
    done = {1: speed.saturation(lab), 5: database.commands(lab)}
    tables.save(tmp_path / "out.json", done, asdict(TINY), (0.0, 0.0))
    saved = json.loads((tmp_path / "out.json").read_text())["measurements"]
    (row,) = saved["1"]["rows"]
    assert row["requests"] == 6
    assert 0 < row["busy"] <= 1
    assert 0 < row["bare"] <= 1
    assert {goal["met"] for goal in saved["1"]["goals"]} <= {True, False}
    commands = {row["command"] for row in saved["5"]["rows"]}
    assert {"all", "insert transcriptions", "update audio_chunks"} <= commands
    counted = {goal["name"]: goal["met"] for goal in saved["5"]["goals"]}
    assert counted["collection scans"]
    assert counted["sorts in memory"]


def test_a_crowd_shares_a_backlog(lab: Lab) -> None:
    (row,) = crowd.crowd(lab).rows
    assert (row["slots"], row["twice"]) == (2, 0)
    assert 2 <= row["sequences"] <= 4
    assert row["first"] > 0


def test_a_claim_leaves_the_audio_out_of_the_journal(mongod: Mongod) -> None:
    """A figure that does not depend on the machine: the mark alone writes the audio again."""
    row = writes.measured(mongod, writes.ROOT, sequences=8, threads=2)
    assert 0.9 < row["of the audio"] < writes.MAX_JOURNAL


def test_a_server_counts_failures_refusals_and_busy_time(tmp_path: Path) -> None:
    with processes.serving(slots=1, service=0.02, failing=1.0) as url:
        command = [sys.executable, "-m", "tests.benchmarks.bare", url, "--requests=2"]
        output = json.loads(processes.run(command, tmp_path).output)
        report = processes.report(url)
    assert output["errors"] == ["HTTPError"]
    assert report["requests"] == report["failed"] == 1
    assert report["answered"] == report["refused"] == 0
    assert len(report["busy"]) == 1
    assert report["busy"][0] > 0


def test_a_table_names_its_rows_and_judges_its_goals() -> None:
    rows: list[Row] = [{"slots": 1, "busy": 0.5}, {"slots": 2, "req/s": 7}]
    text = tables.text(Table("Title", rows, [Goal("busy", 0.98, 0.5)], ("a note",)))
    assert "slots  busy  req/s" in text
    assert "goal: busy >= 0.98: 0.5 - MISSED" in text
    assert "a note" in text


def test_chunks_look_like_audio_of_the_size_that_is_promised() -> None:
    chunk = audio.chunk(1)
    assert abs(len(chunk) - audio.CHUNK_BYTES) < 200
    opus = ogg.read(chunk)
    assert opus is not None
    assert opus.seconds == audio.CHUNK_SECONDS

"""What a sequence costs MongoDB: journal bytes and CPU, beside an older commit; and each index.

`python -m tests.benchmarks.writes` measures this tree, with `--old COMMIT` that commit as well, in
turns; `--indexes` measures what each index on audio_chunks adds to an insert and to a mark.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from stt_lib.local.mongod import Mongod
from tests.benchmarks import audio, processes, tables
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.lab import Goal, Row, Table, middle

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("store_driver.py")
MAX_JOURNAL = 1.1
"""Of the audio's size."""

MAX_CPU = 0.75
"""Of the older commit's."""

CACHE_GB = 4.0


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The files of a commit of this repository."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="stt-old-") as name:
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(name, filter="data")
        yield Path(name)


def drive(code: Path, backlog: Backlog, *arguments: str) -> str:
    command = [sys.executable, str(DRIVER), backlog.uri, backlog.name, *arguments]
    env = {**processes.environment(), "PYTHONPATH": str(code)}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return done.stdout


def measured(mongod: Mongod, code: Path, sequences: int, threads: int) -> Row:
    """Journal and CPU per sequence of one round, in a database of its own."""
    backlog = Backlog(mongod.uri, f"writes_{os.urandom(4).hex()}", sequences)
    backlog.fill()
    drive(code, backlog, "--indexes")
    backlog.settle()
    before = _journal(backlog), processes.cpu_seconds(mongod.pid)
    count = int(drive(code, backlog, "--threads", str(threads)))
    after = _journal(backlog), processes.cpu_seconds(mongod.pid)
    backlog.close()
    size = sum(map(len, audio.sequence()))
    return {
        "journal kB": (after[0] - before[0]) / count / 1000,
        "of the audio": (after[0] - before[0]) / count / size,
        "mongod ms": (after[1] - before[1]) / count * 1000,
    }


def _journal(backlog: Backlog) -> int:
    status = backlog.db.command("serverStatus")
    return int(status["wiredTiger"]["log"]["log bytes written"])


def writes(mongod: Mongod, commits: dict[str, Path], sequences: int, rounds: int) -> Table:
    """Journal bytes and mongod CPU per sequence of 12 chunks of 20 kB."""
    rows: list[Row] = []
    for threads in (1, 8, 16):
        found: dict[str, list[Row]] = {name: [] for name in commits}
        for _ in range(rounds):
            for name, code in commits.items():
                found[name].append(measured(mongod, code, sequences, threads))
        for name, runs in found.items():
            figures = {key: round(middle(run[key] for run in runs), 3) for key in runs[0]}
            rows.append({"code": name, "threads": threads, **figures})
    goals = [
        Goal(
            "journal, of the audio",
            MAX_JOURNAL,
            max(row["of the audio"] for row in rows if row["code"] == "this"),
            False,
        )
    ]
    for mine, theirs in zip(rows[::2], rows[1::2], strict=False) if len(commits) > 1 else ():
        share = round(mine["mongod ms"] / theirs["mongod ms"], 3)
        name = f"mongod CPU of the older commit's, {mine['threads']} threads"
        goals.append(Goal(name, MAX_CPU, share, False))
    return Table("Writes: journal and mongod CPU per sequence", rows, goals)


def indexes(mongod: Mongod, sequences: int, rounds: int) -> Table:
    """mongod CPU per inserted and per marked chunk, with each index on audio_chunks dropped."""
    backlog = Backlog(mongod.uri, "indexes", sequences)
    backlog.fill()
    drive(ROOT, backlog, "--indexes")
    names = [name for name in backlog.db["audio_chunks"].index_information() if name != "_id_"]
    without = ["", *names, *(["all"] if len(names) > 1 else [])]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in without}
    for _ in range(rounds):
        for name in without:
            found[name].append(_with_index_dropped(mongod, backlog, name))
    backlog.close()
    rows: list[Row] = [
        {
            "without": name or "nothing",
            "mongod µs per insert": round(middle(one[0] for one in runs) * 1e6, 1),
            "mongod µs per mark": round(middle(one[1] for one in runs) * 1e6, 1),
        }
        for name, runs in found.items()
    ]
    return Table("What each index on audio_chunks costs", rows, [])


def _with_index_dropped(mongod: Mongod, backlog: Backlog, name: str) -> tuple[float, float]:
    """CPU seconds per insert and per mark; all indexes are there again afterwards."""
    chunks = backlog.db["audio_chunks"]
    chunks.delete_many({})
    drive(ROOT, backlog, "--indexes")
    for index in chunks.index_information():
        if index == name or (name == "all" and index != "_id_"):
            chunks.drop_index(index)
    documents = list(backlog._documents())
    backlog.settle()
    began = processes.cpu_seconds(mongod.pid)
    for start in range(0, len(documents), 12):
        chunks.insert_many(documents[start : start + 12])
    inserted = processes.cpu_seconds(mongod.pid)
    backlog.settle()
    ready = processes.cpu_seconds(mongod.pid)
    mark: Any = {"$currentDate": {"transcribed_at": True}, "$unset": {"stt": True}}
    for start in range(0, len(documents), 12):
        ids = [document["_id"] for document in documents[start : start + 12]]
        chunks.update_many({"_id": {"$in": ids}, "transcribed_at": None}, mark)
    marked = processes.cpu_seconds(mongod.pid)
    return (inserted - began) / len(documents), (marked - ready) / len(documents)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.writes", description=__doc__)
    parser.add_argument("--old", metavar="COMMIT", help="measure this commit as well")
    parser.add_argument("--indexes", action="store_true", help="measure the indexes instead")
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stt-bench-"))
        mongod = stack.enter_context(Mongod(Path(folder) / "mongod", cache_gb=CACHE_GB))
        commits = {"this": ROOT}
        if given.old:
            commits[given.old] = stack.enter_context(checked_out(given.old))
        if given.indexes:
            table = indexes(mongod, given.sequences, given.rounds)
        else:
            table = writes(mongod, commits, given.sequences, given.rounds)
        print(tables.text(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())

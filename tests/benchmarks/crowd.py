"""Measurement 10: many processes that start at the same moment, a thousand requests in flight."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from tests.benchmarks import audio, processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.lab import FAILURES, Goal, Lab, Row, Table
from tests.support.world import ROOT

LIMIT_SECONDS = 1200.0


def crowd(lab: Lab) -> Table:
    """10. Many processes at once on one backlog."""
    rows = []
    for chunks in lab.sizes.backlogs:
        with closing(lab.backlog(chunks // audio.CHUNKS, 0)) as backlog:
            rows.append(_crowd_on(lab, backlog))
    twice = sum(row["twice"] for row in rows)
    goals = [Goal("sequences done twice", 0, twice, at_least=False)]
    crew = lab.sizes.crowd
    notes = (
        f"{crew.processes} processes with --max-workers {crew.workers}; a request takes "
        f"{crew.service:g} s, chunks hold 200 bytes.",
        "first: seconds from the start of the processes to the first request of any of them; "
        "full: seconds more until every slot is busy.",
        "conflicts: per slot; most of them happen while all processes want the same newest chunks.",
        "mongod ms: its processor time per sequence; commands: of all connections, per sequence.",
    )
    return Table("10. A crowd: many processes on one backlog", rows, goals, notes)


def _crowd_on(lab: Lab, backlog: Backlog) -> Row:
    lab.ours(backlog, 1, 1, slots=1)  # makes the indexes, which happens once
    crew = lab.sizes.crowd
    slots = crew.processes * crew.workers
    with processes.serving(slots=slots, service=crew.service) as url:
        before, cpu = backlog.traffic(), processes.cpu_seconds(lab.mongod.pid)
        began = time.monotonic()
        with ThreadPoolExecutor(crew.processes) as pool:
            summaries = list(pool.map(lambda n: _run(lab, backlog, url, n), range(crew.processes)))
        cpu = processes.cpu_seconds(lab.mongod.pid) - cpu
        traffic, server = backlog.traffic() - before, processes.report(url)
    done = _total(summaries, "transcribed")
    return {
        "pending chunks": backlog.chunks,
        "slots": slots,
        "sequences": done,
        "twice": server["answered"] - done,
        "conflicts": round(_total(summaries, "skipped") / slots, 2),
        "first": round(server["first_arrival"] - began, 2),
        "full": round(server.get("fill_seconds", float("nan")), 2),
        "busy": round(server.get("steady_share", float("nan")), 3),
        "req/s": round(server["answered"] / server["wall"], 1),
        "commands": round(traffic["commands"] / max(1, done), 2),
        "mongod ms": round(1000 * cpu / max(1, done), 2),
    }


def _run(lab: Lab, backlog: Backlog, url: str, number: int) -> dict[str, Any]:
    """One worker process; returns what it came to."""
    crew = lab.sizes.crowd
    folder = lab.folder / f"process{number}"
    folder.mkdir(exist_ok=True)
    summary = folder / "summary.json"
    flags = ("--max-workers", str(crew.workers), "--limit", str(crew.limit))
    env = {
        "MONGODB_URI": backlog.uri,
        "MONGODB_DATABASE": backlog.name,
        "STT_SERVER_URL": url,
        "STT_LOG_FILE": str(folder / "stt.log"),
    }
    command = [sys.executable, str(ROOT / "stt.py"), "--summary", str(summary), *flags]
    processes.run(command, folder, env, (0, FAILURES), LIMIT_SECONDS)
    return dict(json.loads(summary.read_text())["sequences"])


def _total(summaries: list[dict[str, Any]], outcome: str) -> int:
    return sum(summary[outcome] for summary in summaries)

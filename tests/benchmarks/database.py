"""Measurements 4, 5, 6 and 9: memory, load on MongoDB, time to the first request, of `status`."""

import sys
from collections import Counter, defaultdict
from contextlib import closing
from typing import Any

from tests.benchmarks import audio, processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.lab import Goal, Lab, Row, Table, middle

PROFILED = 200
"""Sequences whose commands are looked at."""

PROFILE_BYTES = 256 * 1024 * 1024
COMMANDS = {1: 5.5, 16: 3.5}
"""Goals for the commands per sequence, by workers: those whose calls overlap share commands."""
MILLION = 1_000_000


def _full(lab: Lab) -> int:
    """Sequences with real audio: as many as the run with most workers takes."""
    return lab.sizes.sequences


def _backlog(lab: Lab, chunks: int) -> Backlog:
    sequences = chunks // audio.CHUNKS
    return lab.backlog(sequences, min(sequences, _full(lab)))


# -- memory -----------------------------------------------------------------------------------


def memory(lab: Lab) -> Table:
    """4. Peak memory of our process."""
    rows: list[Row] = []
    for chunks in lab.sizes.backlogs:
        with closing(_backlog(lab, chunks)) as backlog:
            rows += [_memory_of(lab, backlog, workers) for workers in (3, 64)]
    goals = []
    for workers in (3, 64):
        peaks = [row["peak MB"] for row in rows if row["workers"] == workers]
        growth = round(peaks[-1] / peaks[0], 3)
        goals.append(
            Goal(f"{workers} workers: largest backlog, of the smallest's", 1.1, growth, False)
        )
    note = (
        "The sequences that are worked on have 12 chunks of 20 kB; the rest of the backlog little."
    )
    return Table("4. Memory: peak RSS of our process", rows, goals, (note,))


def _memory_of(lab: Lab, backlog: Backlog, workers: int) -> Row:
    count = min(backlog.sequences, _full(lab))
    service = 0.01 if workers < 10 else 0.2
    loads = [
        lab.ours(backlog, workers, count, slots=workers, service=service)
        for _ in range(lab.sizes.rounds)
    ]
    return {
        "pending chunks": backlog.chunks,
        "workers": workers,
        "sequences done": count,
        "peak MB": round(middle(load.run.peak_rss_mb for load in loads), 1),
        "req/s": round(middle(load.per_second for load in loads), 1),
    }


# -- commands ---------------------------------------------------------------------------------


def commands(lab: Lab) -> Table:
    """5. What MongoDB has to do for a sequence."""
    rows: list[Row] = []
    for chunks in lab.sizes.backlogs:
        with closing(_backlog(lab, chunks)) as backlog:
            for workers in COMMANDS:
                rows += _profiled(lab, backlog, workers)
    totals = [row for row in rows if row["command"] == "all"]
    goals = [_goal_for_commands(totals, workers) for workers in COMMANDS]
    growth = totals[-1]["commands"] / totals[len(COMMANDS) - 1]["commands"]
    goals += [
        Goal("commands: largest backlog, of the smallest's", 1.05, round(growth, 3), False),
        Goal("collection scans", 0, sum(row["scans"] for row in rows), False),
        Goal("sorts in memory", 0, sum(row["sorts"] for row in rows), False),
    ]
    notes = (
        "From the profiler at level 2, which counts each statement of a command that writes.",
        "Commands and bytes from serverStatus, all connections together.",
        "examined/returned: documents read over documents returned or updated.",
    )
    return Table("5. MongoDB: commands and bytes per sequence", rows, goals, notes)


def _goal_for_commands(totals: list[Row], workers: int) -> Goal:
    most = max(row["commands"] for row in totals if row["workers"] == workers)
    return Goal(f"{workers} workers: commands per sequence", COMMANDS[workers], most, False)


def _profiled(lab: Lab, backlog: Backlog, workers: int) -> list[Row]:
    count = min(backlog.sequences - 1, PROFILED)
    lab.ours(backlog, 1, 1, slots=1)  # makes the indexes
    db = backlog.db
    db.drop_collection("system.profile")
    db.create_collection("system.profile", capped=True, size=PROFILE_BYTES)
    db.command("profile", 2)
    before = backlog.traffic()
    with processes.serving(slots=workers, service=0.0) as url:
        lab.stt(backlog, [url], "--max-workers", str(workers), "--limit", str(count))
    traffic = backlog.traffic() - before
    db.command("profile", 0)
    entries = [e for e in db["system.profile"].find() if e.get("appName") == "stt"]
    backlog.reset()
    about = {"pending chunks": backlog.chunks, "workers": workers}
    return _rows(about, count, entries, traffic)


def _rows(about: Row, count: int, entries: list[Any], traffic: Counter[str]) -> list[Row]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for entry in entries:
        groups[_kind(entry)].append(entry)
    rows = [
        _row(about, kind, count, group)
        for kind, group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    total = _row(about, "all", count, entries)
    for row in rows:
        row["scans"] = row["sorts"] = 0  # they are counted once, below
    shared = {"commands": round(traffic["commands"] / count, 2)}
    sizes = {f"kB {way}": round(traffic[name] / count / 1000, 1) for way, name in _WAYS}
    return [*rows, {**total, **shared, **sizes}]


_WAYS = (("in", "bytesIn"), ("out", "bytesOut"))


def _row(about: Row, kind: str, count: int, entries: list[Any]) -> Row:
    examined = sum(entry.get("docsExamined", 0) for entry in entries)
    returned = sum(entry.get("nreturned", 0) + entry.get("nMatched", 0) for entry in entries)
    plans = Counter(entry.get("planSummary", "-").partition(" ")[0] for entry in entries)
    return {
        **about,
        "command": kind,
        "per sequence": round(len(entries) / count, 2),
        "examined": examined,
        "returned": returned,
        "examined/returned": round(examined / returned, 2) if returned else 0.0,
        "keys": sum(entry.get("keysExamined", 0) for entry in entries),
        "ms each": round(sum(entry.get("millis", 0) for entry in entries) / len(entries), 2)
        if entries
        else 0.0,
        "scans": sum(_is_scan(entry) for entry in entries),
        "sorts": sum(bool(entry.get("hasSortStage")) for entry in entries),
        "plans": " ".join(sorted(plans)),
    }


def _kind(entry: Any) -> str:
    collection = entry["ns"].partition(".")[2]
    command = entry.get("command", {})
    name = entry["op"] if entry["op"] != "command" else next(iter(command), "command")
    return f"{name} {collection}"


def _is_scan(entry: Any) -> bool:
    """A look at one document, as to see whether a collection is empty, is none."""
    if entry["ns"].endswith(".stt_claims"):  # a document for each sequence that is worked on
        return False
    return "COLLSCAN" in entry.get("planSummary", "") and entry.get("docsExamined", 0) > 1


# -- start ------------------------------------------------------------------------------------


def start(lab: Lab) -> Table:
    """6. From the start of the process to the first request."""
    rows: list[Row] = []
    for chunks in (audio.CHUNKS, *lab.sizes.backlogs):
        with closing(_backlog(lab, chunks)) as backlog:
            rows.append(_start_of(lab, backlog))
    worst = max(row["seconds"] for row in rows)
    goal = Goal("seconds to the first request", 0.45, worst, at_least=False)
    note = "python: the start of the interpreter and the imports alone (stt.py --help)."
    return Table("6. Start: seconds from process start to first request", rows, [goal], (note,))


def _start_of(lab: Lab, backlog: Backlog) -> Row:
    lab.ours(backlog, 1, 1, slots=1)  # makes the indexes, which happens once
    times, helps = [], []
    for _ in range(lab.sizes.starts):
        with processes.serving(slots=1) as url:
            run = lab.stt(backlog, [url], "--limit", "1")
            times.append(processes.report(url)["first_arrival"] - run.started)
        backlog.reset()
        command = [sys.executable, "stt.py", "--help"]
        helps.append(processes.run(command, lab.folder).seconds)
    return {
        "pending chunks": backlog.chunks,
        "seconds": round(middle(times), 3),
        "slowest": round(max(times), 3),
        "python": round(middle(helps), 3),
    }


# -- status -----------------------------------------------------------------------------------


def look(lab: Lab) -> Table:
    """9. How long `status` takes."""
    rows: list[Row] = []
    for chunks in lab.sizes.backlogs:
        with closing(_backlog(lab, chunks)) as backlog:
            rows.append(_look_at(lab, backlog))
    worst = max(row["seconds"] for row in rows if row["chunks"] <= MILLION)
    goal = Goal("seconds, with up to a million chunks", 1.0, worst, at_least=False)
    note = "Half of the chunks are pending, the others were transcribed over the last ten days."
    return Table("9. status: seconds from process start to its end", rows, [goal], (note,))


def _look_at(lab: Lab, backlog: Backlog) -> Row:
    lab.ours(backlog, 1, 1, slots=1)  # makes the indexes, which happens once
    backlog.transcribe_half()
    times = []
    for _ in range(lab.sizes.starts):
        run = lab.stt(backlog, ["http://127.0.0.1:9"], "status")
        times.append(run.seconds)
    return {
        "chunks": backlog.chunks,
        "seconds": round(middle(times), 3),
        "slowest": round(max(times), 3),
    }

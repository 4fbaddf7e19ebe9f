"""Measurements 1, 2, 3 and 8: speed and cost beside the bare loop."""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from tests.benchmarks import processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.lab import Goal, Lab, Load, Row, Table, middle, ms
from tests.benchmarks.processes import Failed

CEILING_SLOTS = 1024


def saturation(lab: Lab) -> Table:
    """1. How busy the slots of a server are."""
    cases = [(slots, service, _requests(lab, slots, service)) for slots, service in lab.sizes.slots]
    rows: list[Row] = []
    goals: list[Goal] = []
    with closing(lab.backlog(max(count for _, _, count in cases))) as backlog:
        for slots, service, count in cases:
            row = _saturation_of(lab, backlog, slots, service, count)
            rows.append(row)
            goals += _saturation_goals(row, slots, service)
    return Table(
        "1. Saturation: busy time of the server's slots over slots x wall",
        rows,
        goals,
        (
            "busy: from the first byte of the first request to the last answer; steady: without "
            "filling all slots at the start and the last answers at the end.",
            "cores: processors at work for our process, mongod, the benchmark "
            "server and programs that have no part in this.",
        ),
    )


def _requests(lab: Lab, slots: int, service: float) -> int:
    waves = lab.sizes.long_waves if service >= 1.0 else lab.sizes.short_waves
    return min(slots * waves, 5120)


def _saturation_of(lab: Lab, backlog: Backlog, slots: int, service: float, count: int) -> Row:
    place = {"slots": slots, "service": service}
    bare, ours = _alternately(
        lab.sizes.rounds,
        partial(lab.bare, slots, count, **place),
        partial(lab.ours, backlog, slots, count, **place),
    )
    busy, bare_busy = _middle(ours, "busy_share"), _middle(bare, "busy_share")
    return {
        "slots": f"{slots} x {1000 * service:g} ms",
        "requests": count,
        "busy": round(busy, 4),
        "bare": round(bare_busy, 4),
        "ratio": round(busy / bare_busy, 4),
        "steady": round(_middle(ours, "steady_share"), 4),
        "bare steady": round(_middle(bare, "steady_share"), 4),
        "fill s": round(_middle(ours, "fill_seconds"), 3),
        "bare fill s": round(_middle(bare, "fill_seconds"), 3),
        **_resources(ours, bare),
    }


def _resources(ours: list[Load], bare: list[Load]) -> Row:
    return {
        "req/s": round(middle(load.per_second for load in ours), 1),
        "bare req/s": round(middle(load.per_second for load in bare), 1),
        "late ms": round(_middle(ours, "late_ms"), 1),
        "cores ours": _cores(ours, lambda load: load.run.cpu_seconds),
        "mongod": _cores(ours, lambda load: load.mongod_cpu),
        "server": _cores(ours, lambda load: float(load.server["cpu_seconds"])),
        "others": _cores(ours, lambda load: load.others_cpu),
    }


def _saturation_goals(row: Row, slots: int, service: float) -> list[Goal]:
    name = row["slots"]
    if slots >= 64 and service < 1.0:  # two cores are the limit there
        return [Goal(f"{name}: busy, of the bare loop's", 0.50, row["ratio"])]
    return [Goal(f"{name}: busy, of the bare loop's", 0.97, row["ratio"])]


def cost(lab: Lab) -> Table:
    """2. CPU seconds of our process per sequence."""
    count = lab.sizes.sequences
    rows: list[Row] = []
    with closing(lab.backlog(count)) as backlog:
        for workers, service in ((4, 0.02), (16, 0.1)):
            place = {"slots": workers, "service": service}
            bare, lean, ours, idle = _alternately(
                lab.sizes.rounds,
                partial(lab.bare, workers, count, **place),
                partial(lab.lean, workers, count, **place),
                partial(lab.ours, backlog, workers, count, **place),
                partial(lab.ours, backlog, 1, 1, slots=1),
            )
            rows.append(
                _cost_row(f"{workers} x {1000 * service:g} ms", count, bare, lean, ours, idle)
            )
    worst = max(row["ratio"] for row in rows)
    return Table(
        "2. Cost: CPU milliseconds of our process per sequence",
        rows,
        [Goal("CPU per sequence, of the bare loop's", 2.5, worst, at_least=False)],
        (
            "Everything counts, the start of Python included; net is without the start-up of "
            "either program (for ours: a run of one sequence).",
            "lean: the bare loop with a body encoded beforehand and without a search for proxies.",
        ),
    )


def _cost_row(
    name: str, count: int, bare: list[Load], lean: list[Load], ours: list[Load], idle: list[Load]
) -> Row:
    def each(loads: list[Load]) -> float:
        return middle(load.run.cpu_seconds for load in loads) / count

    start, bare_start = middle(load.run.cpu_seconds for load in idle), 0.0
    bare_net = middle(_loop_cpu(load) for load in bare) / count
    bare_start = each(bare) - bare_net
    return {
        "slots": name,
        "sequences": count,
        "ours ms": ms(each(ours)),
        "bare ms": ms(each(bare)),
        "ratio": round(each(ours) / each(bare), 2),
        "net ours ms": ms(each(ours) - start / count),
        "net bare ms": ms(bare_net),
        "net ratio": round((each(ours) - start / count) / bare_net, 2),
        "lean ms": ms(each(lean)),
        "ours/lean": round(each(ours) / each(lean), 2),
        "start ours s": round(start, 2),
        "start bare s": round(bare_start * count, 2),
        "mongod ms": ms(middle(load.mongod_cpu for load in ours) / count),
    }


def _loop_cpu(load: Load) -> float:
    return float(json.loads(load.run.output)["cpu_seconds"])


def ceiling(lab: Lab) -> Table:
    """3. Sequences per second when the server answers at once."""
    count = lab.sizes.sequences
    rows: list[Row] = []
    with closing(lab.backlog(count)) as backlog:
        for workers in (1, 4, 16):
            bare, lean, ours = _alternately(
                lab.sizes.rounds,
                partial(lab.bare, workers, count, slots=CEILING_SLOTS),
                partial(lab.lean, workers, count, slots=CEILING_SLOTS),
                partial(lab.ours, backlog, workers, count, slots=CEILING_SLOTS),
            )
            speed = middle(load.per_second for load in ours)
            bare_speed = middle(load.per_second for load in bare)
            rows.append(
                {
                    "workers": workers,
                    "sequences": count,
                    "ours /s": round(speed, 1),
                    "bare /s": round(bare_speed, 1),
                    "ratio": round(speed / bare_speed, 3),
                    "lean /s": round(middle(load.per_second for load in lean), 1),
                    "hours of audio per hour": round(speed * 120),
                    "cores ours": _cores(ours, lambda load: load.run.cpu_seconds),
                    "mongod": _cores(ours, lambda load: load.mongod_cpu),
                    "others": _cores(ours, lambda load: load.others_cpu),
                }
            )
    return Table("3. Ceiling: sequences per second with a server that answers at once", rows, [])


# -- unequal servers --------------------------------------------------------------------------

FAST, SLOW, SLOTS = 0.1, 0.3, 4
FAILING = 0.3


def unequal(lab: Lab) -> Table:
    """8. Three servers: one three times as fast, one failing, one away for a third of the time."""
    seconds = lab.sizes.unequal_seconds
    away = seconds / 3
    kinds: list[dict[str, float]] = [
        {"slots": SLOTS, "service": FAST, "queue": 2 * SLOTS},
        {"slots": SLOTS, "service": SLOW, "queue": 2 * SLOTS, "failing": FAILING},
        {"slots": SLOTS, "service": SLOW, "queue": 2 * SLOTS, "away_after": away, "away_for": away},
    ]
    count = round(sum(_ideal(kind, seconds) for kind in kinds))
    rounds = []
    with closing(lab.backlog(count)) as backlog:
        for _ in range(lab.sizes.rounds):
            rounds.append(_unequal_once(lab, backlog, kinds))
            backlog.reset()
    reports = sorted(rounds, key=lambda row: row["ratio"])[len(rounds) // 2]
    goal = Goal("answers, of the ideal sum", 0.93, middle(row["ratio"] for row in rounds))
    note = "Each server could give slots / service x wall, less its failures and its absence."
    rows = [*reports.pop("servers"), {"server": "all", **reports}]
    return Table("8. Unequal servers: answers over the ideal sum", rows, [goal], (note,))


def _ideal(kind: dict[str, float], wall: float) -> float:
    """Good answers that a server can give in `wall` seconds when it is never idle."""
    there = wall - min(kind.get("away_for", 0.0), max(0.0, wall - kind.get("away_after", 0.0)))
    return kind["slots"] / kind["service"] * there * (1 - kind.get("failing", 0.0))


def _unequal_once(lab: Lab, backlog: Backlog, kinds: list[dict[str, float]]) -> Row:
    with ExitStack() as stack:
        urls = [stack.enter_context(processes.serving(**kind)) for kind in kinds]
        run = lab.stt(backlog, urls, "--max-workers", str(SLOTS * len(kinds)))
        reports = [processes.report(url) for url in urls]
    firsts = [r["first_arrival"] for r in reports if r["first_arrival"]]
    lasts = [r["last_answer"] for r in reports if r["last_answer"]]
    if not lasts:
        raise Failed("no server has answered anything")
    wall = max(lasts) - min(firsts)
    servers = [
        _server_row(name, kind, report, wall)
        for name, kind, report in zip(("fast", "failing", "away"), kinds, reports, strict=True)
    ]
    good, ideal = sum(r["good"] for r in servers), sum(r["ideal"] for r in servers)
    return {
        "good": good,
        "ideal": round(ideal, 1),
        "ratio": round(good / ideal, 3),
        "failed": sum(r["failed"] for r in servers),
        "refused": sum(r["refused"] for r in servers),
        "lost": sum(r["lost"] for r in servers),
        "wall s": round(wall, 1),
        "process s": round(run.seconds, 1),
        "servers": servers,
    }


def _server_row(name: str, kind: dict[str, float], report: dict[str, Any], wall: float) -> Row:
    ideal = _ideal(kind, wall)
    return {
        "server": name,
        "good": report["answered"],
        "ideal": round(ideal, 1),
        "ratio": round(report["answered"] / ideal, 3),
        "failed": report["failed"],
        "refused": report["refused"],
        "lost": report["abandoned"],
    }


# -- side by side -----------------------------------------------------------------------------


def _alternately(rounds: int, *programs: Callable[[], Load]) -> list[list[Load]]:
    """Run the programs in turn, so that whatever else the machine does meets all of them."""
    loads: list[list[Load]] = [[] for _ in programs]
    for number in range(rounds):
        order = list(zip(programs, loads, strict=True))
        for program, collected in order if number % 2 == 0 else reversed(order):
            collected.append(program())
    return loads


def _middle(loads: list[Load], name: str) -> float:
    return middle(float(load.server.get(name, 0.0)) for load in loads)


def _cores(loads: list[Load], cpu: Callable[[Load], float]) -> float:
    return round(middle(cpu(load) / load.run.seconds for load in loads), 2)

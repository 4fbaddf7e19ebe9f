"""Tables for a person, JSON for a program."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.lab import Goal, Row, Table


def text(table: Table) -> str:
    """The table as it is printed."""
    lines = ["", table.title, ""]
    lines += _grid(table.rows)
    lines += [f"  {note}" for note in table.notes]
    lines += [_judged(goal) for goal in table.goals]
    return "\n".join(lines)


def _grid(rows: list[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _judged(goal: Goal) -> str:
    sign = ">=" if goal.at_least else "<="
    verdict = "met" if goal.met else "MISSED"
    return f"  goal: {goal.name} {sign} {goal.limit:g}: {goal.measured:g} - {verdict}"


def save(
    path: Path, tables: Mapping[Any, Table], sizes: Mapping[str, Any], load: tuple[float, float]
) -> None:
    """All tables in one file; written anew after each measurement.

    `sizes` tells what was measured, `load` is that of the machine before and after.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load_before": load[0],
            "load_after": load[1],
        },
        "sizes": sizes,
        "measurements": {str(number): _plain(table) for number, table in tables.items()},
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def _plain(table: Table) -> dict[str, Any]:
    goals = [{**asdict(goal), "met": goal.met} for goal in table.goals]
    return {**asdict(table), "goals": goals}

"""Times, tables and records as people and programs read them."""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import click

from stt_lib.telemetry.formatters import local_time, shown_id


def at(moment: Any) -> str:
    """A moment of a stored document by the local clock, as in the log."""
    if isinstance(moment, datetime):
        return local_time(moment)
    return "-" if moment is None else "not a date"


def to_the_minute(moment: Any) -> str:
    """The same without seconds, so that a table fits into 80 columns."""
    return at(moment)[: len("2026-03-01 08:00")]


def clock(moment: datetime, now: datetime) -> str:
    """A moment to come: 17:05, Tue 17:05, 2026-03-01."""
    local, today = moment.astimezone(), now.astimezone()
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if local - today < timedelta(days=6) else f"{local:%Y-%m-%d}"


def columns() -> int:
    """Characters that fit into a line on a terminal; elsewhere there is no limit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with aligned columns; on a terminal, lines that are too wide are cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    most = columns()
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(line if len(line) <= most else f"{line[: most - 1]}…" for line in lines)


def with_shown_ids(record: Any) -> dict[str, Any]:
    """A record for `print_json`; its ids are text, also those that are numbers or times."""
    return {
        name: shown_id(value) if name in ("id", "original_id") else value
        for name, value in asdict(record).items()
    }


def print_json(value: Any) -> None:
    """Print what a command found; times are in ISO 8601, ids and the like are text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else shown_id(value)

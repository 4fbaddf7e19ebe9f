"""`--help` for a person: examples first, options in groups, those that matter most on top."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

Row = tuple[str, str]

MOST_COLUMNS = 24
"""Of the left column; the text of a longer option begins on the next line."""

EXAMPLES = (
    ("python stt.py --max-workers 3", "everything that is pending, newest first"),
    ("python stt.py --limit 100", "at most 100 sequences of it"),
    ("python stt.py doctor", "does everything that it needs work?"),
    ("python stt.py status", "is it keeping up?"),
    ("python stt.py errors", "what failed, and why"),
    ("python stt.py explain ID", "why the filter kept or dropped what was heard"),
    ("python stt.py COMMAND --help", "more about a command"),
)
ENVIRONMENT = (
    ("MONGODB_URI", "where MongoDB is [default: mongodb://localhost:27017]"),
    ("MONGODB_DATABASE", "its database [default: the one in the URI, else stt]"),
    ("STT_API_KEY", "the key for STT servers, as X-Api-Key or, with openai, as Bearer"),
)
EXIT_CODES = (
    ("0", "all done, or nothing to do"),
    ("1", "finished, but some sequences failed"),
    ("2", "wrong option, setting or login"),
    ("3", "MongoDB or every STT server is away"),
    ("130, 143", "stopped by Ctrl-C or SIGTERM"),
)


class Manual(click.Group):
    """The command itself, with `groups` of option names by heading; commands in their own order."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self._groups = groups

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _section(formatter, "Examples", EXAMPLES)
        self.format_commands(ctx, formatter)
        records = _aligned({p.name: p.get_help_record(ctx) for p in self.get_params(ctx)})
        for heading, names in self._groups.items():
            _section(formatter, heading, [records.pop(name) for name in names], MOST_COLUMNS)
        _section(formatter, "About", list(records.values()))
        _section(formatter, "Environment", ENVIRONMENT)
        _section(formatter, "Exit codes", EXIT_CODES)


def _aligned(records: Mapping[str | None, tuple[str, str] | None]) -> dict[str | None, Row]:
    """The rows of all groups with one left column."""
    shown = {name: record for name, record in records.items() if record is not None}
    width = max(len(option) for option, _ in shown.values() if len(option) <= MOST_COLUMNS)
    return {name: (option.ljust(width), text) for name, (option, text) in shown.items()}


def _section(
    formatter: click.HelpFormatter, heading: str, rows: Sequence[Row], most_columns: int = 30
) -> None:
    with formatter.section(heading):
        formatter.write_dl(rows, col_max=most_columns)

"""`--help`: examples first, then commands, then options in groups; `--help-all` shows every option.

Commands are listed without importing them.
"""

import difflib
import importlib
from collections.abc import Sequence
from typing import Final

import click

from stt_lib.cli.options import help_text
from stt_lib.config.installation import PROGRAM
from stt_lib.config.settings import OPTIONS, RUN_OPTIONS, Group, Option

COMMANDS: Final = {
    "transcribe": "Transcribe audio or video files to text files beside them",
    "status": "Show whether the worker keeps up, current work and failures",
    "doctor": "Check everything that a run needs and suggest what to do",
    "errors": "List, retry or discard failures",
    "show": "Show what happened to a chunk, a recording or a transcript",
    "recordings": "List recordings and their progress",
    "prioritize": "Transcribe a recording before all others",
    "export": "Export transcripts as text, subtitles, tables or pages",
    "search": "Find where something was said, over all transcripts",
    "ingest": "Store audio or video files as chunks, ready to transcribe",
    "serve": "Run a Whisper server",
    "demo": "Transcribe sample recordings with the embedded stack",
}
"""Each command and its summary; module and function have the name of the command."""

EXAMPLES: Final = (
    (f"{PROGRAM} --max-workers 3", "Transcribe everything that is pending"),
    (f"{PROGRAM} --limit 100", "Transcribe at most 100 sequences"),
    (f"{PROGRAM} doctor", "Check MongoDB, STT servers, log and disk"),
    (f"{PROGRAM} status", "Is the worker keeping up?"),
    (f"{PROGRAM} errors", "What failed, and why?"),
    (f"{PROGRAM} COMMAND --help", "Show the help of a command"),
)
ENVIRONMENT: Final = (
    ("MONGODB_URI", help_text(OPTIONS["mongodb_uri"])),
    ("MONGODB_DATABASE", OPTIONS["mongodb_database"].help),
    ("STT_API_KEY", OPTIONS["api_key"].help),
    ("STT_SERVER_URL", "Same as --server"),
    ("STT_MAX_WORKERS, …", "Each option listed here has one; the option takes precedence"),
)
EXIT_CODES: Final = (
    ("0", "Everything done, or nothing to do"),
    ("1", "Finished, but some sequences failed"),
    ("2", "Wrong option or setting, or MongoDB refuses the credentials"),
    ("3", "MongoDB or every STT server unavailable, or the key refused"),
    ("129, 130, 143", "Stopped by SIGHUP, SIGINT (Ctrl-C) or SIGTERM"),
)

LEFT_COLUMNS: Final = 26
"""Columns. Width of the left side; the text of a longer option starts on the next line."""

CLOSE_ENOUGH: Final = 0.7
"""Similarity, between 0 and 1, from which a command is suggested for a misspelt one."""

_SHOWS_EVERYTHING: Final = "stt.help_all"


class Manual(click.Group):
    """The main command, which imports the others only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"stt_lib.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand:
            near = difflib.get_close_matches(args[0], COMMANDS, 1, CLOSE_ENOUGH)
            raise click.exceptions.NoSuchCommand(args[0], possibilities=near, ctx=ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _section(formatter, "Examples", EXAMPLES, max(len(left) for left, _ in EXAMPLES))
        _section(formatter, "Commands", list(COMMANDS.items()))
        for group in Group:
            rows = [_row(OPTIONS[name]) for name in RUN_OPTIONS if OPTIONS[name].group is group]
            if rows and (group.is_common or ctx.meta.get(_SHOWS_EVERYTHING)):
                _section(formatter, group, rows)
        own = (each for each in self.get_params(ctx) if each.name not in OPTIONS)
        _section(formatter, "Help", [row for each in own if (row := each.get_help_record(ctx))])
        _section(formatter, "Environment", ENVIRONMENT)
        _section(formatter, "Exit codes", EXIT_CODES)


def show_everything(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """The callback of `--help-all`."""
    if value:
        context.meta[_SHOWS_EVERYTHING] = True
        click.echo(context.get_help())
        context.exit()


def _row(option: Option) -> tuple[str, str]:
    return f"{option.flag} {option.kind.metavar or ''}".rstrip(), help_text(option)


def _section(
    formatter: click.HelpFormatter,
    heading: str,
    rows: Sequence[tuple[str, str]],
    columns: int = LEFT_COLUMNS,
) -> None:
    padded = [(left.ljust(columns), text) for left, text in rows]
    with formatter.section(heading):
        formatter.write_dl(padded, col_max=columns)

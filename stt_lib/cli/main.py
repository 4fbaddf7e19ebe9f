"""The commands and what they have in common: one line per error, one exit code per kind."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from stt_lib import __version__
from stt_lib.cli import exit_codes, local, run
from stt_lib.cli.doctor import doctor
from stt_lib.cli.errors import errors
from stt_lib.cli.explain import explain
from stt_lib.cli.export import export
from stt_lib.cli.help import Manual
from stt_lib.cli.options import settings_options
from stt_lib.cli.prioritize import prioritize
from stt_lib.cli.status import status
from stt_lib.config.settings import flag, load, wants_no_colour
from stt_lib.errors import ConfigurationError, Stopped, SttError, Unavailable


@click.group(
    cls=Manual,
    groups=run.OPTION_GROUPS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@settings_options(*run.OPTIONS)
@click.version_option(__version__, prog_name="stt")
@click.pass_context
def stt(context: click.Context, /, **flags: Any) -> None:
    """Turn pending speech chunks in MongoDB into transcripts, newest first.

    Without a COMMAND it processes the backlog. Each option can also be set by the variable that
    stands behind it; the option wins.
    """
    context.color = False if wants_no_colour() else None  # None: only on a terminal
    if context.invoked_subcommand is None:
        context.exit(run.run(load(flags)))
    given = [name for name, value in flags.items() if value is not None]
    if given:
        raise click.UsageError(
            f"{flag(given[0])} goes behind {context.invoked_subcommand}, not before it"
        )


COMMANDS = (
    status,
    doctor,
    errors,
    explain,
    prioritize,
    export,
    local.ingest,
    local.serve,
    local.demo,
)
for command in COMMANDS:
    stt.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = stt.main(
            args=None if arguments is None else list(arguments),
            prog_name="stt.py",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        return _say(error.format_message(), exit_codes.USAGE)
    except click.ClickException as error:
        return _say(
            f"{error.format_message().rstrip('.')}: see {_help_on(error)}", exit_codes.USAGE
        )
    except click.Abort:
        return exit_codes.by_signal(signal.SIGINT)
    except Stopped:
        return exit_codes.by_signal(signal.SIGINT)
    except ConfigurationError as error:
        return _say(str(error), exit_codes.USAGE)
    except Unavailable as error:
        return _say(str(error), exit_codes.UNAVAILABLE)
    except SttError as error:
        return _say(str(error), exit_codes.FAILURES)
    return result if isinstance(result, int) else exit_codes.OK


def run_and_exit() -> NoReturn:
    """Run the command line and end the process without waiting for any thread.

    MongoDB's driver sleeps for up to half a second before it notices that it was closed, and
    a request that outlasted its grace may never end. What matters is written by now.
    """
    code = main()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by whoever was to read it
            stream.flush()
    os._exit(code)


def _help_on(error: click.ClickException) -> str:
    """The command that tells more about what was used wrongly."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"python {context.command_path if context else 'stt.py'} --help"


def _say(message: str, code: int) -> int:
    click.echo(f"stt: {message}", err=True)
    return code

"""The entry point, which maps errors to exit codes; commands are imported when they are used."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from stt_lib import __version__
from stt_lib.cli import exit_codes
from stt_lib.cli.help import Manual, show_everything
from stt_lib.cli.options import settings_options
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load, unknown_variables, wants_no_colour
from stt_lib.config.settings import OPTIONS, RUN_OPTIONS
from stt_lib.errors import ConfigurationError, SttError, Unavailable


@click.group(
    cls=Manual,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@settings_options(*RUN_OPTIONS)
@click.option("--no-watch", is_flag=True, hidden=True)
@click.option(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_everything,
    help="Show all options and exit",
)
@click.version_option(__version__, prog_name="stt", help="Show the version and exit")
@click.pass_context
def stt(context: click.Context, /, **flags: Any) -> None:
    """Transcribe pending speech chunks from MongoDB, newest first.

    Without a COMMAND, processes the backlog.
    """
    if flags.pop("no_watch"):
        flags["watch"] = "off"
    context.color = False if wants_no_colour() else None  # None: only on a terminal
    if context.invoked_subcommand is None:
        from stt_lib.cli.run import run

        context.exit(run(load(flags)))
    given = [name for name, value in flags.items() if value is not None]
    if given:
        raise click.UsageError(
            f"{OPTIONS[given[0]].flag} must follow {context.invoked_subcommand}, not precede it"
        )
    for sentence in unknown_variables():
        click.echo(f"stt: warning: {sentence}", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = stt.main(
            args=arguments,
            prog_name=PROGRAM,
            complete_var="_STT_COMPLETE",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        return _fail(f"{message} (see {_help_on(error)})", exit_codes.USAGE)
    except click.Abort:  # Ctrl-C, or a question without an answer
        return exit_codes.by_signal(signal.SIGINT)
    except ConfigurationError as error:
        return _fail(str(error), exit_codes.USAGE)
    except Unavailable as error:
        return _fail(str(error), exit_codes.UNAVAILABLE)
    except SttError as error:
        return _fail(str(error), exit_codes.FAILURES)
    except (BrokenPipeError, SystemExit):  # click exits like this when a pipe is closed
        return exit_codes.OK  # the reader, such as head, has seen enough
    except OSError as error:
        file = f"{error.filename}: " if error.filename else "standard output cannot be written: "
        return _fail(f"{file}{error.strerror or error}", exit_codes.FAILURES)
    return result if isinstance(result, int) else exit_codes.OK


def run_and_exit() -> NoReturn:
    """Run the command line and end the process without waiting for any thread.

    MongoDB's driver sleeps for up to half a second before it notices that it was closed, and
    a request that outlasted its grace may never end. Everything that matters is written by now.
    """
    _open_standard_streams()
    code = main()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed by the reader
            stream.flush()
    os._exit(code)


def _open_standard_streams() -> None:
    """Replace closed streams by /dev/null, so that no other file takes their descriptors.

    Characters that the encoding of a stream lacks are written as question marks.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            setattr(sys, name, open(number, "r+" if number == 0 else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _help_on(error: click.ClickException) -> str:
    """The command that explains what was used wrongly."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path if context else PROGRAM} --help"


def _fail(message: str, code: int) -> int:
    click.echo(f"stt: {message}", err=True)
    return code

"""`errors`: what failed, why, and how to retry it."""

import dataclasses
from typing import Any, Final

import click

from stt_lib.cli.options import JSON, settings_options
from stt_lib.cli.rendering import at, print_json, table
from stt_lib.cli.session import opened_store
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load
from stt_lib.domain.models import FailedKind
from stt_lib.domain.units import counted
from stt_lib.errors import FailureKind, InputError

HEADER: Final = ("kind", "chunks", "due", "later", "parked", "next due", "oldest", "newest")

KIND: Final = click.option(
    "--kind",
    type=click.Choice([str(kind) for kind in FailureKind]),
    metavar="KIND",
    help="Only failures of this kind, such as timeout",
)


@click.group(invoke_without_command=True)
@JSON
@settings_options("local", "data_dir")
@click.pass_context
def errors(context: click.Context, /, as_json: bool, **flags: Any) -> None:
    """List what failed and is not transcribed yet.

    Chunks that are due are tried again by the next run, later ones when their delay is over, and
    parked ones only after `errors retry` or by a run with --retry-errors.
    """
    if context.invoked_subcommand is not None:
        context.obj = flags
        return
    with opened_store(load(flags)) as store:
        kinds = store.failures.kinds()
    if as_json:
        print_json([{**dataclasses.asdict(kind), "due": kind.due} for kind in kinds])
    elif not kinds:
        click.echo("Nothing has failed.")
    else:
        click.echo(table([HEADER, *map(_row, kinds)]))


@errors.command()
@click.argument("id_", metavar="[ID]", required=False)
@KIND
@settings_options("local", "data_dir")
@click.pass_obj
def retry(group_flags: dict[str, Any], /, id_: str | None, kind: str | None, **flags: Any) -> None:
    """Make failed chunks due now, including parked ones.

    ID is that of a chunk or a recording; without it, all failed chunks are retried.
    """
    with opened_store(load(_merged(group_flags, flags))) as store:
        count = store.failures.retry_now(kind, id_)
        if not count and id_ is not None:
            raise InputError(f"no failed chunk has the id {id_}, and no recording with it has any")
    if count:
        click.echo(f"{counted(count, 'chunk')} will be retried by the next run: {PROGRAM}")
    else:
        click.echo("Nothing has failed.")


def _merged(group_flags: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in flags.items() if value is not None}
    return {**group_flags, **given}


def _row(kind: FailedKind) -> tuple[str, ...]:
    numbers = (kind.chunks, kind.due, kind.waiting, kind.parked)
    times = (kind.next_due, kind.oldest, kind.newest)
    return kind.kind, *map(str, numbers), *map(at, times)

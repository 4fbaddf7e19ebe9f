"""`errors`: what has failed, why, and how to bring it back."""

import dataclasses
import json
from datetime import datetime
from typing import Any

import click

from stt_lib.cli.options import settings_options
from stt_lib.cli.rendering import plain
from stt_lib.cli.session import opened_store
from stt_lib.config.settings import load
from stt_lib.domain.models import ChunkStory, FailedKind
from stt_lib.errors import FailureKind, InputError

_HEADER = ("kind", "chunks", "due", "later", "parked", "next due", "oldest", "newest")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@settings_options("local", "data_dir")
@click.pass_context
def errors(context: click.Context, /, as_json: bool, **flags: Any) -> None:
    """Show what has failed and is not transcribed yet, by kind.

    "due" is tried again by the next run, "later" when its delay is over, "parked" only by
    `errors retry` or a run with --retry-errors.
    """
    if context.invoked_subcommand is not None:
        context.obj = flags
        return
    with opened_store(load(flags)) as store:
        kinds = store.failures.kinds()
    if as_json:
        click.echo(json.dumps([_plain(kind) for kind in kinds], indent=2))
    elif not kinds:
        click.echo("Nothing has failed.")
    else:
        click.echo(_table([_HEADER, *map(_row, kinds)]))
        click.echo(
            "\nOne of them: errors show ID · bring them back: errors retry [--kind KIND | ID]"
        )


@errors.command()
@click.argument("id_", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@settings_options("local", "data_dir")
@click.pass_obj
def show(group_flags: dict[str, Any], /, id_: str, as_json: bool, **flags: Any) -> None:
    """Tell the whole story of one chunk, or of the failed chunks of one recording."""
    with opened_store(load(_merged(group_flags, flags))) as store:
        stories = store.failures.stories(id_)
    if not stories:
        raise InputError(f"no chunk has the id {id_}, and no recording with it has failed chunks")
    if as_json:
        click.echo(json.dumps([_plain(story) for story in stories], indent=2))
    else:
        click.echo("\n\n".join(map(_told, stories)))


@errors.command()
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--kind", type=click.Choice([str(k) for k in FailureKind]), help="Only this kind.")
@settings_options("local", "data_dir")
@click.pass_obj
def retry(group_flags: dict[str, Any], /, id_: str | None, kind: str | None, **flags: Any) -> None:
    """Make failed chunks due now, parked ones too: all, one kind, one chunk or one recording."""
    with opened_store(load(_merged(group_flags, flags))) as store:
        count = store.failures.count(kind, id_)
        if not count and id_ is not None:
            raise InputError(f"no failed chunk has the id {id_}, nor has its recording any")
        click.echo(f"{count} failed chunk(s) will be due now …")
        click.echo(
            f"done: {store.failures.retry_now(kind, id_)} chunk(s); the next run tries them again"
        )


def _merged(group_flags: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in flags.items() if value is not None}
    return {**group_flags, **given}


def _plain(record: FailedKind | ChunkStory) -> dict[str, Any]:
    extra = {"due": record.due} if isinstance(record, FailedKind) else {}
    return {**plain(dataclasses.asdict(record)), **extra}


def _row(kind: FailedKind) -> tuple[str, ...]:
    numbers = (kind.chunks, kind.due, kind.waiting, kind.parked)
    times = (kind.next_due, kind.oldest, kind.newest)
    return kind.kind, *map(str, numbers), *map(_moment, times)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _told(story: ChunkStory) -> str:
    lines = [
        f"chunk {story.id}",
        f"  recording  {story.original_id}, index {story.index}",
        f"  start      {_moment(story.start)}",
        f"  state      {_state(story)}",
        f"  failures   {story.failures} of its own audio; the last tries:",
    ]
    lines += [
        f"    {_moment(past.at)}  {past.kind}: {past.message}"
        + (f" ({past.server})" if past.server and past.server not in past.message else "")
        for past in story.history
    ]
    return "\n".join(lines)


def _state(story: ChunkStory) -> str:
    if story.transcribed_at is not None:
        return f"transcribed {_moment(story.transcribed_at)}"
    if story.parked_at is not None:
        return f"parked since {_moment(story.parked_at)}: not tried again unasked"
    if story.claimed_by is not None:
        return f"claimed by {story.claimed_by} until {_moment(story.claimed_until)}"
    if story.retry_at is not None:
        return f"due {_moment(story.retry_at)}"
    return "pending"


def _moment(moment: Any) -> str:
    """Local time, as in the log."""
    if not isinstance(moment, datetime):
        return "-" if moment is None else "not a date"
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""`errors`: what failed and why; retries or discards it."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import click

from stt_lib.cli.options import JSON, settings_options
from stt_lib.cli.rendering import print_json, table, to_the_minute, with_shown_ids
from stt_lib.cli.session import opened_store, same_place
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load
from stt_lib.domain.models import FailedChunk, FailedKind
from stt_lib.domain.units import counted
from stt_lib.errors import FailureKind, InputError
from stt_lib.telemetry.formatters import short_id

KINDS_HEADER: Final = ("kind", "chunks", "due", "later", "parked", "next due", "last failure")
CHUNKS_HEADER: Final = ("chunk", "recording", "kind", "state")

MOST_LISTED: Final = 20
MOST_IN_JSON: Final = 1000
"""Chunks. Numbers that are listed; the kinds count all of them."""

NEXT_STEPS: Final = {
    "Details": "show ID",
    "Retry": "errors retry [ID | --kind KIND]",
    "Discard": "errors discard [ID | --kind KIND]",
}

ID: Final = click.argument("id_", metavar="[ID]", required=False)
KIND: Final = click.option(
    "--kind",
    type=click.Choice([str(kind) for kind in FailureKind]),
    metavar="KIND",
    help="Only failures of this kind, such as timeout",
)


@click.group(invoke_without_command=True)
@KIND
@click.option("--all", "everything", is_flag=True, help="Also list discarded chunks")
@JSON
@settings_options("local", "data_dir")
@click.pass_context
def errors(
    context: click.Context, /, kind: str | None, everything: bool, as_json: bool, **flags: Any
) -> None:
    """List chunks that failed and are not transcribed yet.

    The next run retries the chunks that are due. Others follow once their delay has passed, and
    parked ones only after `errors retry` or in a run with --retry-errors.
    """
    if context.invoked_subcommand is not None:
        for flag, is_given in (("--kind", kind), ("--all", everything), ("--json", as_json)):
            if is_given:
                raise click.UsageError(f"{flag} must not precede {context.invoked_subcommand}")
        context.obj = flags
        return
    limit = MOST_IN_JSON if as_json else MOST_LISTED
    settings = load(flags)
    with opened_store(settings) as store:
        kinds = [k for k in store.failures.kinds() if kind in (None, k.kind)]
        chunks = store.failures.newest(limit, kind)
        chunks += store.failures.discarded(limit, kind) if everything else []
        now = store.now()
    if as_json:
        counts = [{**dataclasses.asdict(kind), "due": kind.due} for kind in kinds]
        print_json({"kinds": counts, "chunks": [with_shown_ids(chunk) for chunk in chunks]})
    elif not chunks:
        click.echo(_nothing(kind))
    else:
        click.echo("\n".join(_lists(kinds, chunks, now)))
        for what, command in NEXT_STEPS.items():
            click.echo(f"{what + ':':<8} {PROGRAM} {command}{same_place(settings)}")


def _lists(kinds: list[FailedKind], chunks: list[FailedChunk], now: datetime) -> Iterator[str]:
    if kinds:
        yield table([KINDS_HEADER, *map(_kind, kinds)])
        yield ""
    yield table([CHUNKS_HEADER, *(_chunk(chunk, now) for chunk in chunks)])
    more = sum(kind.chunks for kind in kinds) - sum(c.discarded_at is None for c in chunks)
    if more > 0:
        yield f"and {counted(more, 'more chunk')}"
    yield ""


@errors.command()
@ID
@KIND
@settings_options("local", "data_dir")
@click.pass_obj
def retry(group_flags: dict[str, Any], /, id_: str | None, kind: str | None, **flags: Any) -> None:
    """Make failed chunks due now, including parked ones.

    ID is that of a chunk or a recording; without it, all failed chunks are retried. Discarded
    chunks come back only if their ID is given.
    """
    settings = load(_merged(group_flags, flags))
    with opened_store(settings) as store:
        count = store.failures.retry_now(kind, id_)
    if not count and id_ is not None:
        raise InputError(f"no failed chunk has the id {id_}, nor does any recording with failures")
    if count:
        click.echo(
            f"{counted(count, 'chunk')} will be retried by the next run:"
            f" {PROGRAM}{same_place(settings)}"
        )
    else:
        click.echo(_nothing(kind))


@errors.command(short_help="Give up on failed chunks: neither retry nor list them.")
@ID
@KIND
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation")
@settings_options("local", "data_dir")
@click.pass_obj
def discard(
    group_flags: dict[str, Any], /, id_: str | None, kind: str | None, yes: bool, **flags: Any
) -> None:
    """Give up on failed chunks: neither retry nor list them any more.

    ID is that of a chunk or a recording. The chunks are kept, not marked as transcribed;
    `errors --all` lists them, and `errors retry ID` brings them back.
    """
    if id_ is None and kind is None:
        raise click.UsageError("give the ID of a chunk or a recording, or --kind")
    with opened_store(load(_merged(group_flags, flags))) as store:
        count = store.failures.count(kind, id_)
        if not count:
            raise InputError("no failed chunk matches")
        question = f"Discard {counted(count, 'failed chunk')}?"
        if not yes and not click.confirm(question, err=True):
            raise InputError("nothing was discarded")
        click.echo(f"{counted(store.failures.discard(kind, id_), 'chunk')} discarded.")


def _nothing(kind: str | None) -> str:
    return "Nothing has failed." if kind is None else f"No failure of kind {kind}."


def _merged(group_flags: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in flags.items() if value is not None}
    return {**group_flags, **given}


def _kind(kind: FailedKind) -> tuple[str, ...]:
    numbers = (kind.chunks, kind.due, kind.waiting, kind.parked)
    times = (kind.next_due, kind.newest)
    return kind.kind, *map(str, numbers), *map(to_the_minute, times)


def _chunk(chunk: FailedChunk, now: datetime) -> tuple[str, ...]:
    return short_id(chunk.id), short_id(chunk.original_id), chunk.kind, _state(chunk, now)


def _state(chunk: FailedChunk, now: datetime) -> str:
    if chunk.discarded_at is not None:
        return "discarded"
    if chunk.parked_at is not None:
        return "parked"
    return "later" if chunk.retry_at is not None and chunk.retry_at > now else "due"

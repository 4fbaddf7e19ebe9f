"""`search`: where something was said, over all transcripts."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import click

from stt_lib.cli.options import JSON, settings_options
from stt_lib.cli.rendering import at, print_json
from stt_lib.cli.session import local_hint, opened_store
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.search import Hit, Query, query
from stt_lib.domain.text import one_line
from stt_lib.errors import InputError
from stt_lib.store import Store
from stt_lib.store.search import SECONDS

DAY: Final = len("2026-03-01")
"""Characters. The date at the beginning of a time."""


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Maximum number of hits",
)
@JSON
@settings_options("since", "until", "local", "data_dir")
def search(words: tuple[str, ...], limit: int, as_json: bool, **flags: Any) -> None:
    """Find where something was said, newest first.

    All WORDS must be said near each other, and those in quotes in this order; case and accents do
    not matter. The first search of more than 500 transcripts builds an index.
    """
    settings = load(flags)
    try:
        wanted = query(words)
    except ValueError:
        raise click.UsageError("WORDS must contain a letter or a digit") from None
    with opened_store(settings) as store:
        hits, reached = _search(store, wanted, settings, limit + 1)
    if as_json:
        print_json([dataclasses.asdict(hit) for hit in hits[:limit]])
    elif hits:
        click.echo("\n".join(_lines(hits[:limit])))
        click.echo(f"\nExport: {PROGRAM} export RECORDING_ID")
        if len(hits) > limit:
            click.echo(f"More:   {PROGRAM} search --limit {limit * 5} …")
    note = "no transcript contains these words" if reached is None else _stopped(reached)
    if not hits and not as_json:
        raise InputError(f"{note}{local_hint(settings)}")
    if reached is not None:
        click.echo(f"stt: {note}", err=True)


def _stopped(reached: datetime) -> str:
    earlier = f"{reached.astimezone():%Y-%m-%dT%H:%M}"
    return (
        f"stopped after {SECONDS:.0f} s: transcripts that began before {earlier} were not searched;"
        f" to go on: {PROGRAM} search --until {earlier} …"
    )


def _search(
    store: Store, wanted: Query, settings: Settings, limit: int
) -> tuple[list[Hit], datetime | None]:
    """The newest hits, and the time before which nothing was searched although more is wanted."""
    hits: list[Hit] = []
    reached = None
    for page in store.search.pages(wanted, settings.since, settings.until):
        found = itertools.chain.from_iterable(map(wanted.hits, page.stretches))
        hits += [hit for hit in found if _is_within(hit.start, settings)]
        if len(hits) >= limit:
            return hits[:limit], None
        reached = page.reached
    return hits, reached


def _is_within(moment: datetime, settings: Settings) -> bool:
    since, until = settings.since, settings.until
    return (since is None or since <= moment) and (until is None or moment < until)


def _lines(hits: Iterable[Hit]) -> Iterator[str]:
    """A heading per day and recording, and a line per hit."""
    groups = itertools.groupby(hits, key=lambda hit: (at(hit.start)[:DAY], hit.recording))
    for number, ((day, recording), said) in enumerate(groups):
        if number:
            yield ""
        yield f"{day} · recording {one_line(recording)}"
        for hit in said:
            shown = f"{hit.before}{click.style(hit.text, bold=True)}{hit.after}"
            yield f"  {at(hit.start)[DAY + 1 :]}  {shown}"

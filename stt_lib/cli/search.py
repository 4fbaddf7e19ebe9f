"""`search`: where something was said, over all transcripts."""

import dataclasses
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import click

from stt_lib.cli.options import JSON, number_option, settings_options
from stt_lib.cli.rendering import at, columns, print_json
from stt_lib.cli.session import local_hint, opened_store, same_place
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS
from stt_lib.domain.search import Hit, Query, query
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.domain.utterances import Stretch
from stt_lib.errors import InputError
from stt_lib.export.scope import title
from stt_lib.store.search import SECONDS

DAY: Final = len("2026-03-01")
"""Characters. The date at the beginning of a time."""


@click.command()
@click.argument("words", nargs=-1, required=True)
@number_option("--limit", "Maximum number of hits", 20)
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
    hits: list[Hit] = []
    reached = None
    with opened_store(settings) as store:
        for page in store.search.pages(wanted, settings.since, settings.until):
            hits += _hits(wanted, page.stretches, settings.since, settings.until)
            reached = page.reached
            if len(hits) > limit:
                break
        names = {of: store.recordings.name(of) for of in {hit.recording for hit in hits[:limit]}}
    unfinished = None if reached is None or len(hits) > limit else _unfinished(reached, settings)
    if as_json:
        print_json(
            [dataclasses.asdict(hit) | {"name": names[hit.recording]} for hit in hits[:limit]]
        )
    elif not hits:
        nothing = f"no transcript contains these words{local_hint(settings)}"
        raise InputError(unfinished or nothing)
    else:
        click.echo("\n".join(lines(hits[:limit], names, columns())))
        click.echo(f"\nExport: {PROGRAM} export RECORDING_ID{same_place(settings)}")
        if len(hits) > limit:
            click.echo(f"More:   {PROGRAM} search --limit {limit * 5}{same_place(settings)} …")
    if unfinished is not None:
        click.echo(unfinished, err=True)


def _unfinished(reached: datetime, settings: Settings) -> str:
    # Transcripts that began earlier were not searched, and go on for up to a sequence.
    overlap = timedelta(seconds=MAX_CHUNKS * NOMINAL_CHUNK_SECONDS)
    until = shlex.quote(at(reached + overlap))
    more = f"{PROGRAM} search --until {until}{same_place(settings)} …"
    return (
        f"Searched back to {at(reached)} only: a search stops after {SECONDS:g} s."
        f" To continue: {more}"
    )


def _hits(
    wanted: Query, stretches: Iterable[Stretch], since: datetime | None, until: datetime | None
) -> Iterator[Hit]:
    for stretch in stretches:
        for hit in wanted.hits(stretch):
            if (since is None or since <= hit.start) and (until is None or hit.start < until):
                yield hit


def lines(hits: Iterable[Hit], names: Mapping[str, str | None], columns: int) -> Iterator[str]:
    """A heading per day and recording, and a line per hit, which fits into this many columns."""
    groups = itertools.groupby(hits, key=lambda hit: (at(hit.start)[:DAY], hit.recording))
    for number, ((day, recording), said) in enumerate(groups):
        if number:
            yield ""
        yield f"{day} · {title(recording, names[recording])}"
        for hit in said:
            moment = f"  {at(hit.start)[DAY + 1 :]}  "
            before, after = _beside(hit, columns - len(moment))
            yield f"{moment}{before}{click.style(hit.text, bold=True)}{after}"


def _beside(hit: Hit, columns: int) -> tuple[str, str]:
    """The words before and after a hit, cut where there is no room for both."""
    room = max(0, columns - len(hit.text))
    kept_after = min(len(hit.after), max(room // 2, room - len(hit.before)))
    kept_before = min(len(hit.before), room - kept_after)
    before, after = hit.before, hit.after
    if kept_before < len(before):
        before = f"…{before[len(before) - kept_before + 1 :]}" if kept_before else ""
    if kept_after < len(after):
        after = f"{after[: kept_after - 1]}…" if kept_after else ""
    return before, after

"""`recordings`: what was recorded, and how far it has come."""

import dataclasses
from datetime import timedelta
from typing import Any, Final

import click

from stt_lib.cli.options import JSON, number_option, settings_options
from stt_lib.cli.rendering import print_json, table, to_the_minute
from stt_lib.cli.session import local_hint, opened_store
from stt_lib.config.loader import load
from stt_lib.domain.models import RecordingSummary
from stt_lib.domain.text import one_line
from stt_lib.domain.units import duration

HEADER: Final = ("recording", "start", "length", "state", "words", "name")


@click.command()
@number_option("--limit", "List at most this many", 20)
@JSON
@settings_options("since", "until", "local", "data_dir")
def recordings(limit: int, as_json: bool, **flags: Any) -> None:
    """List recordings, newest first, and their progress.

    A recording is pending while some of it remains to be transcribed, failed or parked if only
    failures are left (see `errors`), and done otherwise. If `ingest` or `transcribe` stored it, the
    name is that of its file.
    """
    settings = load(flags)
    with opened_store(settings) as store:
        found = store.recordings.newest(limit, settings.since, settings.until)
    if as_json:
        print_json([dataclasses.asdict(recording) for recording in found])
    elif found:
        click.echo(table([HEADER, *map(_row, found)]))
    else:
        click.echo(f"There are no recordings{local_hint(settings)}.")


def _row(recording: RecordingSummary) -> tuple[str, ...]:
    id_, name = one_line(recording.id), one_line(recording.name or "-")
    start = to_the_minute(recording.start)
    length = duration(timedelta(seconds=recording.seconds))
    return id_, start, length, recording.state, f"{recording.words:,}", name

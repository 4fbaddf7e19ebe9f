"""`export`: transcripts as text, subtitles, tables and pages."""

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from stt_lib.cli import exit_codes
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import local_hint, opened_store
from stt_lib.cli.signals import StopSignal
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.utterances import Stretch
from stt_lib.errors import InputError, Stopped
from stt_lib.export import WRITERS, by_suffix, deliver
from stt_lib.export.scope import Scope, readable
from stt_lib.store import Store


@click.command()
@click.argument("recording", metavar="[RECORDING_ID]", required=False)
@click.option(
    "--format",
    "name",
    type=click.Choice(list(WRITERS)),
    help="Output format [default: by the extension of FILE, else txt]",
)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    help="Write to FILE, replacing it once the export is complete [default: stdout]",
)
@settings_options("since", "until", "local", "data_dir")
def export(recording: str | None, name: str | None, file: str | None, **flags: Any) -> int:
    """Write transcripts as text, subtitles, pages or tables.

    Exports one recording, or a period over all recordings in order of time. Subtitles of a
    recording start at zero; those of a period show the time of day.
    """
    settings = load(flags)
    path = None if file in (None, "-") else Path(str(file))
    write = WRITERS[name or by_suffix(path)]
    signals = StopSignal()
    with signals.caught(), opened_store(settings, stop=signals.event) as store:
        try:
            stretches = _stretches(store, recording, settings, signals)
            first = next(stretches, None)
            if first is None:
                raise InputError(_nothing(recording, settings))
            scope = _scope(store, recording, settings, first)
            deliver(write(itertools.chain([first], stretches), scope), path)
        except Stopped:
            return exit_codes.by_signal(signals.number or signal.SIGINT)
        except BrokenPipeError:
            return exit_codes.OK  # the reader has seen enough
    return exit_codes.OK


def _stretches(
    store: Store, recording: str | None, settings: Settings, signals: StopSignal
) -> Iterator[Stretch]:
    """The stretches until a signal arrives."""
    since, until = settings.since, settings.until
    for stretch in readable(store.transcripts.stretches(recording, since=since, until=until)):
        if signals.event.is_set():
            raise Stopped
        yield stretch


def _nothing(recording: str | None, settings: Settings) -> str:
    whose = "" if recording is None else f" of recording {recording}"
    when = "" if settings.since is None and settings.until is None else " in that period"
    return f"there is no transcript{whose}{when}{local_hint(settings)}"


def _scope(store: Store, recording: str | None, settings: Settings, first: Stretch) -> Scope:
    """Subtitles of a recording count from its beginning; others show the time of the day."""
    if recording is None:
        zero = first.start.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    else:
        zero = min(store.transcripts.beginning(recording) or first.start, first.start)
    return Scope(recording, settings.since, settings.until, zero)

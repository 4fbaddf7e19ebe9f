"""`export`: transcripts as text, subtitles, tables and pages."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import click

from stt_lib.cli.options import settings_options
from stt_lib.cli.session import local_hint, opened_store
from stt_lib.cli.signals import StopSignal
from stt_lib.config.loader import load
from stt_lib.domain.models import Selection
from stt_lib.domain.units import counted
from stt_lib.domain.utterances import Stretch
from stt_lib.errors import InputError, Stopped
from stt_lib.export import WRITERS, by_suffix, deliver, file_name, locked
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
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    help="Write one file per recording to FOLDER, and only those that changed",
)
@settings_options("since", "until", "local", "data_dir")
def export(
    recording: str | None,
    name: str | None,
    file: str | None,
    folder: str | None,
    **flags: Any,
) -> None:
    """Write transcripts as text, subtitles, pages or tables.

    Exports one recording, or a period over all recordings in order of time. Subtitles of a
    recording start at zero; those of a period show the time of day.

    With --to, a period selects the recordings with transcripts in it; they are written as a whole.
    """
    settings = load(flags)
    if folder is not None and file is not None:
        raise click.UsageError("--output and --to cannot be combined")
    path = None if file in (None, "-") else Path(str(file))
    name = name or by_suffix(path)
    selection = Selection(settings.since, settings.until, recording)
    signals = StopSignal()
    with signals.caught(), opened_store(settings, stop=signals.event) as store:
        exporter = _Exporter(store, name, signals.event)
        if folder is not None:
            exporter.to_folder(selection, Path(folder))
        elif not exporter.to_file(selection, path):
            raise InputError(f"{_nothing(selection)}{local_hint(settings)}")


@dataclass(frozen=True)
class _Exporter:
    """Writes transcripts in one format, until it is stopped."""

    store: Store
    format: str
    stop: Event

    def to_folder(self, selection: Selection, folder: Path) -> None:
        """Write the files of those recordings that changed since they were written."""
        written = unchanged = 0
        with locked(folder) as versions:
            changed = self.store.transcripts.versions(selection)
            for recording, version in changed.items():
                name = file_name(recording, self.format)
                if versions.get(name) == version and (folder / name).exists():
                    unchanged += 1
                elif self.to_file(Selection(recording=recording), folder / name):
                    versions[name] = version
                    written += 1
        click.echo(f"{counted(written, 'file')} written to {folder}, {unchanged:,} unchanged")

    def to_file(self, selection: Selection, path: Path | None) -> bool:
        """Write one file, or to standard output; False if there is no transcript."""
        stretches = self._stretches(selection)
        first = next(stretches, None)
        if first is None:
            return False
        write = WRITERS[self.format]
        deliver(write(itertools.chain([first], stretches), self._scope(selection, first)), path)
        return True

    def _stretches(self, selection: Selection) -> Iterator[Stretch]:
        for stretch in readable(self.store.transcripts.stretches(selection)):
            if self.stop.is_set():
                raise Stopped
            yield stretch

    def _scope(self, selection: Selection, first: Stretch) -> Scope:
        """Subtitles of a recording count from its beginning; others show the time of the day.

        After a clock change they go on by the clock at the beginning: players need subtitles in
        order, and an hour may be repeated.
        """
        recording, since, until = selection.recording, selection.since, selection.until
        name_of = functools.cache(self.store.recordings.name)
        if recording is None:
            scope = Scope(None, since, until, zero=first.start, name_of=name_of)
            day = scope.local(first.start).replace(hour=0, minute=0, second=0, microsecond=0)
            return replace(scope, zero=day)
        began = self.store.recordings.beginning(recording) or first.start
        return Scope(recording, since, until, zero=min(began, first.start), name_of=name_of)


def _nothing(selection: Selection) -> str:
    whose = "" if selection.recording is None else f" of recording {selection.recording}"
    has_span = selection.since is not None or selection.until is not None
    return f"there is no transcript{whose}{' in that period' if has_span else ''}"

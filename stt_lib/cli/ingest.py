"""`ingest`: audio and video files become chunks."""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stt_lib.cli import exit_codes
from stt_lib.cli.options import settings_options
from stt_lib.cli.rendering import at
from stt_lib.cli.session import not_installed, opened_store
from stt_lib.cli.signals import StopSignal
from stt_lib.config import parsers
from stt_lib.config.loader import load
from stt_lib.domain.models import USABLE_YEARS, NewChunk
from stt_lib.domain.units import counted
from stt_lib.errors import ConfigurationError, InputError, Stopped
from stt_lib.store import Store
from stt_lib.timing import Event

if TYPE_CHECKING:
    from stt_lib.local.ingest import Recording

PRECISION = timedelta(milliseconds=1)
"""Duration. What MongoDB's dates are cut off to."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--start",
    metavar="TIME",
    help="When the recording began, such as 2026-03-01T08:00; local time unless it ends in Z or"
    " +HH:MM [default: the creation time in the file, else its modification time minus its"
    " duration]",
)
@settings_options("local", "data_dir")
def ingest(files: tuple[Path, ...], start: str | None, **flags: Any) -> int:
    """Store audio or video FILES as 10 s chunks in MongoDB, ready to transcribe.

    A file that was stored before is not stored again and keeps its start. Files that cannot be
    read, or whose start --start contradicts, are listed at the end, with exit code 1; the others
    are stored. An interrupted command continues when repeated.
    """
    try:
        from stt_lib.local.ingest import survey
    except ImportError as error:
        raise not_installed(error) from None
    began = None if start is None else _moment(start)
    signals = StopSignal()
    problems: list[InputError] = []
    stored = 0
    try:
        with signals.caught(), opened_store(load(flags), stop=signals.event) as store:
            for path in files:
                try:
                    recording = survey(path, began, stop=signals.event)
                    _store_recording(store, _dated(store, recording, began), signals.event)
                    stored += 1
                except InputError as error:
                    problems.append(error)
    finally:
        for problem in problems:
            click.echo(f"stt: {problem}", err=True)
        if signals.number is not None and stored + len(problems) < len(files):
            click.echo(
                f"stt: {stored} of {counted(len(files), 'file')} stored; run the same command again"
                " to continue: what is stored so far is kept",
                err=True,
            )
    return exit_codes.FAILURES if problems else exit_codes.OK


def _moment(start: str) -> datetime:
    try:
        began = parsers.moment(start)
    except ValueError as error:
        raise ConfigurationError(f"--start {error}, not {start!r}") from None
    if began.year not in USABLE_YEARS:
        years = f"{USABLE_YEARS[0]} to {USABLE_YEARS[-1]}"
        raise ConfigurationError(f"--start must be in the years {years}, not {start!r}")
    return began


def continued(store: Store, recording: "Recording") -> "Recording":
    """A recording that begins when its first chunk does, if that is stored.

    The file may have been touched since the command that stored it was interrupted.
    """
    start = store.chunks.start(recording.first_chunk)
    return recording if start is None else dataclasses.replace(recording, start=start)


def _dated(store: Store, recording: "Recording", began: datetime | None) -> "Recording":
    """The same where --start may have been given: it must not contradict what is stored."""
    stored = continued(store, recording)
    if began is not None and abs(stored.start - recording.start) >= PRECISION:
        raise InputError(
            f"{recording.path} was stored before and begins at {at(stored.start)},"
            " which --start cannot change"
        )
    return stored


def _store_recording(store: Store, recording: "Recording", stop: Event) -> None:
    verdicts: list[bool] = []
    new = store.chunks.insert(_noted(recording.chunks(), verdicts, stop))
    known = "" if new == len(verdicts) else f", {len(verdicts) - new:,} stored before"
    track = f", audio track {recording.track + 1} of {recording.tracks}"
    click.echo(
        f"{recording.path}: {counted(len(verdicts), 'chunk')}, {sum(verdicts):,} with speech"
        f"{known}{track if recording.tracks > 1 else ''}"
        f" (recording {recording.id_text})"
    )


def _noted(chunks: Iterable[NewChunk], verdicts: list[bool], stop: Event) -> Iterator[NewChunk]:
    """Pass chunks on until `stop` is set, one at a time; note which of them contain speech."""
    for chunk in chunks:
        if stop.is_set():
            raise Stopped
        verdicts.append(chunk.has_speech)
        yield chunk

"""`transcribe`: from audio and video files to texts beside them, in one command."""

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click

from stt_lib.cli import exit_codes, run
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import reachable
from stt_lib.cli.signals import StopSignal
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import is_given, load
from stt_lib.config.settings import Settings
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.domain.units import counted
from stt_lib.errors import ConfigurationError, InputError
from stt_lib.export import WRITERS, deliver
from stt_lib.export.scope import Scope, readable
from stt_lib.pipeline.runner import Report
from stt_lib.pipeline.sinks import ChunkSink
from stt_lib.pipeline.sources import ArrivingChunks, PendingChunks
from stt_lib.store import Store
from stt_lib.timing import REAL, Event

FORMATS = ("txt", "srt", "vtt", "json")


@dataclass(slots=True)
class _Files:
    """The files of a command: the text that each becomes, and what is known of each so far."""

    targets: dict[Path, Path]
    recordings: dict[Path, str] = field(default_factory=dict)
    problems: list[InputError] = field(default_factory=list)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "name",
    type=click.Choice(FORMATS),
    default="txt",
    help="Output format [default: txt]",
)
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the texts to DIR [default: beside each file]",
)
@settings_options("max_workers", "server_url", "protocol", "model", "language", "prompt")
@settings_options("data_dir", "log_file")
def transcribe(files: tuple[Path, ...], name: str, folder: Path | None, **flags: Any) -> int:
    """Transcribe audio or video FILES, each to a text file beside it.

    Uses the embedded MongoDB, and the embedded Whisper server unless --server names another one.
    Transcripts are kept in --data-dir: a file that was transcribed before is not sent again.
    Files that cannot be read are reported, with exit code 1; the others are transcribed.
    """
    settings = _settings(flags)
    texts = _Files(_targets(files, name, folder))
    run.set_up_log(dataclasses.replace(settings, quiet=True), settings.log_file)
    signals = StopSignal()
    with (
        signals.caught(),
        reachable(settings, whisper=False, stop=signals.event) as places,
        Store(places.mongodb_uri, places.mongodb_database, stop=signals.event) as store,
    ):
        store.indexes.ensure()
        new = _new(store, texts)
        if new:
            is_served = is_given("server_url", flags)
            report = _process(store, new, texts, settings, signals, is_served=is_served)
            if report.halted_by is not None or signals.number is not None:
                return run.exit_code(report, signals)
        for path in filter(texts.recordings.__contains__, texts.targets):
            _write(store, texts, path, name)
    for problem in texts.problems:
        click.echo(f"stt: {problem}", err=True)
    return exit_codes.FAILURES if texts.problems else exit_codes.OK


def _settings(flags: dict[str, Any]) -> Settings:
    """The settings without those of other kinds of runs, which the environment may contain."""
    settings = load({**flags, "local": True})
    return dataclasses.replace(
        settings, limit=None, watch=None, max_runtime=None, retranscribe=None, summary=None
    )


def _targets(files: tuple[Path, ...], suffix: str, folder: Path | None) -> dict[Path, Path]:
    """The text file for each file.

    Raises:
        ConfigurationError: two files would have the same one.
    """
    targets: dict[Path, Path] = {}
    sources: dict[Path, Path] = {}
    for path in files:
        target = (folder or path.parent) / f"{path.stem}.{suffix}"
        if sources.setdefault(target, path) != path:
            raise ConfigurationError(f"{sources[target]} and {path} would both become {target}")
        targets[path] = target
    return targets


def _new(store: Store, texts: _Files) -> list[Path]:
    """The files that are not completely transcribed; what failed before is made due again."""
    from stt_lib.local.ingest import recording_id

    new: list[Path] = []
    for path in texts.targets:
        try:
            recording = recording_id(path)
        except InputError as problem:
            texts.problems.append(problem)
            continue
        store.failures.retry_now(text=recording)
        if store.chunks.is_whole(recording) and not store.chunks.pending_of(recording):
            texts.recordings[path] = recording
        else:
            new.append(path)
    return new


def _process(
    store: Store,
    new: list[Path],
    texts: _Files,
    settings: Settings,
    signals: StopSignal,
    *,
    is_served: bool,
) -> Report:
    """Transcribe files while a thread reads them; it begins while the model is being loaded."""
    source = ArrivingChunks(PendingChunks(store))
    reader = REAL.executor(1, "stt-reader")
    reading = reader.submit(_read, store, source, new, texts, signals.event)
    with reachable(settings, whisper=not is_served, stop=signals.event) as places:
        report = run.process(
            places, signals, lambda store, _: (source, ChunkSink(store, settings.max_failures))
        )
    if report.halted_by is None and signals.number is None:
        reading.result()
    return report


def _read(
    store: Store, source: ArrivingChunks, files: list[Path], texts: _Files, stop: Event
) -> None:
    """Store files in blocks of one sequence, so that none is sent before it is whole."""
    from stt_lib.local.ingest import survey

    try:
        sizes = [path.stat().st_size for path in files]
        speech = 0
        for number, path in enumerate(files, start=1):
            try:
                recording = survey(path)
                speech += recording.count_speech()
                source.expect(recording.id_text, speech * sum(sizes) // sum(sizes[:number]))
                chunks = recording.chunks()
                while not stop.is_set() and (block := list(islice(chunks, MAX_CHUNKS))):
                    store.chunks.insert(block)
                    source.arrived()
                source.stored(recording.id_text)
                texts.recordings[path] = recording.id_text
            except InputError as problem:
                texts.problems.append(problem)
    finally:
        source.complete()


def _write(store: Store, texts: _Files, path: Path, name: str) -> None:
    recording, target = texts.recordings[path], texts.targets[path]
    stretches = list(readable(store.transcripts.stretches(recording)))
    zero = store.transcripts.beginning(recording) or datetime.now(UTC)
    target.parent.mkdir(parents=True, exist_ok=True)
    deliver(WRITERS[name](stretches, Scope(recording, None, None, zero=zero)), target)
    click.echo(f"{path}: {target}{'' if stretches else ' (no speech found)'}")
    if missing := len(store.chunks.pending_of(recording)):
        texts.problems.append(
            InputError(
                f"{path}: {counted(missing, 'chunk')} not transcribed; to see why:"
                f" {PROGRAM} errors --local"
            )
        )

"""`transcribe`: from audio and video files to texts beside them, in one command."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from signal import SIGINT
from typing import Any

import click

from stt_lib.cli import exit_codes, run
from stt_lib.cli.ingest import continued
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import reachable, same_place
from stt_lib.cli.signals import StopSignal
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import is_given, load
from stt_lib.config.settings import Settings
from stt_lib.domain.models import Chunk, Condition, Failure, Selection, Transcript
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.domain.units import counted
from stt_lib.errors import ConfigurationError, InputError, Stopped
from stt_lib.export import WRITERS, deliver
from stt_lib.export.scope import Scope, readable
from stt_lib.files import is_writable
from stt_lib.local.cores import cores
from stt_lib.pipeline.retranscription import meets
from stt_lib.pipeline.sinks import ChunkSink
from stt_lib.pipeline.sources import ArrivingChunks, PendingChunks
from stt_lib.store import Store
from stt_lib.telemetry.progress import print_above
from stt_lib.timing import REAL, Event

FORMATS = ("txt", "srt", "vtt", "json")

LONGEST_LEASE = 15.0
"""Seconds. How long somebody who repeats a killed command has to wait for its claims at most."""


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
@settings_options("max_workers", default="one per core with the embedded server")
@settings_options("server_url", default="the embedded server")
@settings_options("protocol", "model", "language", "prompt")
@settings_options("data_dir", "log_file")
def transcribe(files: tuple[Path, ...], name: str, folder: Path | None, **flags: Any) -> int:
    """Transcribe audio or video FILES, each to a text file beside it.

    Uses the embedded MongoDB, and the embedded Whisper server unless --server names another one.
    Each text is written as soon as its file is done. Transcripts are kept in --data-dir: a file
    that was transcribed before is not sent again, and an interrupted command continues when
    repeated.

    Files that cannot be read are reported, with exit code 1; the others are transcribed.
    """
    settings = run.on_its_own(load({**flags, "local": True}))
    settings = dataclasses.replace(settings, lease=min(settings.lease, LONGEST_LEASE))
    targets = _targets(files, name, folder)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for target in targets.values():
        if not is_writable(target):
            raise ConfigurationError(f"{target} cannot be written: see its rights and its folder")
    run.set_up_log(dataclasses.replace(settings, quiet=True), settings.log_file)
    signals = StopSignal()
    with (
        signals.caught(),
        reachable(settings, whisper=False, stop=signals.event) as places,
        Store(places.mongodb_uri, places.mongodb_database, stop=signals.event) as store,
    ):
        store.indexes.ensure()
        problems: list[InputError] = []
        recordings = _recordings(store, targets, problems)
        texts = _Texts(store, targets, name, problems, same_place(settings))
        new = [path for path in recordings if not texts.is_known(path, recordings[path])]
        known = {path: recordings[path] for path in recordings if path not in new}
        _say_what_has_no_effect(store, known, flags)
        is_served = is_given("server_url", flags)
        if not is_served and not is_given("max_workers", flags):
            settings = dataclasses.replace(settings, max_workers=cores())
        code = _process(store, new, texts, settings, signals, is_served=is_served) if new else None
        texts.close(is_complete=code is None)
    for problem in problems:
        click.echo(f"stt: {problem}", err=True)
    if code is not None and texts.written < len(targets):
        click.echo(
            f"stt: {texts.written} of {counted(len(targets), 'text')} written;"
            " run the same command again to continue: what is transcribed so far is kept",
            err=True,
        )
    return code or (exit_codes.FAILURES if problems else exit_codes.OK)


def _targets(files: tuple[Path, ...], suffix: str, folder: Path | None) -> dict[Path, Path]:
    """The text file for each file, except for those that are the text of another one.

    Raises:
        ConfigurationError: two files would have the same one, or a file would be its own text.
    """
    targets = {path: (folder or path.parent) / f"{path.stem}.{suffix}" for path in files}
    sources: dict[Path, Path] = {}
    for path, target in targets.items():
        if target.resolve() == path.resolve():
            continue
        if sources.setdefault(target.resolve(), path) != path:
            first = sources[target.resolve()]
            raise ConfigurationError(f"{first} and {path} would both become {target}")
    for path in list(targets):
        source = sources.get(path.resolve())
        if source is not None and _is_text(path):
            click.echo(f"stt: {path} is left out: it is the text of {source}", err=True)
            del targets[path]
        elif source is not None or targets[path].resolve() == path.resolve():
            raise ConfigurationError(
                f"{path} would be replaced by the text of {source or path}:"
                " choose another --format or --output"
            )
    return targets


def _is_text(path: Path) -> bool:
    """Whether a file is no recording: only those contain zero bytes, as git assumes as well."""
    try:
        with path.open("rb") as stream:
            return b"\0" not in stream.read(8000)
    except OSError:
        return False


def _say_what_has_no_effect(store: Store, known: dict[Path, str], flags: dict[str, Any]) -> None:
    """A file is not sent again because of other options than those it was transcribed with."""
    asked = [Condition(name, flags[name]) for name in ("model", "language") if flags[name]]
    for path, recording in known.items():
        found = store.transcripts.count_by_origin(Selection(recording=recording))
        unmet = [c.field for c in asked if not all(meets(origin, [c]) for origin, _ in found)]
        unmet += ["prompt"] if flags["prompt"] else []  # that of a transcript is not known here
        if unmet:
            click.echo(
                f"stt: {path} was transcribed before, so --{' and --'.join(unmet)} had no effect:"
                " to transcribe it anew, give another --data-dir",
                err=True,
            )


def _recordings(store: Store, files: Iterable[Path], problems: list[InputError]) -> dict[Path, str]:
    """The recordings that files are stored as; what failed before is made due again."""
    from stt_lib.local.ingest import recording_id

    recordings: dict[Path, str] = {}
    for path in files:
        try:
            recordings[path] = recording_id(path)
            store.failures.retry_now(text=recordings[path], restores=False)
        except InputError as problem:
            problems.append(problem)
    return recordings


class _Texts:
    """Writes the text of each file once its recording is transcribed, in a thread of its own."""

    def __init__(
        self,
        store: Store,
        targets: dict[Path, Path],
        name: str,
        problems: list[InputError],
        place: str,
    ) -> None:
        """Do not wait for chunks that fail from now on; `place` holds the options for `errors`."""
        self.written = 0
        self.problems = problems
        self._store = store
        self._targets = targets
        self._format = name
        self._place = place
        self._began = store.now()
        self._recordings: dict[Path, str] = {}
        """Files that are completely stored, without those whose text is written."""
        self._writer = REAL.executor(1, "stt-texts")

    def is_known(self, path: Path, recording: str) -> bool:
        """Whether a file was transcribed before; then its text is written."""
        chunks = self._store.chunks
        is_done = chunks.is_whole(recording) and not chunks.has_due(recording, self._began)
        if is_done:
            self.stored(path, recording)
        return is_done

    def stored(self, path: Path, recording: str) -> None:
        """A file is stored to its end."""
        self._writer.submit(self._recordings.__setitem__, path, recording)
        self.advanced(recording)

    def advanced(self, recording: str | None = None) -> None:
        """Some chunks of a recording are done or have failed; None stands for any recording."""
        self._writer.submit(self._write_complete, recording)

    def close(self, *, is_complete: bool) -> None:
        """Wait for the thread; after a complete run, write whatever text is missing."""
        self._writer.shutdown()
        if is_complete:
            for path in list(self._recordings):
                self._write(path)

    def _write_complete(self, recording: str | None) -> None:
        for known in {recording} if recording else set(self._recordings.values()):
            paths = [path for path, of in self._recordings.items() if of == known]
            if paths and not self._store.chunks.has_due(known, self._began):
                for path in paths:
                    self._write(path)

    def _write(self, path: Path) -> None:
        recording, target = self._recordings[path], self._targets[path]
        said = self._store.transcripts.stretches(Selection(recording=recording))
        stretches = list(readable(said))
        zero = self._store.recordings.beginning(recording) or datetime.now(UTC)
        missing = len(self._store.chunks.pending_of(recording))
        del self._recordings[path]
        if missing:
            self.problems.append(InputError(f"{path}: {self._why_missing(recording, missing)}"))
            if not stretches:
                return  # what there may be is worth more than nothing
        elif not stretches and self._store.chunks.has_discarded(recording):
            print_above(f"{path}: no text, because its chunks were discarded")
            return
        try:
            scope = Scope(recording, None, None, zero=zero, name_of=lambda _: path.name)
            deliver(WRITERS[self._format](stretches, scope), target)
        except InputError as problem:
            self.problems.append(problem)
        else:
            self.written += 1
            print_above(f"{path}: {target}{'' if stretches else ' (no speech found)'}")

    def _why_missing(self, recording: str, chunks: int) -> str:
        missing = f"{counted(chunks, 'chunk')} not transcribed"
        if self._store.chunks.has_due(recording, self._began):
            return f"{missing}: another command is at work on it; run the same command again"
        return f"{missing}; to see why: {PROGRAM} errors{self._place}"


class _TextSink(ChunkSink):
    """Saves transcripts, and says which recording has advanced."""

    def __init__(self, store: Store, max_failures: int, texts: _Texts) -> None:
        super().__init__(store, max_failures)
        self._texts = texts

    def save(self, transcript: Transcript) -> bool:
        is_saved = super().save(transcript)
        self._texts.advanced(str(transcript.original_id))
        return is_saved

    def no_speech(self, transcript: Transcript) -> None:
        super().no_speech(transcript)
        self._texts.advanced(str(transcript.original_id))

    def failed(self, chunks: Sequence[Chunk], failure: Failure, **how: Any) -> None:
        super().failed(chunks, failure, **how)
        self._texts.advanced()


def _process(
    store: Store,
    new: list[Path],
    texts: _Texts,
    settings: Settings,
    signals: StopSignal,
    *,
    is_served: bool,
) -> int | None:
    """Transcribe files while a thread reads them; it begins while the model is being loaded.

    Returns the exit code of a run that ended early, else None.
    """
    source = ArrivingChunks(PendingChunks(store))
    reader = REAL.executor(1, "stt-reader")
    reading = reader.submit(_read, store, source, new, texts, signals.event)
    try:
        with reachable(settings, whisper=not is_served, stop=signals.event) as places:
            report = run.process(
                places,
                signals,
                lambda store, _: (source, _TextSink(store, settings.max_failures, texts)),
            )
    except Stopped:
        return exit_codes.by_signal(signals.number or SIGINT)
    if report.halted_by is not None or signals.number is not None:
        return run.exit_code(report, signals)
    reading.result()
    return None


def _size(path: Path) -> int:
    """Bytes, at least 1; why a file cannot be read is said when its turn comes."""
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


def _read(
    store: Store, source: ArrivingChunks, files: list[Path], texts: _Texts, stop: Event
) -> None:
    """Store files in blocks of one sequence, so that none is sent before it is whole."""
    from stt_lib.local.ingest import survey

    try:
        sizes = [_size(path) for path in files]
        speech = 0
        for number, path in enumerate(files, start=1):
            try:
                recording = continued(store, survey(path, stop=stop))
                speech += recording.count_speech()
                source.expect(recording.id_text, speech * sum(sizes) // sum(sizes[:number]))
                chunks = recording.chunks()
                while not stop.is_set() and (block := list(islice(chunks, MAX_CHUNKS))):
                    store.chunks.insert(block)
                    source.arrived()
                if stop.is_set():
                    return
                source.stored(recording.id_text)
                texts.stored(path, recording.id_text)
            except InputError as problem:
                texts.problems.append(problem)
    finally:
        source.complete()

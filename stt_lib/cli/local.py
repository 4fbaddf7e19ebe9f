"""`demo`, `ingest` and `serve`: the commands of the embedded stack."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stt_lib.cli import exit_codes, run
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import EMBEDDED_MODEL, opened_store, reachable
from stt_lib.cli.signals import StopSignal
from stt_lib.config import parsers
from stt_lib.config.settings import Settings, load
from stt_lib.domain.models import NewChunk
from stt_lib.errors import ConfigurationError, InputError, LocalStackError
from stt_lib.export import text
from stt_lib.export.scope import Scope, readable
from stt_lib.store import Store

if TYPE_CHECKING:
    from stt_lib.local.ingest import Recording

SAMPLES_START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""Start of the first sample recording; the others follow at intervals of an hour."""


@click.command(short_help="Transcribe sample recordings, everything embedded.")
@settings_options("data_dir", "log_file")
def demo(**flags: Any) -> int:
    """Transcribe the sample recordings with an embedded MongoDB and Whisper server.

    Everything is stored under --data-dir; a second demo finds nothing left to do.
    """
    settings = load({**flags, "local": True, "max_workers": 2})
    run.set_up_log(settings, settings.log_file)
    signals = StopSignal()
    with signals.caught():
        click.echo("Starting MongoDB and a Whisper server …")
        with reachable(settings, whisper=True, stop=signals.event) as places:
            new = _ingest_samples(places)
            if new:
                click.echo(f"Stored {new} chunks of sample recordings in MongoDB.")
            report = run.process(places, signals)
            if not report.halted_by:
                _show_transcripts(places, had_work=report.tally.attempted > 0)
    return run.exit_code(report, signals)


def _ingest_samples(settings: Settings) -> int:
    from stt_lib.local.ingest import read_recording
    from stt_lib.local.samples import recordings

    with Store(settings.mongodb_uri, settings.mongodb_database) as store:
        return sum(
            store.insert_chunks(read_recording(path, start))
            for path, start in recordings(SAMPLES_START)
        )


def _show_transcripts(settings: Settings, *, had_work: bool) -> None:
    if not had_work:
        click.echo("Nothing to do: the samples were transcribed before. Their transcripts:")
    click.echo()
    scope = Scope(None, None, None, zero=SAMPLES_START)
    with Store(settings.mongodb_uri, settings.mongodb_database) as store:
        for part in text.write(readable(store.stretches(None)), scope):
            click.echo(part, nl=False)


@click.command(short_help="Store audio or video files as chunks, ready to transcribe.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--start",
    metavar="TIME",
    help="When the recording began, as 2026-03-01T08:00; local time unless it ends in Z or +HH:MM. "
    "[default: the creation time in the file, or its modification time minus its duration]",
)
@settings_options("local", "data_dir")
def ingest(files: tuple[Path, ...], start: str | None, **flags: Any) -> int:
    """Cut audio or video FILES into 10 s chunks and store them in MongoDB, ready to transcribe.

    A file that was stored before is not stored again. Files that cannot be read are listed at the
    end, with exit code 1; the others are stored.
    """
    try:
        from stt_lib.local.ingest import survey
    except ImportError as error:
        raise _not_installed(error) from None
    began = _moment(start)
    problems: list[InputError] = []
    with opened_store(load(flags)) as store:
        for path in files:
            try:
                _store_recording(store, survey(path, began))
            except InputError as error:
                problems.append(error)
    for problem in problems:
        click.echo(f"stt: {problem}", err=True)
    return exit_codes.FAILURES if problems else exit_codes.OK


def _store_recording(store: Store, recording: "Recording") -> None:
    verdicts: list[bool] = []
    new = store.insert_chunks(_noted(recording.chunks(), verdicts))
    known = "" if new == len(verdicts) else f", {len(verdicts) - new} stored before"
    chosen = f", audio track {recording.track + 1} of {recording.tracks}"
    click.echo(
        f"{recording.path}: {len(verdicts)} {'chunk' if len(verdicts) == 1 else 'chunks'}, "
        f"{sum(verdicts)} with speech{known}{chosen if recording.tracks > 1 else ''}"
        f" (recording {recording.id_bytes.hex()})"
    )


def _noted(chunks: Iterable[NewChunk], verdicts: list[bool]) -> Iterator[NewChunk]:
    """Pass chunks on, one at a time, and note which of them contain speech."""
    for chunk in chunks:
        verdicts.append(chunk.has_speech)
        yield chunk


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parsers.moment(text, datetime.now().astimezone())
    except ValueError as error:
        raise ConfigurationError(f"--start {error}, not {text!r}") from None


@click.command()
@settings_options("host", "port", "model", "device", "compute_type", "api_key")
def serve(**flags: Any) -> None:
    """Run a Whisper server that speaks POST /transcribe and OpenAI's API."""
    settings = load(flags)
    try:
        from stt_lib.local.server import app
    except ImportError as error:
        raise _not_installed(error) from None
    run.set_up_log(settings, None)
    app.serve(
        host=settings.host,
        port=settings.port,
        model=settings.model or EMBEDDED_MODEL,
        device=settings.device,
        compute_type=settings.compute_type,
        api_key=settings.api_key,
        announce=lambda url: click.echo(f"Whisper server ready on {url}"),
    )


def _not_installed(error: ImportError) -> LocalStackError:
    return LocalStackError(
        f"the embedded stack is not installed ({error.name} is missing): "
        "pip install -r requirements-local.txt"
    )

"""`demo`, `ingest` and `serve`: the commands of the embedded stack."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from stt_lib.cli import run
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import EMBEDDED_MODEL, opened_store, reachable
from stt_lib.cli.signals import StopSignal
from stt_lib.config import parsers
from stt_lib.config.settings import Settings, load
from stt_lib.domain.models import Transcript
from stt_lib.errors import ConfigurationError, LocalStackError
from stt_lib.store import Store

SAMPLES_START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""When the sample recordings were made, they say; an hour lies between them."""

PARAGRAPH_SECONDS = 45.0


@click.command(short_help="Transcribe sample recordings, everything embedded.")
@settings_options("data_dir", "log_file")
def demo(**flags: Any) -> int:
    """Transcribe the sample recordings with an embedded MongoDB and Whisper server.

    Everything it makes is under --data-dir; a second time there is nothing left to do.
    """
    settings = load({**flags, "local": True, "max_workers": 2})
    run.set_up_log(settings, settings.log_file)
    signals = StopSignal()
    with signals.caught():
        click.echo("Starting MongoDB and a Whisper server …")
        with reachable(settings, whisper=True, stop=signals.event) as places:
            new = _ingest_samples(places)
            if new:
                click.echo(f"{new} chunks of sample recordings are new in MongoDB.")
            report = run.process(places, signals)
            if not report.halted_by:
                _show_transcripts(places, had_work=report.tally.attempted > 0)
    return run.exit_code(report, signals)


def _ingest_samples(settings: Settings) -> int:
    from stt_lib.local.ingest import read_recording
    from stt_lib.local.samples import recordings

    with Store(settings.mongodb_uri, settings.mongodb_database) as store:
        return sum(
            store.chunks.insert(read_recording(path, start))
            for path, start in recordings(SAMPLES_START)
        )


def _show_transcripts(settings: Settings, *, had_work: bool) -> None:
    if not had_work:
        click.echo("Nothing to do: the samples were transcribed before. Their transcripts:")
    with Store(settings.mongodb_uri, settings.mongodb_database) as store:
        recording = None
        for transcript in store.transcripts.all():
            if transcript.original_id != recording:
                recording = transcript.original_id
                heading = f"{transcript.start.astimezone():%Y-%m-%d} · recording {recording}"
                click.echo("\n" + click.style(heading, bold=True))
            for start, text in _paragraphs(transcript):
                click.echo(
                    click.wrap_text(text, 88, f"  {start.astimezone():%H:%M:%S}  ", " " * 12)
                )


def _paragraphs(transcript: Transcript) -> Iterator[tuple[datetime, str]]:
    """The text in pieces of about `PARAGRAPH_SECONDS`, each with the time when it begins."""
    started, words = 0.0, ""
    for segment in transcript.segments:
        if words and segment.end - started > PARAGRAPH_SECONDS:
            yield transcript.start + timedelta(seconds=started), words.strip()
            words = ""
        started = started if words else segment.start
        words += " " + segment.text.strip()
    if words:
        yield transcript.start + timedelta(seconds=started), words.strip()


@click.command(short_help="Store audio or video files as chunks, ready to transcribe.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--start",
    metavar="TIME",
    help="When the recording began, as 2026-03-01T08:00; local time unless it ends in Z or +HH:MM. "
    "[default: the file's modification time]",
)
@settings_options("local", "data_dir")
def ingest(files: tuple[Path, ...], start: str | None, **flags: Any) -> None:
    """Cut audio or video FILES into 10 s chunks and store them in MongoDB, ready to transcribe.

    A file that is there already is not stored twice.
    """
    try:
        from stt_lib.local.ingest import read_recording
    except ImportError as error:
        raise _not_installed(error) from None
    began = _moment(start)
    recordings = [(path, read_recording(path, began)) for path in files]
    with opened_store(load(flags)) as store:
        for path, chunks in recordings:
            new = store.chunks.insert(chunks)
            speech = sum(chunk.has_speech for chunk in chunks)
            known = "" if new == len(chunks) else f", {len(chunks) - new} were there already"
            click.echo(
                f"{path}: {len(chunks)} chunks, {speech} with speech{known}"
                f" (recording {chunks[0].original_id_bytes.hex()})"
            )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return parsers.moment(text, datetime.now().astimezone())
    except ValueError as error:
        raise ConfigurationError(f"--start {error}, not {text!r}") from None


@click.command()
@settings_options("host", "port", "model", "api_key")
def serve(**flags: Any) -> None:
    """Run a Whisper server that speaks POST /transcribe."""
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
        api_key=settings.api_key,
        announce=lambda url: click.echo(f"Whisper server ready on {url}"),
    )


def _not_installed(error: ImportError) -> LocalStackError:
    return LocalStackError(
        f"the embedded stack is not installed ({error.name} is missing): "
        "pip install -r requirements-local.txt"
    )

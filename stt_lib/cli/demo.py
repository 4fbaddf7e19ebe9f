"""`demo`: the sample recordings, transcribed by an embedded MongoDB and Whisper server."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from stt_lib.cli import run
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import reachable
from stt_lib.cli.signals import StopSignal
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.models import Transcript
from stt_lib.domain.units import counted
from stt_lib.store import Store

SAMPLES_START: Final = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""Start of the first sample recording; the others follow at intervals of an hour."""

PARAGRAPH_SECONDS: Final = 45.0
"""Seconds. Length from which a paragraph ends with the next segment."""


@click.command()
@settings_options("data_dir", "log_file")
def demo(**flags: Any) -> int:
    """Transcribe sample recordings with an embedded MongoDB and Whisper server.

    Its data is kept in the subdirectory demo of --data-dir, apart from your own.
    """
    settings = load({**flags, "local": True, "max_workers": 2})
    settings = dataclasses.replace(settings, data_dir=settings.data_dir / "demo")
    run.set_up_log(settings, settings.log_file)
    signals = StopSignal()
    with signals.caught():
        click.echo("Starting MongoDB and a Whisper server …")
        with reachable(settings, whisper=True, stop=signals.event) as places:
            new = _ingest_samples(places)
            if new:
                click.echo(f"Stored {counted(new, 'chunk')} of sample recordings in MongoDB.")
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
        click.echo("Nothing to do: the samples are already transcribed. Their transcripts:")
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
    """Paragraphs of about `PARAGRAPH_SECONDS`, each with the time at which it begins."""
    started, words = 0.0, ""
    for segment in transcript.segments:
        if words and segment.end - started > PARAGRAPH_SECONDS:
            yield transcript.start + timedelta(seconds=started), words.strip()
            words = ""
        started = started if words else segment.start
        words += " " + segment.text.strip()
    if words:
        yield transcript.start + timedelta(seconds=started), words.strip()

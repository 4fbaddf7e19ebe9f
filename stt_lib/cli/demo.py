"""`demo`: the sample recordings, transcribed by an embedded MongoDB and Whisper server."""

import dataclasses
from datetime import UTC, datetime
from typing import Any, Final

import click

from stt_lib.cli import run
from stt_lib.cli.options import settings_options
from stt_lib.cli.session import reachable
from stt_lib.cli.signals import StopSignal
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.units import counted
from stt_lib.export import text
from stt_lib.export.scope import Scope, readable
from stt_lib.store import Store

SAMPLES_START: Final = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""Start of the first sample recording; the others follow at intervals of an hour."""


@click.command()
@settings_options("data_dir", "log_file")
def demo(**flags: Any) -> int:
    """Transcribe sample recordings with an embedded MongoDB and Whisper server.

    Its data is kept in the subdirectory demo of --data-dir, apart from your own.
    """
    settings = run.on_its_own(load({**flags, "local": True, "max_workers": 2}))
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
    from stt_lib.local.ingest import read_recording, samples

    with Store(settings.mongodb_uri, settings.mongodb_database) as store:
        return sum(
            store.chunks.insert(read_recording(path, start))
            for path, start in samples(SAMPLES_START)
        )


def _show_transcripts(settings: Settings, *, had_work: bool) -> None:
    if not had_work:
        click.echo("Nothing to do: the samples are already transcribed. Their transcripts:")
    click.echo()
    with Store(settings.mongodb_uri, settings.mongodb_database) as store:
        scope = Scope(None, None, None, zero=SAMPLES_START, name_of=store.recordings.name)
        for part in text.write(readable(store.transcripts.stretches()), scope):
            click.echo(part, nl=False)

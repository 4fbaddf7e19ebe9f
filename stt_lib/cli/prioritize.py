"""`prioritize`: a recording that is needed first."""

from typing import Any

import click

from stt_lib.cli.options import number_option, settings_options
from stt_lib.cli.session import opened_store
from stt_lib.config.loader import load
from stt_lib.domain.units import counted
from stt_lib.errors import InputError
from stt_lib.store import Store


@click.command()
@click.argument("recording", metavar="RECORDING_ID")
@number_option("--level", "Priority; higher comes first, 0 removes it", 1, least=0)
@settings_options("local", "data_dir")
def prioritize(recording: str, level: int, **flags: Any) -> None:
    """Transcribe the pending chunks of a recording before all others.

    Running workers switch to them within seconds, once their requests in flight are done.
    """
    with opened_store(load(flags)) as store:
        chunks = store.chunks.prioritize(recording, level)
        if not chunks:
            raise InputError(_nothing_pending(store, recording))
    change = f"now have priority {level}" if level else "no longer have a priority"
    click.echo(f"{counted(chunks, 'pending chunk')} of recording {recording} {change}.")


def _nothing_pending(store: Store, recording: str) -> str:
    if store.transcripts.has_any(recording):
        return f"recording {recording} has no pending chunks: it is transcribed"
    return (
        f"no recording {recording} has pending chunks: give its original_id, which the log shows"
        ' after "ID:"'
    )

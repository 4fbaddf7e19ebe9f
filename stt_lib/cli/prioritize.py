"""`prioritize`: what is wanted first."""

from typing import Any

import click

from stt_lib.cli.options import settings_options
from stt_lib.cli.rendering import counted
from stt_lib.cli.session import opened_store
from stt_lib.config.settings import load
from stt_lib.errors import InputError
from stt_lib.store import Store


@click.command(short_help="Have a recording transcribed before all others.")
@click.argument("recording", metavar="RECORDING_ID")
@click.option(
    "--level",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Higher comes first; 0 takes the priority away.",
)
@settings_options("local", "data_dir")
def prioritize(recording: str, level: int, **flags: Any) -> None:
    """Have the pending chunks of a recording transcribed before all others.

    A worker that runs turns to them within seconds, once its requests in flight are done.
    """
    with opened_store(load(flags)) as store:
        chunks = store.chunks.prioritize(recording, level)
        if not chunks:
            raise InputError(_nothing_pending(store, recording))
    change = f"have priority {level} now" if level else "have no priority any more"
    click.echo(f"{counted(chunks, 'pending chunk')} of recording {recording} {change}")


def _nothing_pending(store: Store, recording: str) -> str:
    if store.transcripts.has_any(recording):
        return f"nothing of recording {recording} is pending: it is transcribed"
    return (
        f"no recording {recording} has pending chunks: give its original_id, as the log shows"
        ' it after "ID:"'
    )

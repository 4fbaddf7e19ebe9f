"""`ingest`: audio and video files become chunks."""

from pathlib import Path
from typing import Any

import click

from stt_lib.cli.options import settings_options
from stt_lib.cli.session import not_installed, opened_store
from stt_lib.config import parsers
from stt_lib.config.loader import load
from stt_lib.domain.units import counted
from stt_lib.errors import ConfigurationError


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--start",
    metavar="TIME",
    help="When the recording began, such as 2026-03-01T08:00; local time unless it ends in Z or"
    " +HH:MM [default: the file's modification time]",
)
@settings_options("local", "data_dir")
def ingest(files: tuple[Path, ...], start: str | None, **flags: Any) -> None:
    """Store audio or video FILES as 10 s chunks in MongoDB, ready to transcribe.

    A file that is already stored is not stored again.
    """
    try:
        from stt_lib.local.ingest import read_recording
    except ImportError as error:
        raise not_installed(error) from None
    try:
        began = None if start is None else parsers.moment(start)
    except ValueError as error:
        raise ConfigurationError(f"--start {error}, not {start!r}") from None
    recordings = [(path, read_recording(path, began)) for path in files]
    with opened_store(load(flags)) as store:
        for path, chunks in recordings:
            new = store.chunks.insert(chunks)
            speech = sum(chunk.has_speech for chunk in chunks)
            known = "" if new == len(chunks) else f", {len(chunks) - new:,} already stored"
            click.echo(
                f"{path}: {counted(len(chunks), 'chunk')}, {speech:,} with speech{known}"
                f" (recording {chunks[0].original_id_bytes.hex()})"
            )

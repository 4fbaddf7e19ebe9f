"""`serve`: the embedded Whisper server on its own."""

from typing import Any

import click

from stt_lib.cli.options import settings_options
from stt_lib.cli.run import set_up_log
from stt_lib.cli.session import EMBEDDED_MODEL, not_installed
from stt_lib.config.loader import load


@click.command()
@settings_options("host", "port", "model", "api_key")
def serve(**flags: Any) -> None:
    """Run a Whisper server that accepts POST /transcribe."""
    settings = load(flags)
    try:
        from stt_lib.local.server import app
    except ImportError as error:
        raise not_installed(error) from None
    set_up_log(settings, None)
    app.serve(
        host=settings.host,
        port=settings.port,
        model=settings.model or EMBEDDED_MODEL,
        api_key=settings.api_key,
        announce=lambda url: click.echo(f"Whisper server ready on {url}"),
    )

"""`serve`: the embedded Whisper server on its own."""

from typing import Any

import click

from stt_lib.cli.options import settings_options
from stt_lib.cli.run import set_up_log
from stt_lib.cli.session import EMBEDDED_MODEL, not_installed
from stt_lib.config.loader import load


@click.command()
@settings_options("host", "port", "model", "device", "compute_type", "batch", "api_key")
def serve(**flags: Any) -> None:
    """Run a Whisper server that speaks POST /transcribe and OpenAI's API."""
    settings = load(flags)
    try:
        from stt_lib.local.server import app
        from stt_lib.local.server.service import Service
        from stt_lib.local.transcriber import Transcriber
    except ImportError as error:
        raise not_installed(error) from None
    set_up_log(settings, None)

    def service() -> Service:
        transcriber = Transcriber(
            settings.model or EMBEDDED_MODEL,
            device=settings.device,
            compute_type=settings.compute_type,
            batch=settings.batch,
        )
        return Service(transcriber, api_key=settings.api_key)

    app.serve(
        service,
        host=settings.host,
        port=settings.port,
        announce=lambda url: click.echo(f"Whisper server ready on {url}"),
    )

"""Opens what a command works on: the user's MongoDB and servers, or the embedded ones."""

import dataclasses
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stt_lib.config.installation import INSTALL_STACK
from stt_lib.config.loader import child_environment
from stt_lib.config.settings import OF_THE_MODEL, OPTIONS, Settings
from stt_lib.errors import ConfigurationError, StoreUnavailable
from stt_lib.store import Store

EMBEDDED_MODEL = "tiny.en"
"""The model that is installed with the embedded stack."""


@contextmanager
def reachable(
    settings: Settings, *, whisper: bool, stop: threading.Event | None = None
) -> Iterator[Settings]:
    """Settings that point at running services: with `--local`, at the embedded ones."""
    if not settings.local:
        yield settings
        return
    try:
        from stt_lib.local.stack import running_stack
    except ImportError as error:
        raise not_installed(error) from None
    with running_stack(
        settings.data_dir,
        whisper=whisper,
        model=settings.model or EMBEDDED_MODEL,
        options=_model_options(settings),
        env=child_environment(),
        stop=stop,
    ) as stack:
        places: dict[str, Any] = {"mongodb_uri": stack.mongodb_uri, "mongodb_database": "stt"}
        if stack.server_url is not None:
            # POST /transcribe, which needs no joined file, has no fields for these two.
            protocol = "openai" if settings.language or settings.prompt else "transcribe"
            places |= {"server_url": (stack.server_url,), "api_key": None, "protocol": protocol}
        yield dataclasses.replace(settings, **places)


def _model_options(settings: Settings) -> list[str]:
    """The flags of `serve` for what these settings say about the model."""
    given = {OPTIONS[name]: getattr(settings, name) for name in OF_THE_MODEL}
    return [f"{o.flag}={value}" for o, value in given.items() if value != o.default]


@contextmanager
def opened_store(settings: Settings, stop: threading.Event | None = None) -> Iterator[Store]:
    """The database, for commands that need no STT server."""
    try:
        with (
            reachable(settings, whisper=False, stop=stop) as places,
            Store(
                places.mongodb_uri, places.mongodb_database, mongo_wait=places.mongo_wait, stop=stop
            ) as store,
        ):
            yield store
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}{local_hint(settings)}") from error


def local_hint(settings: Settings) -> str:
    """A hint for those who forgot `--local`, although there is an embedded stack."""
    is_forgotten = not settings.local and settings.data_dir.is_dir()
    return " (add --local for the embedded stack)" if is_forgotten else ""


def same_place(settings: Settings) -> str:
    """The options with which another command works on the same database."""
    if not settings.local:
        return ""
    is_usual = settings.data_dir == OPTIONS["data_dir"].default
    return " --local" if is_usual else f" --local --data-dir {shlex.quote(str(settings.data_dir))}"


def not_installed(error: ImportError) -> ConfigurationError:
    """The error of a command that needs the embedded stack where it is not installed."""
    return ConfigurationError(
        f"the embedded stack is not installed ({error.name} is missing): {INSTALL_STACK}"
    )

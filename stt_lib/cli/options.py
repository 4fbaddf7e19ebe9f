"""Options, made from the settings: each is declared once, there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stt_lib.config.settings import ROOT, Settings, flag, variable

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Give a command the flags of these settings; values arrive as typed, None when not given."""

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _option(name)(command)
        return command

    return decorate


def _option(name: str) -> Callable[[Command], Command]:
    field = Settings.model_fields[name]
    is_switch = field.annotation is bool
    return click.option(
        f"{flag(name)}/{_off(name)}" if field.default is True else flag(name),
        name,
        is_flag=is_switch,
        **_WITHOUT_VALUE.get(name, {}),
        multiple=name in _SEVERAL,
        callback=_none_if_empty,
        default=None,
        metavar=None if is_switch else _METAVARS.get(name, "N"),
        help=f"{field.description} [{variable(name)}{_default(field.default)}]",
    )


def _off(name: str) -> str:
    return "--no-" + flag(name).removeprefix("--")


def _default(value: object) -> str:
    return "" if value is None or value is False else f"; default: {shown(value)}"


def _none_if_empty(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    return None if value == () else value


_SEVERAL = frozenset({"server_url", "retranscribe"})
_WITHOUT_VALUE: dict[str, dict[str, Any]] = {"watch": {"flag_value": "5"}}
"""What an option stands for whose value may be left out."""
_METAVARS = {
    "watch": "[SECONDS]",
    "server_url": "URL",
    "max_runtime": "SPAN",
    "since": "TIME",
    "until": "TIME",
    "recording": "ID",
    "retranscribe": "CONDITION",
    "rate_limit": "RATE",
    "ca_file": "FILE",
    "log_file": "FILE",
    "log_format": "text|json",
    "filter": "LEVEL",
    "filter_phrases": "FILE",
    "summary": "FILE",
    "metrics_host": "ADDRESS",
    "metrics_file": "FILE",
    "data_dir": "DIR",
    "host": "ADDRESS",
    "model": "NAME",
    "device": "auto|cpu|cuda[:N]",
    "compute_type": "TYPE",
    "protocol": "NAME",
    "language": "CODE",
    "prompt": "TEXT",
    "api_key": "KEY",
}


def shown(default: object) -> str:
    """A default as help and README write it."""
    if default is None or default is False:
        return "none" if default is None else "off"
    if default is True:
        return "on"
    if isinstance(default, Path):
        return str(default.relative_to(ROOT))
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)

"""Options of commands, made from the declarations of the settings."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from stt_lib.config.settings import OPTIONS, Option

Command = TypeVar("Command", bound=Callable[..., Any])

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON")


class _Number(click.Option):
    """An option whose help does not show the range of its values."""

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Return what follows the help text in brackets."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def number_option(
    flag: str, text: str, default: int, *, least: int = 1
) -> Callable[[Command], Command]:
    """Give a command an option that is no setting: a whole number, at least `least`."""
    return click.option(
        flag,
        cls=_Number,
        type=click.IntRange(least),
        metavar="N",
        default=default,
        help=f"{text} [default: {default}]",
    )


def settings_options(*names: str, default: str = "") -> Callable[[Command], Command]:
    """Give a command the flags of these settings; values arrive as text, None when not given.

    `default` is shown instead of the usual one.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _flag(OPTIONS[name], default)(command)
        return command

    return decorate


def _flag(option: Option, default: str) -> Callable[[Command], Command]:
    more: dict[str, Any] = {} if option.optional is None else {"flag_value": option.optional}
    return click.option(
        option.flag,
        option.name,
        is_flag=option.kind.metavar is None,
        **more,
        multiple=option.repeatable,
        callback=_none_if_empty,
        default=None,
        metavar=option.kind.metavar,
        help=help_text(option, default),
    )


def help_text(option: Option, default: str = "") -> str:
    """The help with the default."""
    shown = default or option.shown_default
    return f"{option.help} [default: {shown}]" if shown else option.help


def _none_if_empty(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    return None if value == () else value

"""Reads settings: a flag wins over an environment variable, which wins over the default.

Secrets may also lie in a file that the variable with `_FILE` appended names. This is the only
module that reads the environment.
"""

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from stt_lib.config.settings import OPTIONS, Option, Settings
from stt_lib.errors import ConfigurationError

FROM_FILES: Final = frozenset({"mongodb_uri", "api_key"})
"""Secrets that may also lie in a file."""

_OF_KUBERNETES = re.compile(
    r"STT_(\w+_)?(SERVICE_HOST=|SERVICE_PORT\w*=|PORT_\d+_\w+=|PORT=(tcp|udp|sctp)://)"
)
"""Variables that Kubernetes sets in the namespace of a Service named stt or stt-…, with values.

Some have the names of settings, such as STT_PORT.
"""


def load(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Merge the flags that were given, the environment and the defaults.

    Raises:
        ConfigurationError: one line that names the flag or variable and says what is wrong.
    """
    values: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        source, given = _given(option, flags.get(name), environ)
        if given is None:
            continue
        try:
            values[name] = option.kind.parse(given)
        except ValueError as error:
            shown = "" if option.secret else f", not {given!r}"
            raise ConfigurationError(f"{source} {error}{shown}") from None
    if values.get("watch") is not None:
        values = {"server_wait": math.inf, "mongo_wait": math.inf, **values}
    try:
        return Settings(**values)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def is_given(name: str, flags: Mapping[str, Any]) -> bool:
    """Whether a setting has a value other than by default."""
    return _given(OPTIONS[name], flags.get(name), os.environ)[1] is not None


def unknown_variables(environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """A sentence about every variable that looks like a setting but is none."""
    known = {option.variable for option in OPTIONS.values()}
    known |= {f"{OPTIONS[name].variable}_FILE" for name in FROM_FILES}
    for name in sorted(environ):
        is_ours = name.startswith("STT_") and not _is_of_kubernetes(name, environ[name])
        if is_ours and name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            yield f"{name} is not a setting and has no effect{hint}"


def _given(option: Option, flag: object, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Where a setting comes from, and its text; None where it is not set."""
    if flag is not None:
        return option.flag, ",".join(flag) if isinstance(flag, tuple) else str(flag)
    value, file = environ.get(option.variable, ""), f"{option.variable}_FILE"
    path = environ.get(file, "") if option.name in FROM_FILES else ""
    if path and value:
        raise ConfigurationError(f"{option.variable} and {file} are both set: use only one")
    if path:
        return file, _secret_in(path, file)
    if _is_of_kubernetes(option.variable, value):
        value = ""
    return option.variable, value or None


def _is_of_kubernetes(name: str, value: str) -> bool:
    return _OF_KUBERNETES.match(f"{name}={value}") is not None


def _secret_in(path: str, source: str) -> str:
    """The only line of a file, as Docker, Kubernetes and systemd pass secrets."""
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{source} cannot be read: {path} ({reason})") from None
    except ValueError:
        raise ConfigurationError(f"{source} is not text: {path}") from None
    if not text.strip():
        raise ConfigurationError(f"{source} is empty: {path}")
    if len(text.splitlines()) > 1:
        raise ConfigurationError(f"{source} has more than one line: {path}")
    return text


def wants_no_colour() -> bool:
    """Whether the user asks all programs for plain text, see https://no-color.org."""
    return bool(os.environ.get("NO_COLOR"))


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for servers that may outlive a command: without its settings and secrets."""
    return {name: environ[name] for name in environ if not name.startswith(("STT_", "MONGODB_"))}

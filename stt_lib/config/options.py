"""The declaration of an option: everything that its help, checks and documentation derive from."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from stt_lib.config.installation import ROOT
from stt_lib.config.parsers import Parser

Value = TypeVar("Value")


class Group(StrEnum):
    """Headings of `--help`, in its order."""

    MAIN = "Common options"
    SELECTION = "What to transcribe"
    RUNTIME = "How long to run"
    SERVERS = "STT servers"
    FILTER = "Hallucination filter"
    OUTPUT = "Logs and reports"
    RETRIES = "Timeouts and retries"
    TUNING = "Fine tuning"
    DATABASE = "MongoDB"
    EMBEDDED = "Embedded stack"

    @property
    def is_common(self) -> bool:
        """Whether `--help` lists it; `--help-all` lists all of them."""
        return self not in (Group.RETRIES, Group.TUNING, Group.DATABASE, Group.EMBEDDED)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: its placeholder in the help, None for a switch, and its parser."""

    metavar: str | None
    parse: Parser


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: a flag, an environment variable, and the text about both.

    `optional` is the value of a flag whose value may be left out.
    """

    name: str
    default: object
    group: Group
    kind: Kind
    help: str
    variable: str = ""
    flag: str = ""
    repeatable: bool = False
    secret: bool = False
    optional: str | None = None

    @property
    def is_switch(self) -> bool:
        return self.kind.metavar is None

    @property
    def shown_default(self) -> str:
        """The default as help and documentation write it; empty where there is none."""
        match self.default:
            case None | False:
                return ""
            case Path() as path if path.is_relative_to(ROOT):
                return str(path.relative_to(ROOT))
            case tuple() as values:
                return ",".join(values)
            case float() as seconds:
                return f"{seconds:g}s"
            case other:
                return str(other)


def option(default: Value, group: Group, kind: Kind, text: str, **more: Any) -> Value:
    """Declare a setting of a dataclass; `more` are further fields of `Option`."""
    facts = {"help": text, "group": group, "kind": kind, **more}
    field_: Value = field(default=default, repr=not more.get("secret"), metadata=facts)
    return field_


def declared(fields: tuple[Field[Any], ...]) -> Mapping[str, Option]:
    """The options of a dataclass by the names of its fields, in their order."""
    return {each.name: _option(each.name, each) for each in fields}


def _option(name: str, declaration: Field[Any]) -> Option:
    names = {"variable": f"STT_{name.upper()}", "flag": "--" + name.replace("_", "-")}
    return Option(name, declaration.default, **{**names, **declaration.metadata})

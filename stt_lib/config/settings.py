"""Every setting, declared once: its default, help, heading, placeholder and check.

Flags, `--help`, docs/configuration.md and the checks of the loader derive from these declarations.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from stt_lib.config import parsers
from stt_lib.config.installation import DATA_DIR, LOG_FILE, ROOT
from stt_lib.config.parsers import PROTOCOLS, Parser, choice, duration, whole
from stt_lib.domain.models import Condition, Selection

MIN_LEASE_SECONDS: Final = 3.0
"""Seconds. Shortest lease of a claim: less would leave no time for a lost renewal."""

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
    declared: Value = field(default=default, repr=not more.get("secret"), metadata=facts)
    return declared


def _declared(declaration: Field[Any]) -> Option:
    name = declaration.name
    names = {"variable": f"STT_{name.upper()}", "flag": f"--{name.replace('_', '-')}"}
    return Option(name, declaration.default, **{**names, **declaration.metadata})


MAIN, SELECTION, RUNTIME, SERVERS, FILTER, OUTPUT, RETRIES, TUNING, DATABASE, EMBEDDED = Group

SWITCH: Final = Kind(None, parsers.switch)
COUNT: Final = Kind("N", whole(1))
DURATION: Final = Kind("DURATION", duration())
PERIOD: Final = Kind("DURATION", parsers.positive_duration)
TIME: Final = Kind("TIME", parsers.moment)
FILE: Final = Kind("FILE", Path)
NAME: Final = Kind("NAME", parsers.nonempty)
ID: Final = Kind("ID", parsers.nonempty)
TEXT: Final = Kind("TEXT", parsers.nonempty)
RATE: Final = Kind("RATE", parsers.rate)
PLACE: Final = Kind("ADDRESS:PORT", parsers.dns_server)
DEVICE: Final = Kind("DEVICE", parsers.device)

FILTER_LEVELS: Final = ("strict", "normal", "off")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run; durations in seconds."""

    max_workers: int = option(
        1, MAIN, Kind("N", whole(1, 1024)), "Number of concurrent requests to STT servers"
    )
    limit: int | None = option(None, MAIN, COUNT, "Stop after this many sequences")
    server_url: tuple[str, ...] = option(
        ("http://localhost:8081",),
        MAIN,
        Kind("URL", parsers.servers),
        "STT server; repeat it or separate URLs with commas to use several",
        flag="--server",
        repeatable=True,
        secret=True,
    )
    local: bool = option(False, MAIN, SWITCH, "Use the embedded MongoDB and Whisper server")

    since: datetime | None = option(
        None,
        SELECTION,
        TIME,
        "Only audio recorded at or after TIME: 2026-03-01T08:00, yesterday, 7d",
    )
    until: datetime | None = option(None, SELECTION, TIME, "Only audio recorded before TIME")
    recording: str | None = option(
        None, SELECTION, ID, "Only chunks of the recording with this original_id"
    )
    retry_errors: bool = option(
        False, SELECTION, SWITCH, "Only chunks that failed before, including parked ones"
    )
    retranscribe: tuple[Condition, ...] | None = option(
        None,
        SELECTION,
        Kind("CONDITION", parsers.conditions),
        "Instead of pending chunks, transcribe again what matches: model!=large-v3 (or"
        f" {', '.join(parsers.CRITERIA[1:])}), or all; repeat it to combine conditions",
        repeatable=True,
    )
    settle: float = option(
        0.0, TUNING, DURATION, "Leave the newest sequence of a recording alone until it is this old"
    )

    watch: float | None = option(
        None,
        RUNTIME,
        Kind("[DURATION]", parsers.interval),
        "Keep running and check for new chunks at this interval; --no-watch overrides STT_WATCH",
        optional="5",
    )
    max_runtime: float | None = option(
        None,
        RUNTIME,
        PERIOD,
        "Stop after this long, such as 2h; start nothing that would take longer",
    )
    dry_run: bool = option(
        False, RUNTIME, SWITCH, "Show what would be done, in order, and change nothing"
    )
    grace: float = option(
        30.0,
        TUNING,
        DURATION,
        "How long requests in flight may take to finish after Ctrl-C or SIGTERM",
    )

    protocol: Literal["transcribe", "openai", "whispercpp", "asr"] = option(
        "transcribe",
        SERVERS,
        Kind("NAME", choice(*PROTOCOLS)),
        f"Protocol of servers whose URL does not name one: {', '.join(PROTOCOLS)}",
    )
    model: str | None = option(
        None,
        SERVERS,
        NAME,
        "Whisper model to request from STT servers, or to load with --local and serve",
    )
    language: str | None = option(
        None, SERVERS, Kind("CODE", parsers.language), "Language of the speech, such as en"
    )
    prompt: str | None = option(
        None, SERVERS, TEXT, "Words to expect, for servers that accept a prompt"
    )
    server_max: int | None = option(
        None, SERVERS, COUNT, "Maximum number of concurrent requests per server"
    )
    rate_limit: float | None = option(
        None, SERVERS, RATE, "Maximum rate of requests: 2 per second, or 10/m, 600/h"
    )
    audio_rate: float | None = option(
        None, TUNING, Kind("N", parsers.number), "Maximum number of hours of audio to send per hour"
    )
    api_key: str | None = option(
        None,
        SERVERS,
        Kind("KEY", parsers.header),
        "API key that STT servers expect, or that serve requires; an option of serve only",
        secret=True,
    )
    dns_server: str | None = option(
        None, TUNING, PLACE, "DNS server for dns+http:// URLs, if not that of the system"
    )
    ca_file: Path | None = option(
        None, TUNING, FILE, "Also trust STT servers whose certificate is signed by this CA (PEM)"
    )

    filter: Literal["strict", "normal", "off"] = option(
        "normal",
        FILTER,
        Kind("LEVEL", choice(*FILTER_LEVELS)),
        f"How readily text is dropped as a hallucination: {', '.join(FILTER_LEVELS)}",
    )
    filter_phrases: Path | None = option(
        None, TUNING, FILE, "File of phrases to drop or to keep, one per line"
    )

    timeout_base: float = option(5.0, RETRIES, DURATION, "Fixed part of the timeout of a request")
    timeout_per_chunk: float = option(
        3.0, RETRIES, DURATION, "Part of the timeout for each chunk of a request"
    )
    retries: int = option(
        3, RETRIES, Kind("N", whole(0)), "Retries of a request when the server or the network fails"
    )
    backoff_base: float = option(
        1.0, RETRIES, PERIOD, "Delay before the first retry; it doubles with every further retry"
    )
    backoff_max: float = option(30.0, RETRIES, PERIOD, "Maximum delay before a retry")
    max_failures: int = option(
        5, RETRIES, COUNT, "Park a chunk when its audio has failed in this many runs"
    )
    server_wait: float = option(
        60.0,
        RETRIES,
        DURATION,
        "How long to wait for an STT server when none responds; with --watch, forever unless set",
    )
    mongo_wait: float = option(
        60.0,
        RETRIES,
        DURATION,
        "How long to wait for MongoDB during a run; with --watch, forever unless set",
    )
    lease: float = option(
        60.0,
        RETRIES,
        Kind("DURATION", duration(MIN_LEASE_SECONDS, 86400)),
        "Lease of a claim: how long the chunks of a worker that died stay reserved",
    )

    log_file: Path = option(
        LOG_FILE, OUTPUT, FILE, "Log file; rotated at 10 MB, with 5 old files kept"
    )
    log_format: Literal["text", "json"] = option(
        "text",
        OUTPUT,
        Kind("FORMAT", choice("text", "json")),
        "Log lines for people (text) or one JSON object per line (json)",
    )
    verbose: bool = option(False, OUTPUT, SWITCH, "Also log details for debugging")
    quiet: bool = option(
        False, OUTPUT, SWITCH, "Show only warnings and errors; the log file has everything"
    )
    summary: Path | None = option(None, OUTPUT, FILE, "Write a summary of the run as JSON")
    metrics_port: tuple[str, int] | None = option(
        None,
        OUTPUT,
        Kind("[HOST:]PORT", parsers.address),
        "Serve metrics for Prometheus; 0 takes a free port",
    )
    metrics_file: Path | None = option(
        None, TUNING, FILE, "Write metrics for node exporter's textfile collector"
    )

    mongodb_uri: str = option(
        "mongodb://localhost:27017",
        DATABASE,
        Kind("URI", parsers.mongodb_uri),
        "Connection string of MongoDB",
        variable="MONGODB_URI",
        secret=True,
    )
    mongodb_database: str | None = option(
        None,
        DATABASE,
        NAME,
        "Database; by default the one in MONGODB_URI, else stt",
        variable="MONGODB_DATABASE",
    )

    data_dir: Path = option(
        DATA_DIR, EMBEDDED, Kind("DIR", Path), "Directory for the data of the embedded stack"
    )
    host: str = option(
        "127.0.0.1", EMBEDDED, Kind("ADDRESS", parsers.nonempty), "Address to listen on"
    )
    port: int = option(
        8081, EMBEDDED, Kind("PORT", whole(0, 65535)), "Port to listen on; 0 takes a free port"
    )

    device: str = option(
        "auto", EMBEDDED, DEVICE, "Device for the model: auto, cpu, cuda or cuda:N"
    )
    compute_type: str | None = option(
        None,
        EMBEDDED,
        Kind("TYPE", parsers.nonempty),
        "Number format of the model, such as int8 or float16; by default the fastest",
    )
    batch: int | None = option(
        None,
        EMBEDDED,
        COUNT,
        "Windows of speech decoded at once; by default 16 on a GPU, 4 on a CPU",
    )

    def __post_init__(self) -> None:
        watches, again = self.watch is not None, self.retranscribe is not None
        if self.backoff_max < self.backoff_base:
            raise ValueError("--backoff-max must not be less than --backoff-base")
        if again and self.retry_errors:
            raise ValueError("--retranscribe and --retry-errors cannot be combined")
        if self.retry_errors and watches:
            raise ValueError("--retry-errors takes what failed before now: use it without --watch")
        if again and watches:
            raise ValueError("--retranscribe processes what exists now: use it without --watch")
        if self.dry_run and watches:
            raise ValueError("--dry-run shows what exists now: use it without --watch")
        if self.since and self.until and self.until <= self.since:
            raise ValueError("--until must be later than --since")

    @property
    def selection(self) -> Selection:
        """The chunks that a run processes."""
        return Selection(self.since, self.until, self.recording)

    def timeout(self, chunks: int) -> float:
        """Seconds allowed for a request of this many chunks."""
        return self.timeout_base + self.timeout_per_chunk * chunks


OPTIONS: Final[Mapping[str, Option]] = {each.name: _declared(each) for each in fields(Settings)}
"""Every option by the name of its setting, in the order of help and documentation."""

OF_THE_MODEL: Final = ("device", "compute_type", "batch")
"""Settings of `serve` that also apply to a Whisper server that another command starts."""

SERVE_ONLY: Final = ("host", "port", *OF_THE_MODEL, "api_key")
VARIABLE_ONLY: Final = ("mongodb_uri", "mongodb_database")

RUN_OPTIONS: Final = tuple(n for n in OPTIONS if n not in (*SERVE_ONLY, *VARIABLE_ONLY))
"""Settings that `stt` itself takes as flags."""

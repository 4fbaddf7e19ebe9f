"""Every setting, declared once: its default, help, heading, placeholder and check.

Flags, `--help`, docs/configuration.md and the checks of the loader derive from these declarations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from stt_lib.config import parsers
from stt_lib.config.installation import default_data_dir, default_log_file
from stt_lib.config.options import Group, Option, declared, option
from stt_lib.config.parsers import PROTOCOLS, choice, duration, positive_duration, switch, whole
from stt_lib.domain.models import Condition, Selection

MIN_LEASE_SECONDS: Final = 3.0
"""Seconds. Shortest lease of a claim: less would leave no time for a lost renewal."""

RENEWALS_PER_LEASE: Final = 3
"""Renewals of a claim within one lease, so that one or two may fail."""

FILTER_LEVELS: Final = ("strict", "normal", "off")
LOG_FORMATS: Final = ("text", "json")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run; durations in seconds."""

    max_workers: int = option(
        1, "Number of concurrent requests to STT servers", Group.MAIN, whole(1, 1024), "N"
    )
    limit: int | None = option(None, "Stop after this many sequences", Group.MAIN, whole(1), "N")
    server_url: tuple[str, ...] = option(
        ("http://localhost:8081",),
        "STT server; repeat it or separate URLs with commas to use several",
        Group.MAIN,
        parsers.servers,
        "URL",
        flag="--server",
        repeatable=True,
        secret=True,
    )
    local: bool = option(False, "Use the embedded MongoDB and Whisper server", Group.MAIN, switch)

    since: datetime | None = option(
        None,
        "Only chunks recorded at or after TIME: 2026-03-01T08:00, yesterday, 7d",
        Group.SELECTION,
        parsers.moment,
        "TIME",
    )
    until: datetime | None = option(
        None, "Only chunks recorded before TIME", Group.SELECTION, parsers.moment, "TIME"
    )
    recording: str | None = option(
        None,
        "Only chunks of the recording with this original_id",
        Group.SELECTION,
        parsers.nonempty,
        "ID",
    )
    retry_errors: bool = option(
        False, "Only chunks that failed before, including parked ones", Group.SELECTION, switch
    )
    retranscribe: tuple[Condition, ...] | None = option(
        None,
        "Instead of pending chunks, transcribe again what matches: model!=large-v3 (or"
        f" {', '.join(parsers.CRITERIA[1:])}), or all; repeat it to combine conditions",
        Group.SELECTION,
        parsers.conditions,
        "CONDITION",
        repeatable=True,
    )
    settle: float = option(
        0.0,
        "Leave the newest sequence of a recording alone until it is this old",
        Group.TUNING,
        duration(),
        "DURATION",
    )

    watch: float | None = option(
        None,
        "Keep running and check for new chunks at this interval; --no-watch overrides STT_WATCH",
        Group.DURATION,
        parsers.interval,
        "[DURATION]",
        optional="5",
    )
    max_runtime: float | None = option(
        None,
        "Stop after this long, such as 2h; start nothing that would take longer",
        Group.DURATION,
        positive_duration,
        "DURATION",
    )
    dry_run: bool = option(
        False, "Show what would be done, in order, and change nothing", Group.DURATION, switch
    )
    grace: float = option(
        30.0,
        "How long requests in flight may take to finish after Ctrl-C or SIGTERM",
        Group.TUNING,
        duration(),
        "DURATION",
    )

    protocol: Literal["transcribe", "openai", "whispercpp", "asr"] = option(
        "transcribe",
        f"Protocol of servers whose URL does not name one: {', '.join(PROTOCOLS)}",
        Group.SERVERS,
        choice(*PROTOCOLS),
        "NAME",
    )
    model: str | None = option(
        None,
        "Whisper model to request; with --local and serve, the model to load",
        Group.SERVERS,
        parsers.nonempty,
        "NAME",
    )
    language: str | None = option(
        None, "Language of the speech, such as en", Group.SERVERS, parsers.language, "CODE"
    )
    prompt: str | None = option(
        None,
        "Words to expect, for servers that accept a prompt",
        Group.SERVERS,
        parsers.nonempty,
        "TEXT",
    )
    server_max: int | None = option(
        None, "Maximum number of concurrent requests per server", Group.SERVERS, whole(1), "N"
    )
    rate_limit: float | None = option(
        None,
        "Maximum rate of requests: 2 per second, or 10/m, 600/h",
        Group.SERVERS,
        parsers.rate,
        "RATE",
    )
    audio_rate: float | None = option(
        None, "Maximum number of hours of audio to send per hour", Group.TUNING, parsers.number, "N"
    )
    api_key: str | None = option(
        None,
        "API key for STT servers; as an option only with serve",
        Group.SERVERS,
        parsers.header,
        "KEY",
        secret=True,
    )
    dns_server: str | None = option(
        None,
        "DNS server for dns+http:// URLs, if not that of the system",
        Group.TUNING,
        parsers.dns_server,
        "ADDRESS:PORT",
    )
    ca_file: Path | None = option(
        None,
        "Also trust STT servers whose certificate is signed by this CA (PEM)",
        Group.TUNING,
        Path,
        "FILE",
    )

    filter: Literal["strict", "normal", "off"] = option(
        "normal",
        f"How readily text is dropped as a hallucination: {', '.join(FILTER_LEVELS)}",
        Group.FILTER,
        choice(*FILTER_LEVELS),
        "LEVEL",
    )
    filter_phrases: Path | None = option(
        None, "File of phrases to drop or to keep, one per line", Group.TUNING, Path, "FILE"
    )

    timeout_base: float = option(
        5.0,
        "Fixed part of the timeout of a request",
        Group.RETRIES,
        duration(),
        "DURATION",
    )
    timeout_per_chunk: float = option(
        3.0,
        "Part of the timeout for each chunk of a request",
        Group.RETRIES,
        duration(),
        "DURATION",
    )
    retries: int = option(
        3, "Retries of a request when the server or the network fails", Group.RETRIES, whole(0), "N"
    )
    backoff_base: float = option(
        1.0,
        "Delay before the first retry; it doubles with every further retry",
        Group.RETRIES,
        positive_duration,
        "DURATION",
    )
    backoff_max: float = option(
        30.0, "Maximum delay before a retry", Group.RETRIES, positive_duration, "DURATION"
    )
    max_failures: int = option(
        5, "Park a chunk when its audio has failed in this many runs", Group.RETRIES, whole(1), "N"
    )
    server_wait: float = option(
        60.0,
        "How long to wait for an STT server when none responds; with --watch, forever unless set",
        Group.RETRIES,
        duration(),
        "DURATION",
    )
    mongo_wait: float = option(
        60.0,
        "How long to wait for MongoDB during a run; with --watch, forever unless set",
        Group.RETRIES,
        duration(),
        "DURATION",
    )
    lease: float = option(
        60.0,
        "Lease of a claim: how long the chunks of a worker that died stay reserved",
        Group.RETRIES,
        duration(MIN_LEASE_SECONDS, 86400),
        "DURATION",
    )

    log_file: Path = option(
        default_log_file(),
        "Log file; rotated at 10 MB, with 5 old files kept",
        Group.OUTPUT,
        Path,
        "FILE",
    )
    log_format: Literal["text", "json"] = option(
        "text",
        "Log lines for people (text) or one JSON object per line (json)",
        Group.OUTPUT,
        choice(*LOG_FORMATS),
        "FORMAT",
    )
    verbose: bool = option(False, "Also log details for debugging", Group.OUTPUT, switch)
    quiet: bool = option(
        False, "Show only warnings and errors; the log file has everything", Group.OUTPUT, switch
    )
    summary: Path | None = option(
        None, "Write a summary of the run as JSON", Group.OUTPUT, Path, "FILE"
    )
    metrics_port: tuple[str, int] | None = option(
        None,
        "Serve metrics for Prometheus; 0 takes a free port",
        Group.OUTPUT,
        parsers.address,
        "[HOST:]PORT",
    )
    metrics_file: Path | None = option(
        None, "Write metrics for node exporter's textfile collector", Group.TUNING, Path, "FILE"
    )

    mongodb_uri: str = option(
        "mongodb://localhost:27017",
        "Connection string of MongoDB",
        Group.DATABASE,
        parsers.mongodb_uri,
        "URI",
        variable="MONGODB_URI",
        secret=True,
    )
    mongodb_database: str | None = option(
        None,
        "Database; by default the one in MONGODB_URI, else stt",
        Group.DATABASE,
        parsers.nonempty,
        "NAME",
        variable="MONGODB_DATABASE",
    )

    data_dir: Path = option(
        default_data_dir(),
        "Directory for the data of the embedded stack",
        Group.EMBEDDED,
        Path,
        "DIR",
    )
    host: str = option(
        "127.0.0.1", "Address to listen on", Group.EMBEDDED, parsers.nonempty, "ADDRESS"
    )
    port: int = option(
        8081, "Port to listen on; 0 takes a free port", Group.EMBEDDED, whole(0, 65535), "PORT"
    )

    device: str = option(
        "auto",
        "Device for the model: auto, cpu, cuda or cuda:N",
        Group.EMBEDDED,
        parsers.device,
        "DEVICE",
    )
    compute_type: str | None = option(
        None,
        "Number format of the model, such as int8 or float16; by default the fastest",
        Group.EMBEDDED,
        parsers.nonempty,
        "TYPE",
    )

    def __post_init__(self) -> None:
        for is_wrong, message in self._contradictions():
            if is_wrong:
                raise ValueError(message)

    def _contradictions(self) -> tuple[tuple[object, str], ...]:
        watches, again = self.watch is not None, self.retranscribe is not None
        return (
            (
                self.backoff_max < self.backoff_base,
                "--backoff-max must not be less than --backoff-base",
            ),
            (
                again and self.retry_errors,
                "--retranscribe and --retry-errors cannot be combined",
            ),
            (
                again and watches,
                "--retranscribe processes what exists now: use it without --watch",
            ),
            (
                self.dry_run and watches,
                "--dry-run shows what exists now: use it without --watch",
            ),
            (
                self.since and self.until and self.until <= self.since,
                "--until must be later than --since",
            ),
        )

    @property
    def selection(self) -> Selection:
        """The chunks that a run processes."""
        return Selection(self.since, self.until, self.recording)

    @property
    def renewal_interval(self) -> float:
        """Seconds between two renewals of a claim."""
        return self.lease / RENEWALS_PER_LEASE

    def timeout(self, chunks: int) -> float:
        """Seconds allowed for a request of this many chunks."""
        return self.timeout_base + self.timeout_per_chunk * chunks


OPTIONS: Final[Mapping[str, Option]] = declared(fields(Settings))
"""Every option by the name of its setting, in the order of help and documentation."""

SERVE_ONLY: Final = ("host", "port", "device", "compute_type", "api_key")
VARIABLE_ONLY: Final = ("mongodb_uri", "mongodb_database")

RUN_OPTIONS: Final = tuple(n for n in OPTIONS if n not in (*SERVE_ONLY, *VARIABLE_ONLY))
"""Settings that `stt` itself takes as flags."""

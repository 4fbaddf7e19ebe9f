"""Everything a person can set: declared once, checked once, then frozen.

A flag wins over an environment variable, which wins over the default. This is the only module
that reads the environment.
"""

import math
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from stt_lib.config import criteria, parsers
from stt_lib.domain.models import Condition, Selection
from stt_lib.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
"""Where stt.py lies: logs and local data are found there whatever folder cron starts in."""

MIN_LEASE_SECONDS = 3.0
RENEWALS_PER_LEASE = 3
"""A claim is renewed so often within one lease that a lost renewal or two do no harm."""


PROTOCOLS = ("transcribe", "openai", "whispercpp", "asr")
"""What STT servers speak; a server's own goes before its URL, as in openai+http://HOST:PORT."""


def _servers(value: object) -> object:
    text = value if isinstance(value, str) else ",".join(map(str, value))  # type: ignore[call-overload]
    return tuple(dict.fromkeys(_server(url.strip()) for url in text.split(",") if url.strip()))


def _server(url: str) -> str:
    hint = "give it as http://HOST:PORT or https://HOST"
    protocol, plus, plain = url.partition("+")
    protocol = protocol.lower()
    if plus and "://" not in protocol and protocol not in PROTOCOLS:
        raise ValueError(f"has no protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}")
    try:
        parts = urlsplit(plain if protocol in PROTOCOLS else url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"is not a URL: {hint}") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in url):
        raise ValueError(f"is not a URL with a host: {hint}")
    return url.rstrip("/")


def _conditions(value: object) -> object:
    """None where there are none; an empty tuple means that all are wanted."""
    text = value if isinstance(value, str) else ",".join(map(str, value))  # type: ignore[call-overload]
    given = [one.strip() for one in text.split(",") if one.strip()]
    if not given:
        raise ValueError("must not be empty")
    return tuple(criteria.parsed(one) for one in given if one.lower() != criteria.EVERY)


def _per_second(value: object) -> object:
    """A rate such as 2, 0.5, 10/m or 600/h, as so many per second."""
    if not isinstance(value, str):
        return value
    number, _, unit = value.partition("/")
    seconds = {"": 1, "s": 1, "m": 60, "h": 3600}.get(unit.strip())
    try:
        return float(number) / seconds if seconds else value
    except ValueError:
        raise ValueError("is not a rate: give it as 2, 0.5, 10/m or 600/h") from None


def _mongodb_uri(value: object) -> object:
    scheme, _, rest = str(value).partition("://")
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    if scheme not in ("mongodb", "mongodb+srv") or not host.strip(":,"):
        raise ValueError("has no host: give it as mongodb://HOST:PORT")
    return value


def _moment(value: object) -> object:
    return parsers.moment(value, datetime.now().astimezone()) if isinstance(value, str) else value


def _span(value: object) -> object:
    return parsers.seconds(value) if isinstance(value, str) else value


def _device(value: object) -> object:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return value


Protocol = Literal["transcribe", "openai", "whispercpp", "asr"]
FilterLevel = Literal["strict", "normal", "off"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class Settings(BaseModel):
    """All settings of a run; times in seconds.

    Each field is the flag `--its-name` and the variable `STT_ITS_NAME`, but for the names
    in `VARIABLES`, which have no flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    mongodb_uri: Annotated[str, BeforeValidator(_mongodb_uri)] = Field(
        "mongodb://localhost:27017", description="Where MongoDB is.", repr=False
    )
    mongodb_database: str | None = Field(
        None, min_length=1, description="The database; else the one in the URI, else 'stt'."
    )
    server_url: Annotated[tuple[str, ...], BeforeValidator(_servers), Field(min_length=1)] = Field(
        ("http://localhost:8081",),
        description="An STT server; may be given several times, or separated by commas.",
        repr=False,
    )
    api_key: str | None = Field(None, description="Key for the STT server.", repr=False)

    ca_file: Path | None = Field(
        None, description="Trust STT servers whose certificates this authority signed, too (PEM)."
    )

    limit: Count | None = Field(None, description="Attempt at most this many sequences.")
    max_runtime: Annotated[Positive | None, BeforeValidator(_span)] = Field(
        None,
        description="Be over after so long: 2h, 1h30m or seconds; take no work that lasts longer.",
    )
    watch: Positive | None = Field(
        None,
        description="Keep running: look for new chunks every SECONDS, or once told of them.",
    )
    once: bool = Field(False, description="Do what there is and end, as without --watch.")
    dry_run: bool = Field(False, description="Show what would be done, in order; touch nothing.")
    since: Moment | None = Field(
        None, description="Only chunks that start then or later: 2026-03-01T08:00, yesterday, 7d."
    )
    until: Moment | None = Field(None, description="Only chunks that start before then.")
    recording: str | None = Field(
        None, min_length=1, description="Only chunks of the recording with this original_id."
    )
    retranscribe: Annotated[tuple[Condition, ...] | None, BeforeValidator(_conditions)] = Field(
        None,
        description="Instead of what is pending, do again what was transcribed so: model!=large-v3,"
        f" or another of {', '.join(criteria.FIELDS)}; or all. Several must all hold.",
    )
    keep_history: bool = Field(
        True, description="Keep the old text of what is done again, in transcriptions_history."
    )
    max_workers: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Requests in flight at the STT servers."
    )
    protocol: Protocol = Field(
        "transcribe",
        description=f"What servers speak whose URL does not say: {', '.join(PROTOCOLS)}.",
    )
    language: str | None = Field(None, description="Language of the speech, as en, for servers.")
    prompt: str | None = Field(None, description="Words to expect, for servers that take hints.")
    server_max: Count | None = Field(
        None, description="Requests in flight at any one STT server at most."
    )
    no_adapt: bool = Field(
        False, description="Do not adapt the requests in flight to what each server takes."
    )
    rate_limit: Annotated[Positive | None, BeforeValidator(_per_second)] = Field(
        None, description="Begin at most this many requests per second; also as 10/m or 600/h."
    )
    audio_rate: Positive | None = Field(
        None, description="Send at most this many hours of audio per hour."
    )
    timeout_base: Seconds = Field(5.0, description="Seconds allowed for a request, and")
    timeout_per_chunk: Seconds = Field(3.0, description="as many more for each of its chunks.")
    filter: FilterLevel = Field(
        "normal", description="How readily text is taken for no speech: strict, normal, off."
    )
    filter_phrases: Path | None = Field(
        None, description="A file of phrases to drop, or to keep, one a line."
    )
    retry_errors: bool = Field(
        False, description="Process only what failed before, parked or not due as it may be."
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        3, description="Try a request again so often when the server or the network fails."
    )
    backoff_base: Positive = Field(
        1.0, description="Seconds before the first such retry; doubled for each further one."
    )
    backoff_max: Positive = Field(30.0, description="Seconds before a retry at most.")
    max_failures: Count = Field(
        5, description="Park a chunk when its audio has failed in so many runs."
    )
    bridge: Annotated[int, Field(ge=0, le=6)] = Field(
        0, description="Go on across so many chunks without speech: a pause for thought."
    )
    settle: Seconds = Field(
        0.0, description="Leave the newest sequence of a recording alone until it is so old."
    )
    lease: Annotated[float, Field(ge=MIN_LEASE_SECONDS, le=86400)] = Field(
        60.0, description="Seconds until the claim of a worker that died is free again."
    )
    server_wait: Seconds = Field(
        60.0, description="Wait so many seconds for an STT server when none answers."
    )
    mongo_wait: Seconds = Field(
        60.0, description="Wait so many seconds for MongoDB when it goes away during a run."
    )
    grace: Seconds = Field(
        30.0, description="After Ctrl-C or SIGTERM let requests finish for so many seconds."
    )
    log_file: Path = Field(
        ROOT / "logs" / "stt.log", description="The log; rotated at 10 MB, 5 old ones are kept."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines for people (text), or one JSON object a line (json)."
    )
    verbose: bool = Field(False, description="Log also what helps to find a defect.")
    quiet: bool = Field(
        False, description="Console: warnings and errors only, no bar; the log file keeps all."
    )
    summary: Path | None = Field(
        None, description="Write at the end what the run has come to, as JSON."
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="Show metrics for Prometheus at this port; 0 takes a free one."
    )
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="Address for the metrics' port."
    )
    metrics_file: Path | None = Field(
        None, description="Write metrics for node exporter's textfile collector, as stt.prom."
    )
    local: bool = Field(
        False, description="Use the embedded MongoDB and Whisper server, started for this command."
    )
    data_dir: Path = Field(ROOT / ".stt", description="Where the embedded stack keeps its data.")

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8081, description="Port to listen on; 0 takes a free one."
    )
    model: str | None = Field(
        None, description="Whisper model: to load (serve, --local; else tiny.en), or to ask for."
    )
    device: Annotated[str, BeforeValidator(_device)] = Field(
        "auto", description="Where `serve` runs the model: auto, cpu, cuda or cuda:N."
    )
    compute_type: str | None = Field(
        None, description="Number format of the model, as int8 or float16; else the best there."
    )

    @model_validator(mode="after")
    def _backoff_in_order(self) -> "Settings":
        if self.backoff_max < self.backoff_base:
            raise ValueError("--backoff-max must not be less than --backoff-base")
        return self

    @model_validator(mode="after")
    def _again_or_for_the_first_time(self) -> "Settings":
        if self.retranscribe is not None and self.retry_errors:
            raise ValueError("--retranscribe and --retry-errors exclude each other")
        if self.retranscribe is not None and self.look_every is not None:
            raise ValueError("--retranscribe does what there is now: use it without --watch")
        return self

    @model_validator(mode="after")
    def _period_in_order(self) -> "Settings":
        if self.since and self.until and self.until <= self.since:
            raise ValueError("--until must be later than --since")
        return self

    @model_validator(mode="after")
    def _rehearsal_ends(self) -> "Settings":
        if self.dry_run and self.look_every is not None:
            raise ValueError("--dry-run shows what there is now: use it without --watch")
        return self

    @property
    def look_every(self) -> float | None:
        """Seconds between two looks for new chunks; None when the run is to end."""
        return None if self.once else self.watch

    @property
    def selection(self) -> Selection:
        """The chunks that a run is about."""
        return Selection(self.since, self.until, self.recording)

    @property
    def renewal_interval(self) -> float:
        """Seconds between two renewals of a claim."""
        return self.lease / RENEWALS_PER_LEASE

    def patient(self) -> "Settings":
        """A run that goes on for ever waits for ever, too, unless a person said otherwise."""
        if self.look_every is None:
            return self
        unsaid = {"server_wait", "mongo_wait"} - self.model_fields_set
        return self.model_copy(update=dict.fromkeys(unsaid, math.inf))

    def timeout(self, chunks: int) -> float:
        """Seconds allowed for a request of so many chunks."""
        return self.timeout_base + self.timeout_per_chunk * chunks


VARIABLES = {"mongodb_uri": "MONGODB_URI", "mongodb_database": "MONGODB_DATABASE"}
FLAGS = {"server_url": "--server"}
FROM_FILES = frozenset({"mongodb_uri", "api_key"})
"""Secrets, which may also lie in a file that the variable with _FILE behind it names."""

_SECRET = frozenset({"mongodb_uri", "api_key", "server_url"})


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return VARIABLES.get(name, f"STT_{name.upper()}")


def flag(name: str) -> str:
    """The command-line flag of a setting."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Merge flags (those that were given), environment and defaults.

    Raises:
        ConfigurationError: one line, naming the flag or variable, and what to do.
    """
    environ = os.environ if environment is None else environment
    given = {name: value for name, value in flags.items() if value is not None}
    sources = {name: flag(name) for name in given}
    for name in Settings.model_fields.keys() - given.keys():
        found = _found(name, environ)
        if found is not None:
            sources[name], given[name] = found
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, sources)) from None


def _found(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Where the environment has a setting, and its value; an empty one is as good as none."""
    source, value = variable(name), environ.get(variable(name), "")
    file_source = f"{source}_FILE"
    path = environ.get(file_source, "") if name in FROM_FILES else ""
    if path and value:
        raise ConfigurationError(f"{source} and {file_source} are both set: leave one out")
    if path:
        return file_source, _secret_in(path, file_source)
    return (source, value) if value else None


def _secret_in(path: str, source: str) -> str:
    """The one line of a file, as Docker, Kubernetes and systemd hand secrets over."""
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
    """Whether the person asks all programs for plain text, see https://no-color.org."""
    return bool(os.environ.get("NO_COLOR"))


def child_environment() -> dict[str, str]:
    """What a helper process of ours needs to start: paths and locale, none of our settings."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in names if name in os.environ}


def _one_line(error: ValidationError, sources: Mapping[str, str]) -> str:
    first = error.errors(include_url=False, include_context=True)[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name = str(first["loc"][0])
    source = sources.get(name, variable(name))
    value = first["input"]
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    given = "" if name in _SECRET else f", not {shown!r}"
    return f"{source} {_demand(first)}{given}"


def _demand(problem: Any) -> str:
    context = problem.get("ctx", {})
    match problem["type"]:
        case "int_parsing" | "int_from_float" | "int_type":
            return "must be a whole number"
        case "float_parsing" | "finite_number" | "float_type":
            return "must be a number"
        case "bool_parsing":
            return "must be true or false"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "greater_than":
            return f"must be more than {context['gt']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}"
        case "literal_error":
            return f"must be {context['expected']}"
        case "value_error":
            return str(context["error"])
        case "too_short" | "string_too_short":
            return "must not be empty"
        case _:
            return f"is not valid: {problem['msg']}"

"""The run itself: `stt` without a command."""

import contextlib
import dataclasses
import logging
import math
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stt_lib.cli import exit_codes
from stt_lib.cli.dry_run import rehearse
from stt_lib.cli.session import opened_store, reachable, same_place
from stt_lib.cli.signals import StopSignal
from stt_lib.config.installation import PROGRAM
from stt_lib.config.loader import unknown_variables
from stt_lib.config.settings import OPTIONS, Group, Settings
from stt_lib.domain.units import counted
from stt_lib.errors import ConfigurationError, StoreUnavailable, SttError, Unavailable
from stt_lib.files import is_writable
from stt_lib.pipeline.runner import Report, Runner
from stt_lib.pipeline.sinks import ChunkSink, Sink
from stt_lib.pipeline.sources import PendingChunks, Source
from stt_lib.pipeline.worker import Worker
from stt_lib.servers.discovery import following, is_dynamic
from stt_lib.servers.pool import ServerPool
from stt_lib.servers.protocols import Options
from stt_lib.servers.transport import http_channels
from stt_lib.store import Store
from stt_lib.telemetry import logs
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.formatters import short_id
from stt_lib.telemetry.stats import Figures, Stats
from stt_lib.telemetry.summary import Left, Summary

log = logging.getLogger("stt")

Work = Callable[[Store, Settings], tuple[Source, Sink]]


def run(settings: Settings) -> int:
    """Process the backlog; returns the exit code."""
    if settings.dry_run:
        return _dry_run(settings)
    set_up_log(settings, settings.log_file)
    signals = StopSignal()
    started = datetime.now(UTC)
    try:
        _check_writable("summary", settings.summary)
        _check_writable("metrics_file", settings.metrics_file)
    except ConfigurationError as error:
        return _halted(error)
    try:
        with signals.caught(), reachable(settings, whisper=True, stop=signals.event) as places:
            report = process(places, signals)
    except (ConfigurationError, Unavailable) as error:
        code = _halted(error)
        if settings.summary is not None:
            nothing = Summary(started, 0.0, Figures(), stopped_by=str(error), exit_code=code)
            nothing.write(settings.summary)
        return code
    return exit_code(report, signals)


def _halted(error: SttError) -> int:
    """Log one line without a stack trace, because a person has to act; returns the exit code."""
    log.error("%s", error, extra=Event.HALTED.of())
    is_usage = isinstance(error, ConfigurationError)
    return exit_codes.USAGE if is_usage else exit_codes.UNAVAILABLE


def _dry_run(settings: Settings) -> int:
    """Show what a run would do; not even the log file is touched."""
    logs.set_up(None, secrets(settings))
    with opened_store(dataclasses.replace(settings, mongo_wait=0.0)) as store:
        rehearse(store, source_and_sink(store, settings)[0], settings)
    return exit_codes.OK


def set_up_log(settings: Settings, file: Path | None) -> None:
    """Log as the settings say, to `file` and the console or only to the console."""
    logs.set_up(
        file,
        secrets(settings),
        format=settings.log_format,
        verbose=settings.verbose,
        quiet=settings.quiet,
    )
    for sentence in unknown_variables():
        log.warning("%s", sentence, extra=Event.SETTINGS.of())


def on_its_own(settings: Settings) -> Settings:
    """The settings without those that the environment may contain for other kinds of runs.

    STT_WATCH makes the waits endless, unless they are set: no option can say so.
    """
    groups = (Group.SELECTION, Group.RUNTIME)
    others = ("limit", "settle", "summary", "metrics_port", "metrics_file")
    defaults: dict[str, Any] = {
        name: option.default
        for name, option in OPTIONS.items()
        if option.group in groups or name in others or getattr(settings, name) == math.inf
    }
    return dataclasses.replace(settings, **defaults)


def _check_writable(name: str, file: Path | None) -> None:
    if file is not None and not is_writable(file):
        place = file if file.exists() else file.parent
        raise ConfigurationError(f"{OPTIONS[name].flag}: {place} does not exist or is not writable")


def source_and_sink(store: Store, settings: Settings) -> tuple[Source, Sink]:
    """What a run works on by its settings, and what happens to the results."""
    conditions, selection = settings.retranscribe, settings.selection
    if conditions is None:
        chunks = PendingChunks(
            store, selection, only_failed=settings.retry_errors, settle=settings.settle
        )
        return chunks, ChunkSink(store, settings.max_failures)
    from stt_lib.pipeline.retranscription import Retranscription, TranscriptSink

    transcripts = Retranscription(store, conditions, selection, model=settings.model)
    return transcripts, TranscriptSink(store, conditions)


def process(settings: Settings, signals: StopSignal, work: Work = source_and_sink) -> Report:
    """One run, from connecting to the totals in the log."""
    started, stats = datetime.now(UTC), Stats()
    with Store(
        settings.mongodb_uri,
        settings.mongodb_database,
        lease=settings.lease,
        mongo_wait=settings.mongo_wait,
        stop=signals.event,
    ) as store:
        store.indexes.ensure()
        report = _transcribe(store, settings, signals, stats, work)
        left = None if isinstance(report.halted_by, StoreUnavailable) else _left(store)
        if report.halted_by is not None:
            untouched = _untouched(store, settings) if left else ""
            log.error("Stopped: %s%s", report.halted_by, untouched, extra=Event.HALTED.of())
    summary = Summary(
        started,
        report.seconds,
        stats.figures(),
        unfinished=report.unfinished,
        left=left,
        stopped_by=_stopped_by(report, signals),
        exit_code=exit_code(report, signals),
    )
    summary.report()
    if settings.summary is not None:
        summary.write(settings.summary)
    for sentence in _next_steps(report, settings):
        log.info("%s", sentence, extra=Event.SUMMARY.of())
    logs.totals(report.tally, report.seconds, unfinished=report.unfinished)
    return report


def _transcribe(
    store: Store, settings: Settings, signals: StopSignal, stats: Stats, work: Work
) -> Report:
    source, sink = work(store, settings)
    pool = _pool(settings, signals, stats)
    followed = following(pool, settings.server_url, dns_server=settings.dns_server)
    with _metrics(settings, pool), followed:
        worker = Worker(store, source, sink, pool, settings, signals.event, stats=stats)
        signals.release = worker.heartbeat.release_all
        report = Runner(worker).run()
    if not report.abandoned:
        pool.close()
    return report


def _metrics(settings: Settings, pool: ServerPool) -> contextlib.AbstractContextManager[None]:
    """What exposes the metrics; imported only if they are wanted."""
    if settings.metrics_port is None and settings.metrics_file is None:
        return contextlib.nullcontext()
    from stt_lib.reports.metrics import Exporter

    return Exporter(settings, pool)


def _pool(settings: Settings, signals: StopSignal, stats: Stats) -> ServerPool:
    return ServerPool(
        [url for url in settings.server_url if not is_dynamic(url)],
        options=Options(settings.api_key, settings.model, settings.language, settings.prompt),
        protocol=settings.protocol,
        max_in_flight=settings.max_workers,
        server_max=settings.server_max,
        rate_limit=settings.rate_limit,
        audio_rate=settings.audio_rate,
        timeout=settings.timeout,
        server_wait=settings.server_wait,
        stop=signals.event,
        stats=stats,
        channels=http_channels(settings.ca_file),
    )


def _left(store: Store) -> Left | None:
    try:
        pending, kinds = store.chunks.count_pending(), store.failures.kinds()
    except SttError:
        return None
    parked = sum(kind.parked for kind in kinds)
    return Left(pending, sum(kind.chunks for kind in kinds) - parked, parked)


def _stopped_by(report: Report, signals: StopSignal) -> str | None:
    if report.halted_by is not None:
        return str(report.halted_by)
    return None if signals.number is None else signal.Signals(signals.number).name


def _untouched(store: Store, settings: Settings) -> str:
    if settings.retranscribe is not None:
        return "; the other transcripts are unchanged"
    try:
        pending = store.chunks.count_pending(settings.selection)
    except SttError:
        return ""
    return f"; {counted(pending, 'chunk')} left pending, untouched"


def _next_steps(report: Report, settings: Settings) -> Iterator[str]:
    """Sentences about what a person may want to do after this run."""
    if report.newest is not None:
        recording = shlex.quote(short_id(report.newest.original_id))
        yield f"To read the newest transcript: {PROGRAM} export {recording}{same_place(settings)}"
    if report.failed:
        yield f"To see what failed and why: {PROGRAM} errors{same_place(settings)}"


def exit_code(report: Report, signals: StopSignal) -> int:
    """The exit code of a run."""
    if isinstance(report.halted_by, ConfigurationError):
        return exit_codes.USAGE
    if report.halted_by is not None:
        return exit_codes.UNAVAILABLE
    if signals.number is not None:
        return exit_codes.by_signal(signals.number)
    return exit_codes.FAILURES if report.failed else exit_codes.OK


def secrets(settings: Settings) -> list[str]:
    """What must never appear in a log, whatever library logs it."""
    found = [settings.api_key or ""]
    for url in (settings.mongodb_uri, *settings.server_url):
        # Not by urlsplit, which raises for addresses that are refused only later.
        userinfo = re.split("[/?#]", url.partition("://")[2])[0].rpartition("@")[0]
        found += [userinfo, userinfo.partition(":")[2]]
    return found

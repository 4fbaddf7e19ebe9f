"""Checks of everything that a run needs; each finding says what to do."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from stt_lib.config.installation import PROGRAM
from stt_lib.config.settings import Settings
from stt_lib.errors import AttemptError, ConfigurationError, FailureKind, ServerBusy, SttError
from stt_lib.files import is_stream, write_whole
from stt_lib.servers.discovery import expanded, lookup
from stt_lib.servers.health_check import transcribe_probe
from stt_lib.servers.protocols import Options
from stt_lib.store import Store

OLDEST_MONGODB: Final = (4, 4, 0)
"""Version. The first MongoDB with $unionWith, by which we load audio and owners at once."""
MOST_SKEW: Final = timedelta(seconds=2)
"""Duration. Largest difference between the clocks that needs no mention."""
LEAST_LOG_DISK: Final = 200_000_000
"""Bytes. Least free space for logs, which take up to 60 MB."""
LEAST_MONGODB_DISK: Final = 1_000_000_000
"""Bytes. Least free space for MongoDB, which exits when it cannot write."""


class State(StrEnum):
    """Severity: a warning is worth knowing, a problem must be solved."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; `advice` says what to do about it."""

    check: str
    state: State
    text: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Run the checks one after the other; each tries the real thing."""
    yield from _database(settings)
    yield from _servers(settings)
    if is_stream(settings.log_file):
        yield _log_stream(settings.log_file)
        return
    yield _log_folder(settings.log_file)
    usage = shutil.disk_usage(_existing(settings.log_file.parent))
    yield _room("disk", usage.free, usage.total, LEAST_LOG_DISK)


def _fine(check: str, text: str) -> Finding:
    return Finding(check, State.OK, text)


def _warning(check: str, text: str, advice: str = "") -> Finding:
    return Finding(check, State.WARNING, text, advice)


def _problem(check: str, text: str, advice: str = "") -> Finding:
    return Finding(check, State.PROBLEM, text, advice)


# -- MongoDB ----------------------------------------------------------------------------------


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        with Store(settings.mongodb_uri, settings.mongodb_database, mongo_wait=0) as store:
            for check in (_version, _rights, _chunks, _indexes, _clock, _mongodb_disk):
                yield check(store)
    except SttError as error:
        yield _problem("MongoDB", str(error))


def _version(store: Store) -> Finding:
    version = ".".join(map(str, store.diagnostics.version))
    found = f"{store.address} answers, version {version}"
    if store.diagnostics.version >= OLDEST_MONGODB:
        return _fine("MongoDB", found)
    oldest = ".".join(map(str, OLDEST_MONGODB[:2]))
    return _problem("MongoDB", found, f"upgrade it: stt needs {oldest} or newer")


def _rights(store: Store) -> Finding:
    refused = store.diagnostics.refused()
    if not refused:
        return _fine("rights", f"may read and write in database {store.name}")
    found = f"this user may not {', '.join(refused)} in database {store.name}"
    return _problem("rights", found, "grant the role: db.grantRolesToUser(USER, ['readWrite'])")


def _chunks(store: Store) -> Finding:
    chunks = store.diagnostics.estimated_chunks()
    if chunks:
        return _fine("chunks", f"about {chunks:,} in {store.name}.audio_chunks")
    advice = "if you expect some, check that MONGODB_DATABASE is the ingester's"
    return _warning("chunks", f"none in {store.name}.audio_chunks", advice)


def _indexes(store: Store) -> Finding:
    missing = ", ".join(index.name for index in store.indexes.missing())
    if not missing:
        return _fine("indexes", "complete")
    advice = "the next run builds them if this user may; that can take minutes"
    return _warning("indexes", f"missing: {missing}", advice)


def _clock(store: Store) -> Finding:
    asked = datetime.now(UTC)
    theirs = store.now()
    answered = datetime.now(UTC)
    skew = max(asked - theirs, theirs - answered, timedelta(0))
    difference = f"{skew.total_seconds():.1f} s apart from MongoDB's"
    if skew <= MOST_SKEW:
        return _fine("clock", difference)
    advice = "synchronise both hosts: claims use MongoDB's clock and are safe, but log times differ"
    return _warning("clock", difference, advice)


def _mongodb_disk(store: Store) -> Finding:
    disk = store.diagnostics.disk()
    if disk is None:
        return _warning("its disk", "MongoDB does not report its free space")
    return _room("its disk", disk.free, disk.total, LEAST_MONGODB_DISK)


# -- STT servers ------------------------------------------------------------------------------


def _servers(settings: Settings) -> Iterator[Finding]:
    urls: list[str] = []
    addresses = lookup(settings.dns_server)
    for url in settings.server_url:
        try:
            urls += expanded(url, addresses)
        except OSError as error:
            advice = "is the service running, and STT_DNS_SERVER right?"
            yield _problem("server", str(error), advice)
    with ThreadPoolExecutor(max(1, len(urls))) as threads:
        yield from threads.map(lambda url: _server(url, settings), urls)


def _server(url: str, settings: Settings) -> Finding:
    options = Options(settings.api_key, settings.model, settings.language, settings.prompt)
    try:
        answer, seconds = transcribe_probe(
            url, settings.protocol, options, settings.timeout(1), settings.ca_file
        )
    except ConfigurationError as error:
        return _problem("server", str(error))
    except ServerBusy as error:
        return _warning("server", str(error), "it is busy: try again later")
    except AttemptError as error:
        return _problem("server", str(error), _ADVICE.get(error.kind, ""))
    model = f", model {answer.model}" if answer.model else ""
    found = (
        f"{answer.server} transcribed a test clip in {seconds:.1f} s"
        f" (protocol {answer.protocol}{model})"
    )
    if answer.segments:
        return _fine("server", found)
    advice = f"try it with your own speech: {PROGRAM} --limit 1"
    return _warning("server", f"{found}, but heard no speech in it", advice)


_ADVICE: Final = {
    FailureKind.CONNECTION: "start it, correct STT_SERVER_URL, or look for a firewall in between",
    FailureKind.TIMEOUT: "it may be loading its model: try again, then restart it; "
    "--timeout-base allows more time",
    FailureKind.SERVER_ERROR: "the server's log says why",
    FailureKind.INVALID_AUDIO: "it cannot decode Ogg Opus: check that ffmpeg is installed there",
    FailureKind.REJECTED: "the server's log says why",
}


# -- places -----------------------------------------------------------------------------------


def _log_folder(file: Path) -> Finding:
    """Try to write there, with a file that is deleted at once."""
    folder = _existing(file.parent)
    try:
        with tempfile.TemporaryFile(dir=folder):
            if file.exists():
                file.open("ab").close()
    except OSError as error:
        return _no_log(file, error)
    return _fine("log", f"{file} is writable")


def _log_stream(file: Path) -> Finding:
    """Open a pipe or a device as a run does: one that nobody reads is not waited for."""
    try:
        write_whole(file, "")
    except OSError as error:
        return _no_log(file, error)
    return _fine("log", f"{file} is writable")


def _no_log(file: Path, error: OSError) -> Finding:
    advice = "make it writable for this user, or choose another file with --log-file"
    return _problem("log", f"{file}: {error.strerror}", advice)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest existing one above it."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _room(check: str, free: int, total: int, least: int) -> Finding:
    found = f"{free / 1e9:.1f} of {total / 1e9:.0f} GB free"
    if free >= least:
        return _fine(check, found)
    return _problem(check, found, "free some space before the disk is full")

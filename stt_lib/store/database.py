"""The connection: how every operation is done, and what its failures mean.

An operation is repeated while MongoDB is away, for as long as `mongo_wait` says, and then
`StoreUnavailable` is raised. The driver's errors become ours here and nowhere else.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import pymongo
import tenacity
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo import errors as mongo_errors
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from stt_lib.domain.backoff import delay
from stt_lib.errors import ConfigurationError, StoreError, StoreUnavailable, SttError
from stt_lib.telemetry.events import Event

Document = dict[str, Any]
T = TypeVar("T")

log = logging.getLogger("stt")

CONNECT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
OPERATION_SECONDS: Final = 20.0
"""Longer than any of our operations takes on a healthy server; indexes and counts excepted."""

STOPPING_SECONDS: Final = 10.0
"""How long a result in hand may wait for MongoDB after a stop was asked for."""
_TRANSIENT_CODES: Final = frozenset(
    # HostUnreachable, HostNotFound, LockTimeout, CursorNotFound, MaxTimeMSExpired,
    # WriteConcernFailed, WriteConcernTimeout, NetworkTimeout, ShutdownInProgress, WriteConflict,
    # QueryPlanKilled, PrimarySteppedDown, CursorKilled, ExceededTimeLimit, SocketException,
    # NotWritablePrimary, Interrupted*, NotPrimary*, StaleConfig
    {6, 7, 24, 43, 50, 64, 75, 89, 91, 112, 175, 189, 237, 262, 9001}
    | {10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
UNAUTHORIZED_CODES: Final = frozenset({13, 18, 8000})


class Connection:
    """The user's database. Thread-safe."""

    def __init__(
        self,
        uri: str,
        database: str | None = None,
        *,
        lease: float = 60.0,
        mongo_wait: float = 60.0,
        stop: threading.Event | None = None,
    ) -> None:
        """Connect; `lease` and `mongo_wait` in seconds.

        Once `stop` is set, an operation waits for MongoDB no longer than `STOPPING_SECONDS`.

        Raises:
            ConfigurationError: the URI is not usable, or the login is refused.
            StoreUnavailable: no usable server answered within five seconds.
        """
        self._client = _client(uri)
        options: CodecOptions[Document] = CodecOptions(
            tz_aware=True,
            datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            unicode_decode_error_handler="replace",
        )
        self._db = self._client.get_database(
            database or self._client.get_default_database("stt").name,
            codec_options=options,
            write_concern=WriteConcern("majority"),
            read_preference=pymongo.ReadPreference.PRIMARY,
        )
        self._chunks: Collection[Document] = self._db["audio_chunks"]
        # For what may be forgotten by a crash or a failover. Waiting for a majority, but not for
        # the journal, would be no middle way: on a set of one member that takes 100 ms.
        self._chunks_unwaited = self._chunks.with_options(write_concern=WriteConcern(1))
        self._transcriptions: Collection[Document] = self._db["transcriptions"]
        self._lease_ms = round(lease * 1000)
        self._mongo_wait = mongo_wait
        self._stop = stop or threading.Event()
        try:
            self._call(self._hello, seconds=CONNECT_SECONDS, wait=0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with pymongo.timeout(CLOSE_SECONDS):  # it says good-bye, but to whom, if MongoDB is away?
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def now(self) -> datetime:
        """The time by the database's clock."""
        moment: datetime = self._call(self._hello)["localTime"]
        return moment

    def _hello(self) -> Document:
        return self._db.command("hello", codec_options=self._db.codec_options)

    def patiently(self, operation: Callable[[], T]) -> T:
        """Repeat a reading operation while MongoDB is away, for as long as `mongo_wait` says."""
        return self._call(operation, seconds=None)

    def _call(
        self,
        operation: Callable[[], T],
        *,
        seconds: float | None = OPERATION_SECONDS,
        wait: float | None = None,
    ) -> T:
        """Do an operation, again and again while MongoDB is away, for `wait` seconds in all."""
        patience = self._mongo_wait if wait is None else wait
        try:
            return self._repeatedly(
                _limited(operation, seconds, time.monotonic() + patience), patience
            )
        except mongo_errors.DuplicateKeyError:
            raise
        except (mongo_errors.PyMongoError, BSONError, OverflowError) as error:
            raise self._translated(error) from None  # its text may quote our documents

    def _repeatedly(self, operation: Callable[[], T], patience: float) -> T:
        try:
            return operation()  # nearly always enough, and what follows costs half a query
        except mongo_errors.PyMongoError as error:
            if patience <= 0 or not _is_transient(error):
                raise
        rng = random.Random()  # noqa: S311 - jitter, not cryptography
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_transient),
            stop=lambda state: self._is_too_late(state, patience),
            wait=lambda state: delay(state.attempt_number, 0.2, 5.0, rng),
            sleep=self._pause,
            before_sleep=_tell,
            reraise=True,
        )
        return attempts(operation)

    def _is_too_late(self, state: tenacity.RetryCallState, patience: float) -> bool:
        if self._stop.is_set():
            patience = min(patience, STOPPING_SECONDS)
        return (state.seconds_since_start or 0.0) >= patience

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            time.sleep(min(seconds, 0.5))  # a result in hand is still worth some tries

    def _translated(self, error: Exception) -> Exception:
        if _is_transient(error):
            return StoreUnavailable(
                f"MongoDB at {self.address} is not available ({short(error)}): "
                "is it running, and is MONGODB_URI right?"
            )
        if getattr(error, "code", None) in UNAUTHORIZED_CODES:
            return ConfigurationError(
                f"MongoDB at {self.address} refuses ({short(error)}): "
                "check the user and password in MONGODB_URI and the rights of that user"
            )
        return StoreError(f"MongoDB at {self.address} cannot do that ({short(error)})")

    @property
    def address(self) -> str:
        """Hosts and ports, without user and password."""
        servers = self._client.topology_description.server_descriptions()
        return ", ".join(f"{host}:{port}" for host, port in sorted(servers))


def _client(uri: str) -> pymongo.MongoClient[Document]:
    try:
        given = {name.lower() for name in pymongo.uri_parser.parse_uri(uri)["options"]}
        defaults: dict[str, Any] = {
            "serverSelectionTimeoutMS": round(CONNECT_SECONDS * 1000),
            "connectTimeoutMS": round(CONNECT_SECONDS * 1000),
            "appname": "stt",
        }
        options = {name: value for name, value in defaults.items() if name.lower() not in given}
        return pymongo.MongoClient(uri, **options)
    except (mongo_errors.PyMongoError, ValueError, OSError) as error:
        raise ConfigurationError(f"MONGODB_URI cannot be used: {error}") from None


def _limited(operation: Callable[[], T], seconds: float | None, deadline: float) -> Callable[[], T]:
    """Limit an operation, and the search for a server before it, which it shares the time with."""
    if seconds is None:
        return operation

    def within_time() -> T:
        left = max(deadline - time.monotonic(), CONNECT_SECONDS)
        with pymongo.timeout(min(seconds, left)):
            return operation()

    return within_time


def _is_transient(error: BaseException) -> bool:
    """Whether MongoDB, or the way to it, is away for a while."""
    if isinstance(error, mongo_errors.ConnectionFailure | mongo_errors.WTimeoutError):
        return True
    if not isinstance(error, mongo_errors.PyMongoError):
        return False
    code = getattr(error, "code", None)
    return (
        error.timeout
        or code in _TRANSIENT_CODES
        or _is_for_want_of_an_index(error)
        or error.has_error_label("RetryableWriteError")
        or isinstance(error, mongo_errors.WaitQueueTimeoutError)
    )


def _is_for_want_of_an_index(error: mongo_errors.PyMongoError) -> bool:
    """An index is listed as soon as somebody begins to build it, but can be used only later."""
    return isinstance(error, mongo_errors.OperationFailure) and "hint provided" in str(error)


def _tell(state: tenacity.RetryCallState) -> None:
    """Once per operation, so that an outage is seen but does not flood the log."""
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning(
            "MongoDB is away (%s), trying again",
            short(state.outcome.exception()),
            extra=Event.MONGODB_AWAY.of(),
        )


def short(error: BaseException | None) -> str:
    """What went wrong, without the driver's long text, which may quote documents."""
    if isinstance(error, SttError):
        return str(error)
    name = (getattr(error, "details", None) or {}).get("codeName")
    return str(name or type(error).__name__)

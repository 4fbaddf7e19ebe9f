"""The connection to MongoDB: how operations run and are repeated, and what their failures mean.

The driver's errors are mapped to our own here and nowhere else.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeVar

import bson
import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import errors as mongo_errors
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from stt_lib.domain.backoff import delay
from stt_lib.errors import ConfigurationError, StoreError, StoreUnavailable, SttError, WriteRefused
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.formatters import shown_id
from stt_lib.timing import Event as StopEvent
from stt_lib.timing import Timing

Document = dict[str, Any]
T = TypeVar("T")

log = logging.getLogger("stt")

CONNECT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
OPERATION_SECONDS: Final = 20.0
"""Seconds. More than any operation needs on a healthy server, except builds and counts."""

STOPPING_SECONDS: Final = 10.0
"""Seconds. Maximum wait for MongoDB with a result in hand once a stop was requested."""

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0
LARGEST_DOCUMENT: Final = 16 * 1024 * 1024
"""Bytes. MongoDB's limit."""

DURABLE: Final = WriteConcern("majority", j=True)
"""Survives a failover and a killed mongod. Without `j`, a set of one member takes 100 ms."""

UNWAITED: Final = WriteConcern(1)
"""For writes that a crash or a failover may undo, because the next run repeats them."""

_PRIMARY: Final = pymongo.ReadPreference.PRIMARY
_TRANSIENT_CODES: Final = frozenset(
    # HostUnreachable, HostNotFound, LockTimeout, CursorNotFound, MaxTimeMSExpired,
    # WriteConcernFailed, WriteConcernTimeout, NetworkTimeout, ShutdownInProgress, WriteConflict,
    # QueryPlanKilled, PrimarySteppedDown, CursorKilled, ExceededTimeLimit, SocketException,
    # NotWritablePrimary, Interrupted*, NotPrimary*, StaleConfig
    {6, 7, 24, 43, 50, 64, 75, 89, 91, 112, 175, 189, 237, 262, 9001}
    | {10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
_DUPLICATE_KEY: Final = 11000
_REASONS: Final = {
    121: "a validator of the collection forbids the document",
    10334: "the document would be too large",
    17419: "the document would be too large",
}
UNAUTHORIZED_CODES: Final = frozenset({13, 18, 8000})
_INVALID_NAMESPACE: Final = 73


class Database:
    """The user's database. Thread-safe."""

    def __init__(
        self, uri: str, name: str | None, *, mongo_wait: float, stop: StopEvent, timing: Timing
    ) -> None:
        """Connect, as described at `Store`."""
        self._mongo_wait = mongo_wait
        self._stop = stop
        self._timing = timing
        self._has_warned = False
        self.when_hint_fails: Callable[[], None] = lambda: None
        self._client, self.raw = _opened(uri, name)
        self.chunks: Collection[Document] = self.raw["audio_chunks"]
        self.transcriptions: Collection[Document] = self.raw["transcriptions"]
        self.claims: Collection[Document] = self.raw["stt_claims"]
        self.dropped: Collection[Document] = self.raw["stt_dropped"]
        self.seams: Collection[Document] = self.raw["stt_seams"]
        try:
            self.run(self._hello, seconds=CONNECT_SECONDS, wait=0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with pymongo.timeout(CLOSE_SECONDS):  # closing sends a message; MongoDB may be away
            self._client.close()

    def now(self) -> datetime:
        """The time by MongoDB's clock (UTC)."""
        moment: datetime = self.run(self._hello)["localTime"]
        return moment

    def _hello(self) -> Document:
        return self.raw.command("hello", codec_options=self.raw.codec_options)

    @property
    def address(self) -> str:
        """Hosts and ports, without user and password."""
        servers = self._client.topology_description.server_descriptions()
        return ", ".join(f"{host}:{port}" for host, port in sorted(servers))

    def run(
        self,
        operation: Callable[[], T],
        *,
        seconds: float | None = OPERATION_SECONDS,
        wait: float | None = None,
    ) -> T:
        """Run an operation, and repeat it while MongoDB is away or an answer was lost.

        `seconds` limits one attempt (None: no limit), `wait` all of them (default: `mongo_wait`).

        Raises:
            StoreUnavailable: MongoDB stayed away.
            StoreError: MongoDB refuses the operation.
            ConfigurationError: the user lacks a right.
        """
        began = self._timing.monotonic()
        patience = self._mongo_wait if wait is None else wait
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._limited(operation, seconds, began + patience)
            except (mongo_errors.PyMongoError, BSONError, OverflowError) as error:
                is_too_late = self._is_too_late(began, patience)
                if _lacks_index(error):
                    self.when_hint_fails()  # which may wait for a build, however long it takes
                    is_too_late = is_too_late and attempt > 1
                if not _is_transient(error) or is_too_late:
                    raise self.translated(error) from None  # its text may quote documents
                self._prepare_retry(error, attempt)

    def run_until_stopped(self, operation: Callable[[], object]) -> None:
        """Run an operation, whose errors do not matter, but wait for its end only until a stop."""

        def run() -> None:
            with suppress(SttError):
                self.run(operation, seconds=None)

        if not self._stop.is_set():
            thread = self._timing.start_thread(run, "stt-index")
            while thread.is_alive() and not self._stop.is_set():
                thread.join(FIRST_DELAY)

    def _limited(self, operation: Callable[[], T], seconds: float | None, deadline: float) -> T:
        """The limit includes the search for a server, which precedes the operation."""
        if seconds is None:
            return operation()
        left = max(deadline - self._timing.monotonic(), CONNECT_SECONDS)
        with pymongo.timeout(min(seconds, left)):
            return operation()

    def _is_too_late(self, began: float, patience: float) -> bool:
        if self._stop.is_set():
            patience = min(patience, STOPPING_SECONDS)
        return self._timing.monotonic() - began >= patience

    def _prepare_retry(self, error: Exception, attempt: int) -> None:
        # Once per operation, so that an outage does not flood the log.
        if attempt == 1 and not _lacks_index(error):
            log.warning(
                "MongoDB is not available (%s), retrying",
                short(error),
                extra=Event.MONGODB_AWAY.of(),
            )
        seconds = delay(attempt, FIRST_DELAY, LONGEST_DELAY, self._timing.random)
        if self._stop.wait(seconds):
            self._timing.sleep(min(seconds, 0.5))  # a result in hand is still worth some tries

    def find(
        self,
        collection: Collection[Document],
        query: Document,
        fields: Mapping[str, Any] | None = None,
        *,
        seconds: float | None = OPERATION_SECONDS,
        **options: Any,
    ) -> list[Document]:
        """The documents that match; `options` as the driver's own `find` takes them."""
        return self.run(lambda: list(collection.find(query, fields, **options)), seconds=seconds)

    def find_one(
        self,
        collection: Collection[Document],
        query: Document,
        fields: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Document | None:
        """The first document that matches."""
        return self.run(lambda: collection.find_one(query, fields, **options))

    def has(self, collection: Collection[Document], query: Document) -> bool:
        """Whether a document matches."""
        return self.find_one(collection, query, {"_id": 1}) is not None

    def bulk(
        self, collection: Collection[Document], operations: Sequence[Any]
    ) -> list[Document | None]:
        """Write operations side by side; returns for each of them the write error, if any.

        When the write concern failed, nobody knows what was written: all is repeated.
        """

        def write() -> list[Document | None]:
            refusals: list[Document | None] = [None] * len(operations)
            try:
                collection.bulk_write(operations, ordered=False)
            except mongo_errors.BulkWriteError as error:
                _raise_unknown(error.details)
                for refusal in error.details["writeErrors"]:
                    refusals[refusal["index"]] = refusal
            return refusals

        return self.run(write)

    def encoded(self, document: Mapping[str, Any]) -> RawBSONDocument:
        """The document as it is sent; encoded early, a bad one harms no companion.

        Raises:
            StoreError: BSON cannot hold it, or it is larger than MongoDB allows.
        """
        try:
            encoded = bson.encode(document, codec_options=self.raw.codec_options)
        except (BSONError, OverflowError, TypeError, ValueError) as error:
            raise self.translated(error) from None
        if len(encoded) > LARGEST_DOCUMENT:
            raise StoreError(f"a document of {len(encoded):,} bytes is too large for MongoDB")
        return RawBSONDocument(encoded)

    def readable(self, documents: Iterable[Document], read: Callable[[Document], T]) -> Iterator[T]:
        """Yield the documents that can be read; one warning covers all the others."""
        for document in documents:
            try:
                yield read(document)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                if not self._has_warned:
                    self._has_warned = True
                    log.warning(
                        "A transcript cannot be read and is skipped, perhaps others as well: %s",
                        shown_id(document["_id"]),
                        extra=Event.LEFT_ALONE.of(),
                    )

    def refused(self, refusal: Document, ids: Sequence[Any] = ()) -> WriteRefused:
        """The error for an operation of a bulk write that MongoDB refused; `ids` of its chunks."""
        why = _REASONS.get(refusal.get("code", 0)) or f"error {refusal.get('code')}"
        return WriteRefused(f"MongoDB at {self.address} refuses a write: {why}", ids)

    def translated(self, error: Exception) -> SttError:
        """Our error for one of the driver's."""
        at = f"MongoDB at {self.address}"
        if _is_transient(error):
            return StoreUnavailable(
                f"{at} is not available ({short(error)}): is it running, and is MONGODB_URI right?"
            )
        code = getattr(error, "code", None)
        if code in UNAUTHORIZED_CODES:
            return ConfigurationError(
                f"{at} refuses ({short(error)}): "
                "check the user and password in MONGODB_URI and the rights of that user"
            )
        if code == _INVALID_NAMESPACE:
            return ConfigurationError(f"{at} cannot have a database of this name: MONGODB_DATABASE")
        return StoreError(f"{at} refuses the operation ({short(error)})")


def is_duplicate(refusal: Document) -> bool:
    """Whether a unique index refused the write."""
    return refusal.get("code") == _DUPLICATE_KEY


def unwaited(collection: Collection[Document]) -> Collection[Document]:
    """The collection for writes that need not survive a crash."""
    return collection.with_options(write_concern=UNWAITED)


def confirmed(collection: Collection[Document]) -> Collection[Document]:
    """The collection as a majority has it: no failover takes back what is read here."""
    return collection.with_options(read_concern=ReadConcern("majority"))


def _opened(
    uri: str, name: str | None
) -> tuple[pymongo.MongoClient[Document], pymongo.database.Database[Document]]:
    options: CodecOptions[Document] = CodecOptions(
        tz_aware=True,
        datetime_conversion=DatetimeConversion.DATETIME_AUTO,
        unicode_decode_error_handler="replace",
    )
    try:
        client = _client(uri)
    except Exception as error:  # noqa: BLE001 - the driver raises all kinds for a bad URI
        raise ConfigurationError(f"MONGODB_URI cannot be used: {error}") from None
    try:
        name = name or client.get_default_database("stt").name
        return client, client.get_database(name, options, _PRIMARY, DURABLE)
    except Exception as error:  # noqa: BLE001 - and for a bad name
        client.close()
        raise ConfigurationError(f"The database name cannot be used: {error}") from None


def _client(uri: str) -> pymongo.MongoClient[Document]:
    given = {option.lower() for option in pymongo.uri_parser.parse_uri(uri)["options"]}
    defaults: dict[str, Any] = {
        "serverSelectionTimeoutMS": round(CONNECT_SECONDS * 1000),
        "connectTimeoutMS": round(CONNECT_SECONDS * 1000),
        "appname": "stt",
    }
    options = {option: value for option, value in defaults.items() if option.lower() not in given}
    return pymongo.MongoClient(uri, **options)


def _is_transient(error: BaseException) -> bool:
    """Whether MongoDB, or the way to it, is away for a while."""
    if not isinstance(error, mongo_errors.PyMongoError):
        return False
    return (
        isinstance(error, mongo_errors.ConnectionFailure)
        or error.timeout
        or getattr(error, "code", None) in _TRANSIENT_CODES
        or _lacks_index(error)
        or _is_refused_retry(error)
        or error.has_error_label("RetryableWriteError")
    )


def _lacks_index(error: BaseException) -> bool:
    """Whether a hinted index was dropped, or is listed but still being built."""
    return isinstance(error, mongo_errors.OperationFailure) and "hint provided" in str(error)


def _is_refused_retry(error: BaseException) -> bool:
    """Whether a standalone refused a retryable write, which the driver must not have sent.

    It sometimes does when a standalone restarts. The next attempt is an ordinary write.
    """
    return isinstance(error, mongo_errors.OperationFailure) and "retryable writes" in str(error)


def _raise_unknown(details: Mapping[str, Any]) -> None:
    """Raise if a bulk write failed in a way that says nothing about its operations."""
    for error in details.get("writeConcernErrors", ()):
        raise mongo_errors.WriteConcernError(error.get("errmsg", ""), error.get("code"), error)
    for error in details.get("writeErrors", ()):
        if error.get("code") in _TRANSIENT_CODES:
            raise mongo_errors.OperationFailure(error.get("errmsg", ""), error["code"], error)


def short(error: BaseException) -> str:
    """What went wrong, without the driver's long text, which may quote documents."""
    if isinstance(error, SttError):
        return str(error)
    name = (getattr(error, "details", None) or {}).get("codeName")
    return str(name or type(error).__name__)

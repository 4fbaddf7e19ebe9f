"""Every query: the only module that knows MongoDB.

The methods of `Store` are the verbs of the design: pending, claim, renew, release, save, mark,
fail. Each may be repeated after a lost answer without a different effect, so each is: for as long
as `mongo_wait` says, and then `StoreUnavailable` is raised. Times are the database's own, so that
the clocks of the workers do not matter.
"""

import functools
import logging
import random
import threading
import time
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pymongo
import tenacity
from bson import ObjectId
from bson.binary import Binary
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from pymongo import errors as mongo_errors
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from stt_lib import documents, model
from stt_lib.backoff import delay
from stt_lib.documents import identity, nested
from stt_lib.errors import (
    ClaimLost,
    ConfigurationError,
    StoreError,
    StoreUnavailable,
    SttError,
)

Document = dict[str, Any]
T = TypeVar("T")

log = logging.getLogger("stt")

CONNECT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
OPERATION_SECONDS: Final = 20.0
"""Longer than any of our operations takes on a healthy server; indexes and counts excepted."""

STOPPING_SECONDS: Final = 10.0
"""How long a result in hand may wait for MongoDB after a stop was asked for."""

HISTORY: Final = 10
"""So many past failures are kept on a chunk."""

_PENDING: Final[Document] = {"vad.has_speech": True, "transcribed_at": None}
_WORKABLE: Final[Document] = {**_PENDING, "stt.parked_at": None}
_FAILED: Final[Document] = {**_PENDING, "stt.error.at": {"$exists": True}}
_NEWEST_FIRST: Final = [("priority", -1), ("start", -1), ("index", -1)]
_ALSO_PLANNED_WITH: Final = [
    "original_id",
    "_id",
    "vad.prob",
    "stt.retry_at",
    "stt.claim.until",
    "stt.error.at",
]
_PLAN: Final = dict.fromkeys([*dict(_NEWEST_FIRST), *_ALSO_PLANNED_WITH], 1)
_PLAN_KEYS: Final = [*_NEWEST_FIRST, *((name, 1) for name in _ALSO_PLANNED_WITH)]
_LOADED: Final[Document] = {
    **dict.fromkeys(["index", "start", "original_id", "data", "format"], 1),
    **dict.fromkeys(["stt.failures", "stt.excuses", "stt.error.kind"], 1),
}
_ALSO_LISTED_WITH: Final = ["stt.error.kind", "stt.failures", "stt.parked_at"]
_WITHOUT_EMPTY_STT: Final[Document] = {
    "$set": {"stt": {"$cond": [{"$eq": ["$stt", {}]}, "$$REMOVE", "$stt"]}}
}

_TRANSIENT_CODES: Final = frozenset(
    # HostUnreachable, HostNotFound, LockTimeout, CursorNotFound, MaxTimeMSExpired,
    # WriteConcernFailed, WriteConcernTimeout, NetworkTimeout, ShutdownInProgress, WriteConflict,
    # QueryPlanKilled, PrimarySteppedDown, CursorKilled, ExceededTimeLimit, SocketException,
    # NotWritablePrimary, Interrupted*, NotPrimary*, StaleConfig
    {6, 7, 24, 43, 50, 64, 75, 89, 91, 112, 175, 189, 237, 262, 9001}
    | {10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
_UNAUTHORIZED_CODES: Final = frozenset({13, 18, 8000})


@dataclass(frozen=True, slots=True)
class Index:
    """An index that we make when it is missing."""

    name: str
    collection: str
    keys: list[tuple[str, int]]
    options: Document
    purpose: str


_INDEXES: Final = (
    # Holds every field that planning reads, so that planning never touches the audio.
    Index(
        "stt_pending",
        "audio_chunks",
        _PLAN_KEYS,
        {"partialFilterExpression": _WORKABLE},
        "finding pending chunks reads the whole collection",
    ),
    Index(
        "stt_failed",
        "audio_chunks",
        [*_PLAN_KEYS, *((name, 1) for name in _ALSO_LISTED_WITH)],
        {"partialFilterExpression": _FAILED},
        "finding failed chunks reads the whole collection",
    ),
    Index(
        "stt_owner",
        "transcriptions",
        [("original", 1), ("chunk_ids", 1)],
        {"unique": True, "partialFilterExpression": {"chunk_ids": {"$exists": True}}},
        "two workers on the same chunks could save two transcripts",
    ),
)


class Store:
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
        # A mark that a crash forgets is made again: the transcript says which chunks it owns.
        self._marks = self._chunks.with_options(write_concern=WriteConcern("majority", j=False))
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

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- before a run -------------------------------------------------------------------------

    def ensure_indexes(self) -> None:
        """Make the indexes that are missing; without the right to, warn and do without."""
        for index in _INDEXES:
            if not self._is_indexed(index.name) and self._create(index):
                self._indexed.add(index.name)

    def _is_indexed(self, name: str) -> bool:
        return name in self._indexed

    @functools.cached_property
    def _indexed(self) -> set[str]:
        """Names of our indexes that exist."""
        try:
            return {
                name
                for collection in {index.collection for index in _INDEXES}
                for name in self._call(self._db[collection].index_information)
            }
        except ConfigurationError:
            return set()

    def _create(self, index: Index) -> bool:
        collection = self._db[index.collection]
        try:
            if not self._is_empty(collection):
                log.info("Building index %s on %s, once", index.name, index.collection)
            # On a large collection this takes minutes, so there is no limit of time.
            self._call(
                lambda: collection.create_index(index.keys, name=index.name, **index.options),
                seconds=None,
            )
        except (ConfigurationError, StoreError, mongo_errors.DuplicateKeyError) as error:
            log.warning(
                "Index %s on %s could not be made, so %s: %s",
                index.name,
                index.collection,
                index.purpose,
                _short(error),
            )
            return False
        return True

    def _is_empty(self, collection: Collection[Document]) -> bool:
        return self._call(lambda: collection.find_one({}, {"_id": 1})) is None

    def now(self) -> datetime:
        """The time by the database's clock."""
        moment: datetime = self._call(self._hello)["localTime"]
        return moment

    def _hello(self) -> Document:
        return self._db.command("hello", codec_options=self._db.codec_options)

    def count_pending(self) -> int:
        """How many chunks are pending and not parked."""
        return self._call(self._count_pending, seconds=None)

    def _count_pending(self) -> int:
        if self._is_indexed("stt_pending"):
            return self._chunks.count_documents({}, hint="stt_pending")
        return self._chunks.count_documents(_WORKABLE)

    # -- planning -----------------------------------------------------------------------------

    def pending(
        self,
        *,
        since: datetime,
        only_failed: bool = False,
        but: Container[Hashable] = frozenset(),
    ) -> Iterator[model.ChunkRef]:
        """Stream what may be worked on now, newest first: metadata, never audio.

        Chunks under somebody's live claim are left out, and so are those that became due again
        only after `since`, the start of the run: what fails in a run is not picked again in it.
        `only_failed` streams what has failed before `since` instead, parked or not due as it may
        be. May raise errors of the driver half-way: call through `patiently`, and start again.
        """
        index, wanted = ("stt_failed", _FAILED) if only_failed else ("stt_pending", _WORKABLE)
        now = self._hello()["localTime"]
        # The partial index holds the wanted chunks and no others. Asked for with a filter,
        # MongoDB would read every document to check it once more, audio and all.
        filtered = {} if self._is_indexed(index) else wanted
        cursor = self._chunks.find(
            filtered,
            _PLAN,
            sort=_NEWEST_FIRST,
            hint=None if filtered else index,
            allow_disk_use=True if filtered else None,
            batch_size=1000,
        )
        with cursor:
            for document in cursor:
                if identity(document["_id"]) in but:
                    continue
                if _is_claimable(document, now) and (
                    _failed_before(document, since) if only_failed else _is_due(document, since)
                ):
                    yield documents.chunk_ref(document)

    def patiently(self, operation: Callable[[], T]) -> T:
        """Repeat a reading operation while MongoDB is away, for as long as `mongo_wait` says."""
        return self._call(operation, seconds=None)

    # -- claims -------------------------------------------------------------------------------

    def claim(
        self, sequence: model.Sequence, token: str, *, since: datetime | None = None
    ) -> model.Claim | None:
        """Claim a sequence and load its audio; None when somebody else has its newest chunk.

        The newest chunk is won first, by one atomic update: of two workers only one goes on.
        Then the rest; what was won beyond a chunk that was not is given back. Chunks that failed
        elsewhere after `since`, the start of the run, and have to wait now, are not claimed: the
        plan could not know that.
        """
        ids = [chunk.id for chunk in sequence.chunks]
        taken = {"$set": {"stt.claim": self._claim_of(token)}}
        newest = {
            "_id": sequence.newest.id,
            "original_id": sequence.original_id,  # the likely shard key of a sharded collection
            **self._claimable(token, since),
        }
        won = self._call(
            lambda: self._chunks.find_one_and_update(newest, [taken], projection={"_id": 1})
        )
        if won is None:
            return None
        if len(ids) > 1:
            rest = {"_id": {"$in": ids[:-1]}, **self._claimable(token, since)}
            self._call(lambda: self._chunks.update_many(rest, [taken]))
        return self._load(sequence, token)

    def _claim_of(self, token: str) -> Document:
        until = {"$add": ["$$NOW", self._lease_ms]}
        return {"by": {"$literal": token}, "at": "$$NOW", "until": until}

    def _claimable(self, token: str, since: datetime | None) -> Document:
        """Free or expired, or ours already (the answer to our first try was lost)."""
        free: list[Document] = [{"$lte": ["$stt.claim.until", "$$NOW"]}]
        if since is not None:
            is_parked = {"$eq": [{"$type": "$stt.parked_at"}, "date"]}
            waits = {"$or": [is_parked, {"$gt": ["$stt.retry_at", "$$NOW"]}]}
            free.append({"$or": [{"$lte": ["$stt.error.at", since]}, {"$not": [waits]}]})
        return {**_PENDING, "$or": [{"$expr": {"$and": free}}, {"stt.claim.by": token}]}

    def _load(self, sequence: model.Sequence, token: str) -> model.Claim | None:
        """What is held now, and which of it a transcript owns already: in one query."""
        ids = [chunk.id for chunk in sequence.chunks]
        owner: list[Document] = [
            {"$match": _owners(sequence.original_id, ids)},
            {"$project": {"chunk_ids": 1}},
        ]
        pipeline: list[Document] = [
            {"$match": self._held(ids, token)},
            {"$project": _LOADED},
            {"$unionWith": {"coll": "transcriptions", "pipeline": owner}},
        ]
        found: dict[Hashable, model.Chunk] = {}
        owned: set[Hashable] = set()
        for document in self._call(lambda: list(self._chunks.aggregate(pipeline))):
            if "chunk_ids" in document:
                owned.update(map(identity, document["chunk_ids"]))
            else:
                found[identity(document["_id"])] = documents.chunk(document)
        won = [found.get(identity(chunk_id)) for chunk_id in ids]
        first = max((at + 1 for at, chunk in enumerate(won) if chunk is None), default=0)
        beyond = [chunk.id for chunk in won[:first] if chunk is not None]
        if beyond:
            self.release(beyond, token)
        chunks = tuple(chunk for chunk in won[first:] if chunk is not None)
        owned.intersection_update(identity(chunk.id) for chunk in chunks)
        if not chunks:
            return None
        return model.Claim(token, sequence.original_id, chunks, frozenset(owned))

    @staticmethod
    def _held(ids: Sequence[Any], token: str) -> Document:
        return {"_id": {"$in": list(ids)}, "stt.claim.by": token, "transcribed_at": None}

    def renew(self, ids: Sequence[Any], token: str) -> None:
        """Hold the claim for another lease.

        Raises:
            ClaimLost: not all of the chunks are ours any more.
        """
        until = [{"$set": {"stt.claim": self._claim_of(token)}}]
        held = self._held(ids, token)
        matched = self._call(lambda: self._chunks.update_many(held, until)).matched_count
        if matched != len(ids):
            raise ClaimLost(f"{len(ids) - matched} of {len(ids)} chunks are claimed by another")

    def release(self, ids: Sequence[Any], token: str) -> None:
        """Give chunks back untouched; those that are not ours any more are left alone."""
        forget: list[Document] = [{"$unset": "stt.claim"}, _WITHOUT_EMPTY_STT]
        self._call(lambda: self._chunks.update_many(self._held(ids, token), forget))

    def live_claims(self) -> dict[str, datetime]:
        """Tokens that hold pending chunks now, and until when they do unless renewed."""
        return self._call(self._live_claims)

    def _live_claims(self) -> dict[str, datetime]:
        now = self._hello()["localTime"]
        live: dict[str, datetime] = {}
        query = {**_WORKABLE, "stt.claim.until": {"$gt": now}}
        hint = "stt_pending" if self._is_indexed("stt_pending") else None
        for document in self._chunks.find(query, {"stt.claim": 1}, hint=hint):
            token = str(nested(document, "stt.claim.by"))
            until = nested(document, "stt.claim.until")
            live[token] = max(until, live.get(token, until))
        return live

    # -- results ------------------------------------------------------------------------------

    @staticmethod
    def new_id() -> ObjectId:
        return ObjectId()

    def owned(self, original_id: Any, ids: Sequence[Any]) -> set[Any]:
        """Which of these chunks (by `identity`) a saved transcript owns already."""
        query = _owners(original_id, ids)
        found = self._call(lambda: list(self._transcriptions.find(query, {"chunk_ids": 1})))
        theirs = {identity(i) for document in found for i in document["chunk_ids"]}
        return theirs & {identity(i) for i in ids}

    def has_transcribed_twin(self, claim: model.Claim, chunk: model.Chunk) -> bool:
        """Whether another chunk of the same recording and index is in a transcript."""
        query = {"original": claim.original_id, "chunk_ids": {"$exists": True}}
        found = self._call(lambda: list(self._transcriptions.find(query, {"chunk_ids": 1})))
        ids = [chunk_id for document in found for chunk_id in document["chunk_ids"]]
        twin = {"_id": {"$in": ids, "$ne": chunk.id}, "index": chunk.index}
        return self._call(lambda: self._chunks.find_one(twin, {"_id": 1})) is not None

    def save(self, transcript: model.Transcript) -> bool:
        """Insert a transcript, durably; False when another one owns some of its chunks.

        Repeating it with the same transcript is harmless: it is recognised by its id.
        """
        document = documents.transcript(transcript, datetime.now(UTC))
        collection = self._transcriptions.with_options(
            write_concern=WriteConcern("majority", j=True)
        )
        try:
            self._call(lambda: collection.insert_one(document))
        except mongo_errors.DuplicateKeyError:
            return self._is_saved(transcript.id)
        return True

    def _is_saved(self, transcript_id: Any) -> bool:
        query = {"_id": transcript_id}
        return self._call(lambda: self._transcriptions.find_one(query, {"_id": 1})) is not None

    def mark(self, ids: Sequence[Any], token: str, *, is_verdict: bool = False) -> None:
        """Mark chunks as transcribed, once their transcript is safe; forget the rest.

        `is_verdict` when the mark itself is what says that they hold no speech.

        Raises:
            ClaimLost: some are neither ours any more nor marked by somebody else.
        """
        done: list[Document] = [{"$set": {"transcribed_at": "$$NOW"}}, {"$unset": "stt"}]
        held = self._held(ids, token)
        chunks = self._chunks if is_verdict else self._marks
        matched = self._call(lambda: chunks.update_many(held, done)).matched_count
        if matched < len(ids):
            unmarked = {"_id": {"$in": list(ids)}, "transcribed_at": None}
            left = self._call(lambda: self._chunks.count_documents(unmarked))
            if left:
                raise ClaimLost(f"{left} of {len(ids)} chunks are claimed by another")

    def transcripts(self) -> list[model.Transcript]:
        """All transcripts, oldest first."""
        cursor = self._transcriptions.find({}, sort=[("start", 1)])
        return [documents.read_transcript(d) for d in self._call(lambda: list(cursor.clone()))]

    # -- failures -----------------------------------------------------------------------------

    def blame(
        self,
        chunk_id: Any,
        token: str,
        failure: model.Failure,
        *,
        due_in: float,
        max_failures: int,
    ) -> None:
        """Record that a chunk's own audio failed; due again in `due_in` seconds, or parked."""
        counted = {"stt.failures": {"$add": [_number("$stt.failures"), 1]}}
        parked = {"$cond": [{"$gte": ["$stt.failures", max_failures]}, "$$NOW", "$$REMOVE"]}
        self._record(
            [chunk_id],
            token,
            failure,
            due_in,
            [{"$set": counted}, {"$set": {"stt.parked_at": parked}}],
        )

    def excuse(
        self, ids: Sequence[Any], token: str, failure: model.Failure, *, due_in: float = 0.0
    ) -> None:
        """Record a failure that is not the audio's: due in `due_in` seconds, but in a later run."""
        excuses = {"stt.excuses": {"$add": [_number("$stt.excuses"), 1]}}
        self._record(ids, token, failure, due_in, [{"$set": excuses}])

    def _record(
        self,
        ids: Sequence[Any],
        token: str,
        failure: model.Failure,
        due_in: float,
        more: list[Document],
    ) -> None:
        entry = {
            "kind": str(failure.kind),
            "message": {"$literal": failure.message},
            "server": {"$literal": failure.server},
            "at": "$$NOW",
        }
        known = {"$cond": [{"$isArray": "$stt.history"}, "$stt.history", []]}
        facts = {
            "stt.attempt": {"$literal": token},  # tells a repeated write from a lost claim
            "stt.error": entry,
            "stt.retry_at": {"$add": ["$$NOW", round(due_in * 1000)]},
            "stt.history": {"$slice": [{"$concatArrays": [known, [entry]]}, -HISTORY]},
        }
        update: list[Document] = [{"$set": facts}, *more, {"$unset": "stt.claim"}]
        held = self._held(ids, token)
        matched = self._call(lambda: self._chunks.update_many(held, update)).matched_count
        if matched < len(ids):
            recorded = {"_id": {"$in": list(ids)}, "stt.attempt": token}
            done = self._call(lambda: self._chunks.count_documents(recorded))
            if done < len(ids):
                raise ClaimLost(f"{len(ids) - done} of {len(ids)} chunks are claimed by another")

    def failed_kinds(self) -> list[model.FailedKind]:
        """What has failed and not been transcribed since, by kind, the most frequent first."""
        parked = {"$ne": [{"$type": "$stt.parked_at"}, "date"]}
        not_yet = {"$and": [parked, {"$gt": ["$stt.retry_at", "$$NOW"]}]}
        summary = {
            "_id": "$stt.error.kind",
            "chunks": {"$sum": 1},
            "parked": {"$sum": {"$cond": [parked, 0, 1]}},
            "waiting": {"$sum": {"$cond": [not_yet, 1, 0]}},
            "next_due": {"$min": {"$cond": [not_yet, "$stt.retry_at", None]}},
            "oldest": {"$min": "$stt.error.at"},
            "newest": {"$max": "$stt.error.at"},
        }
        stages: list[Document] = [{"$group": summary}, {"$sort": {"chunks": -1, "_id": 1}}]
        rows = self._call(lambda: self._aggregate_failed(stages), seconds=None)
        return [documents.failed_kind(row) for row in rows]

    def _aggregate_failed(self, stages: list[Document]) -> list[Document]:
        if self._is_indexed("stt_failed"):
            # Looking at the index alone: a filter would make MongoDB read the documents.
            return list(self._chunks.aggregate(stages, hint="stt_failed"))
        return list(self._chunks.aggregate([{"$match": _FAILED}, *stages]))

    def stories(self, text: str, limit: int = 100) -> list[model.ChunkStory]:
        """What happened to the chunk with this id, or to the failed chunks of this recording."""
        fields = {"data": 0}
        by_id = {"_id": {"$in": _possible_ids(text)}}
        by_recording = {**_FAILED, "original_id": {"$in": _possible_ids(text)}}
        found = self._call(lambda: list(self._chunks.find(by_id, fields)))
        if not found:
            order = [("start", 1), ("index", 1)]
            cursor = self._chunks.find(by_recording, fields, sort=order, limit=limit)
            found = self._call(lambda: list(cursor.clone()), seconds=None)
        return [documents.story(document) for document in found]

    def count_failed(self, kind: str | None = None, text: str | None = None) -> int:
        """How many chunks `retry_now` would make due."""
        return self._call(
            lambda: self._chunks.count_documents(_failed_query(kind, text)), seconds=None
        )

    def retry_now(self, kind: str | None = None, text: str | None = None) -> int:
        """Make failed chunks due, parked or not, all or of one kind, chunk or recording.

        They get their full number of tries again; what happened is kept. Returns how many.
        """
        due: list[Document] = [
            {"$set": {"stt.retry_at": "$$NOW", "stt.failures": 0, "stt.excuses": 0}},
            {"$unset": "stt.parked_at"},
        ]
        query = _failed_query(kind, text)
        return self._call(lambda: self._chunks.update_many(query, due), seconds=None).matched_count

    # -- ingest -------------------------------------------------------------------------------

    def insert_chunks(self, chunks: Iterable[model.NewChunk]) -> int:
        """Insert chunks of the embedded ingester; returns how many were not there before."""
        now = datetime.now(UTC)
        rows = [
            documents.new_chunk(c, ObjectId(c.id_bytes), ObjectId(c.original_id_bytes), now)
            for c in chunks
        ]
        return sum(self._insert_new(row) for row in rows)

    def _insert_new(self, row: Document) -> bool:
        row["data"] = Binary(row["data"])
        query, new = {"_id": row["_id"]}, {"$setOnInsert": row}
        result = self._call(lambda: self._chunks.update_one(query, new, upsert=True))
        return result.upserted_id is not None

    # -- how every operation is done ----------------------------------------------------------

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
                f"MongoDB at {self._address} is not available ({_short(error)}): "
                "is it running, and is MONGODB_URI right?"
            )
        if getattr(error, "code", None) in _UNAUTHORIZED_CODES:
            return ConfigurationError(
                f"MongoDB at {self._address} refuses ({_short(error)}): "
                "check the user and password in MONGODB_URI and the rights of that user"
            )
        return StoreError(f"MongoDB at {self._address} cannot do that ({_short(error)})")

    @property
    def _address(self) -> str:
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


def _owners(original_id: Any, ids: Sequence[Any]) -> Document:
    """The transcripts that own some of these chunks."""
    return {"original": original_id, "chunk_ids": {"$in": list(ids), "$exists": True}}


def _number(path: str) -> Document:
    """The value of a field in an update, 0 where there is none or nonsense."""
    return {"$cond": [{"$isNumber": path}, path, 0]}


def _possible_ids(text: str) -> list[Any]:
    """The values that an id typed by a person may stand for."""
    ids: list[Any] = [text]
    if ObjectId.is_valid(text):
        ids.append(ObjectId(text))
    if text.lstrip("-").isdecimal():
        ids.append(int(text))
    return ids


def _failed_query(kind: str | None, text: str | None) -> Document:
    query = dict(_FAILED)
    if kind is not None:
        query["stt.error.kind"] = kind
    if text is not None:
        ids = {"$in": _possible_ids(text)}
        query["$or"] = [{"_id": ids}, {"original_id": ids}]
    return query


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
        or error.has_error_label("RetryableWriteError")
        or isinstance(error, mongo_errors.WaitQueueTimeoutError)
    )


def _tell(state: tenacity.RetryCallState) -> None:
    """Once per operation, so that an outage is seen but does not flood the log."""
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("MongoDB is away (%s), trying again", _short(state.outcome.exception()))


def _short(error: BaseException | None) -> str:
    """What went wrong, without the driver's long text, which may quote documents."""
    if isinstance(error, SttError):
        return str(error)
    name = (getattr(error, "details", None) or {}).get("codeName")
    return str(name or type(error).__name__)


def _is_claimable(document: Document, now: datetime) -> bool:
    until = nested(document, "stt.claim.until")
    return not isinstance(until, datetime) or until <= now


def _is_due(document: Document, since: datetime) -> bool:
    retry_at = nested(document, "stt.retry_at")
    return not isinstance(retry_at, datetime) or retry_at <= since


def _failed_before(document: Document, since: datetime) -> bool:
    failed_at = nested(document, "stt.error.at")
    return not isinstance(failed_at, datetime) or failed_at <= since

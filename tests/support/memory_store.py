"""The store's interface on a database in memory, for unit tests and for the simulation.

Several stores on one `Database` are what several processes are to MongoDB. A `Network` decides what
happens to each command on its way; the default one is perfect.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar

from bson import ObjectId

from stt_lib.domain import models
from stt_lib.domain.backoff import delay
from stt_lib.domain.models import ALL, Selection, identity
from stt_lib.errors import ConfigurationError, StoreError, StoreUnavailable
from stt_lib.store import mapping
from stt_lib.store.group_commit import GroupCommit
from stt_lib.store.mapping import nested
from stt_lib.timing import REAL, Event, Timing
from tests.support.memory_database import Database, Document, DuplicateKey

T = TypeVar("T")
Item = TypeVar("Item")
Verdict = TypeVar("Verdict")

STOPPING_SECONDS: Final = 10.0
HISTORY: Final = 10
WATCH_SECONDS: Final = 0.5
"""Seconds. How often a change stream looks for changes."""

EXCESS: Final = timedelta(minutes=1)
"""A claim that ends later than its lease and this from now was made by a clock that was wrong."""


class Away(Exception):
    """MongoDB did not answer, or not before a failover: nobody knows what it did."""


class Network:
    """The way to MongoDB and back. Either end may raise `Away`."""

    def before(self, command: str) -> None:
        """The command has not reached MongoDB."""

    def after(self, command: str) -> None:
        """It has taken effect, but no majority has confirmed it and no answer was received."""

    def caller(self) -> Any:
        """Who asks for a write that others may carry out in a group."""

    def on_behalf_of(self, caller: Any) -> AbstractContextManager[object]:
        """Carry out what this caller has asked for."""
        return nullcontext()


class Connection:
    """How every command is done, and repeated while MongoDB is away."""

    def __init__(
        self,
        database: Database,
        network: Network,
        *,
        lease: float,
        mongo_wait: float,
        stop: Event,
        timing: Timing,
    ) -> None:
        self.database = database
        self.lease = timedelta(seconds=lease)
        self.timing = timing
        self.network = network
        self._mongo_wait = mongo_wait
        self._stop = stop

    def read(self, command: str, operation: Callable[[], T]) -> T:
        return self.retrying(lambda: self.once(command, operation))

    def write(self, command: str, operation: Callable[[], T], *, durable: bool = False) -> T:
        """`durable` waits for a majority; without it, a failover may take the write back."""
        return self.retrying(lambda: self.once(command, operation, durable=durable))

    def once(self, command: str, operation: Callable[[], T], *, durable: bool = False) -> T:
        self.network.before(command)
        term = self.database.term
        with self.database.guard:
            result = operation()
        self.network.after(command)
        if self.database.term != term:
            raise Away("the primary stepped down")
        if durable:
            self.database.confirm()
        return result

    def retrying(self, operation: Callable[[], T]) -> T:
        began = self.timing.monotonic()
        for attempt in itertools.count(1):
            try:
                return operation()
            except Away as error:
                patience = self._mongo_wait
                if self._stop.is_set():
                    patience = min(patience, STOPPING_SECONDS)
                if self.timing.monotonic() - began >= patience:
                    raise StoreUnavailable(f"MongoDB is not available ({error})") from None
            self._pause(delay(attempt, 0.2, 5.0, self.timing.random))
        raise AssertionError("never reached")

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            self.timing.sleep(min(seconds, 0.5))


class MemoryStore:
    """What `Store` is, without MongoDB."""

    def __init__(
        self,
        database: Database | None = None,
        *,
        lease: float = 60.0,
        mongo_wait: float = 60.0,
        stop: Event | None = None,
        timing: Timing = REAL,
        network: Network | None = None,
    ) -> None:
        self.database = database or Database(timing)
        self._connection = Connection(
            self.database,
            network or Network(),
            lease=lease,
            mongo_wait=mongo_wait,
            stop=stop or timing.event(),
            timing=timing,
        )
        self.address, self.name = "memory", "stt"
        self.indexes = Indexes(self._connection)
        self.claims = Claims(self._connection)
        self.chunks = Chunks(self._connection)
        self.failures = Failures(self._connection)
        self.transcripts = Transcripts(self._connection)
        self.seams = Seams(self._connection)
        self.dropped = DroppedText(self._connection)
        self.change_stream = ChangeStream(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""

    def now(self) -> datetime:
        return self._connection.read("hello", self.database.now)

    def with_retries(self, operation: Callable[[], T]) -> T:
        return self._connection.retrying(operation)


class _Group(Generic[Item, Verdict]):
    """Writes of one kind whose calls overlap are one command, as those of the real store are."""

    def __init__(
        self,
        connection: Connection,
        command: str,
        write_one: Callable[[Item], Verdict],
        *,
        durable: bool = False,
    ) -> None:
        self._connection = connection
        self._command = command
        self._write_one = write_one
        self._is_durable = durable
        self._group: GroupCommit[tuple[Any, Item], Verdict] = GroupCommit(
            self._write_all, connection.timing
        )

    def submit(self, item: Item) -> Verdict:
        return self._group.submit((self._connection.network.caller(), item))

    def _write_all(self, items: Sequence[tuple[Any, Item]]) -> Sequence[Verdict | Exception]:
        return self._connection.write(
            self._command, lambda: list(map(self._write_for, items)), durable=self._is_durable
        )

    def _write_for(self, item: tuple[Any, Item]) -> Verdict | Exception:
        with self._connection.network.on_behalf_of(item[0]):
            try:
                return self._write_one(item[1])
            except StoreError as error:
                return error


class _Part:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._db = connection.database

    def _read(self, command: str, operation: Callable[[], T]) -> T:
        return self._connection.read(command, operation)

    def _write(self, command: str, operation: Callable[[], T], *, durable: bool = False) -> T:
        return self._connection.write(command, operation, durable=durable)


class Indexes(_Part):
    """The two unique indexes; others make things fast, which memory is."""

    def ensure(self) -> None:
        self.ensure_unique()

    def ensure_unique(self) -> None:
        missing = self._read("list indexes", self._db.missing_indexes)
        for name in missing:
            if not self._write("create index", partial(self._db.create_index, name)):
                raise ConfigurationError(f"index {name} cannot be created: there are duplicates")

    def missing(self) -> list[str]:
        return self._read("list indexes", self._db.missing_indexes)


class Claims(_Part):
    """Expiring leases on the chunks of a sequence."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._acquiring = _Group(connection, "acquire", self._insert, durable=True)
        self._releasing = _Group(connection, "release", self._db.claims.remove)

    def acquire(self, sequence: models.ChunkSequence, token: str, worker: str) -> bool:
        claim = {
            "_id": token,
            "chunk_ids": [chunk.id for chunk in sequence.chunks],
            "original": sequence.original_id,
            "start": sequence.start,
            "end": sequence.newest.start,
            "worker": worker,
            "lease_ms": round(self._connection.lease.total_seconds() * 1000),
        }
        if self._acquiring.submit(claim):
            return True
        return self._read("find claim", lambda: self._db.claims.get(token) is not None)

    def _insert(self, claim: Document) -> bool:
        now = self._db.now()
        timed = {**claim, "at": now, "until": now + self._connection.lease}
        return self._db.claims.is_inserted(timed)

    def renew(self, tokens: Collection[str]) -> frozenset[str]:
        return self._write("renew", lambda: self._renew(tokens)) if tokens else frozenset()

    def _renew(self, tokens: Collection[str]) -> frozenset[str]:
        until = self._db.now() + self._connection.lease
        for claim in self._db.claims.some(sorted(tokens)):
            self._db.claims.put({**claim, "until": until})
        return frozenset(token for token in tokens if self._db.claims.get(token) is None)

    def release(self, token: str) -> None:
        self._releasing.submit(token)

    def delete_expired(self) -> int:
        return self._write("delete expired claims", self._delete_expired)

    def _delete_expired(self) -> int:
        expired = [claim for claim in self._db.claims if self._is_expired(claim)]
        for claim in expired:
            self._db.claims.remove(claim["_id"])
        return len(expired)

    def _is_expired(self, claim: Document) -> bool:
        now, lease = self._db.now(), timedelta(milliseconds=claim["lease_ms"])
        return bool(claim["until"] <= now or claim["until"] > now + lease + EXCESS)

    def held(self, chunk_ids: Iterable[Any]) -> frozenset[Hashable]:
        wanted = set(map(identity, chunk_ids))
        return self._read("find claims", lambda: frozenset(wanted & self._claimed()))

    def _claimed(self) -> set[Hashable]:
        return {identity(i) for claim in self._db.claims for i in claim["chunk_ids"]}

    def is_behind(self, token: str, chunk_id: Any) -> bool:
        found = self._read("find claims", lambda: list(self._db.claims))
        live = [claim for claim in found if not self._is_expired(claim)]
        wanted = identity(chunk_id)
        held = [c for c in live if c["_id"] == token or wanted in map(identity, c["chunk_ids"])]
        return bool(held) and min(held, key=lambda c: (c["at"], c["_id"]))["_id"] != token

    def live(self) -> dict[str, datetime]:
        return self._read("find claims", lambda: {c["_id"]: c["until"] for c in self._db.claims})

    def holders(self) -> list[models.Holder]:
        by_worker: dict[str, list[Document]] = defaultdict(list)
        for claim in self._read("find claims", lambda: list(self._db.claims)):
            by_worker[claim["worker"]].append(claim)
        holders = [_holder(worker, claims) for worker, claims in by_worker.items()]
        return sorted(holders, key=lambda holder: (-holder.chunks, holder.worker))


def _holder(worker: str, claims: list[Document]) -> models.Holder:
    return models.Holder(
        worker=worker,
        claims=len(claims),
        chunks=sum(len(claim["chunk_ids"]) for claim in claims),
        since=min(claim["at"] for claim in claims),
        until=max(claim["until"] for claim in claims),
    )


class Chunks(_Part):
    """The backlog."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._backed = _Group(connection, "mark", self._mark)
        self._unbacked = _Group(connection, "mark", self._mark, durable=True)

    def count_pending(self, selection: Selection = ALL, *, only_failed: bool = False) -> int:
        return self._read("count", lambda: len(self._waiting(selection, only_failed=only_failed)))

    def _waiting(self, selection: Selection, *, only_failed: bool) -> list[Document]:
        is_wanted = _has_failed if only_failed else _is_workable
        found = [c for c in self._db.chunks if is_wanted(c) and _is_selected(c, selection)]
        return sorted(found, key=_work_order, reverse=True)

    def pending(
        self,
        *,
        run_started: datetime,
        selection: Selection = ALL,
        only_failed: bool = False,
        excluding: Container[Hashable] = frozenset(),
    ) -> Iterator[models.ChunkRef]:
        found = self._connection.once(
            "pending", lambda: self._waiting(selection, only_failed=only_failed)
        )
        for document in found:
            is_wanted = _is_for_run(document, run_started, only_failed=only_failed)
            if is_wanted and identity(document["_id"]) not in excluding:
                yield mapping.chunk_ref(document)

    def first_and_last_pending(self, limit: int) -> tuple[list[models.ChunkRef], ...]:
        found = self._read("pending", lambda: self._waiting(ALL, only_failed=False))
        refs = list(map(mapping.chunk_ref, found))
        return refs[:limit], refs[max(0, len(refs) - limit) :]

    def load(
        self, sequence: models.ChunkSequence, *, run_started: datetime, only_failed: bool = False
    ) -> models.Loaded:
        return self._read("load", lambda: self._load(sequence, run_started, only_failed))

    def _load(
        self, sequence: models.ChunkSequence, run_started: datetime, only_failed: bool
    ) -> models.Loaded:
        is_wanted = _has_failed if only_failed else _is_workable
        ids = [chunk.id for chunk in sequence.chunks]
        documents = [
            document
            for document in self._db.chunks.some(ids)
            if is_wanted(document) and _is_for_run(document, run_started, only_failed=only_failed)
        ]
        chunks = tuple(map(mapping.chunk, documents))
        around: tuple[models.Chunk, ...] = ()
        if chunks and sequence.problem is None:
            around = self._around(sequence.original_id, chunks)
        kept = [chunk.id for chunk in chunks]
        owned = _owned(self._db.transcripts.confirmed(), sequence.original_id, kept)
        return models.Loaded(chunks, owned, around)

    def audio(self, ids: Sequence[Any]) -> tuple[models.Chunk, ...]:
        return self._read("audio", lambda: tuple(map(mapping.chunk, self._db.chunks.some(ids))))

    def neighbours(
        self, original_id: Any, chunks: Sequence[models.Chunk]
    ) -> tuple[models.Chunk, ...]:
        return self._read("neighbours", lambda: self._around(original_id, chunks))

    def _around(self, original_id: Any, chunks: Sequence[models.Chunk]) -> tuple[models.Chunk, ...]:
        """The chunks with speech before the first one and behind the last."""
        beside = min(chunk.index for chunk in chunks) - 1, max(chunk.index for chunk in chunks) + 1
        return tuple(
            mapping.chunk(document)
            for document in self._db.chunks
            if identity(document.get("original_id")) == identity(original_id)
            and document.get("index") in beside
            and _has_speech(document) is True
        )

    def existing(self, ids: Sequence[Any]) -> set[Hashable]:
        found = self._read("existing", lambda: self._db.chunks.some(ids))
        return {identity(document["_id"]) for document in found}

    def mark(self, ids: Sequence[Any], *, is_backed: bool) -> None:
        (self._backed if is_backed else self._unbacked).submit(ids)

    def _mark(self, ids: Sequence[Any]) -> None:
        now = self._db.now()
        for document in self._db.chunks.some(ids):
            if document.get("transcribed_at") is None:
                self._db.chunks.put({**_without_stt(document), "transcribed_at": now})

    def has_transcribed_twin(self, original_id: Any, chunk: models.Chunk) -> bool:
        return self._read("find twin", lambda: self._has_twin(original_id, chunk))

    def _has_twin(self, original_id: Any, chunk: models.Chunk) -> bool:
        twins = [
            document["_id"]
            for document in self._db.chunks
            if identity(document.get("original_id")) == identity(original_id)
            and document.get("index") == chunk.index
            and identity(document["_id"]) != identity(chunk.id)
        ]
        return bool(_owned(self._db.transcripts, original_id, twins))

    def prioritize(self, recording: str, level: int) -> int:
        return self._write("prioritize", lambda: self._prioritize(recording, level))

    def _prioritize(self, recording: str, level: int) -> int:
        found = [
            c for c in self._db.chunks if _is_pending(c) and str(c.get("original_id")) == recording
        ]
        for document in found:
            rest = {name: value for name, value in document.items() if name != "priority"}
            self._db.chunks.put({**rest, "priority": level} if level else rest)
        return len(found)

    def insert(self, new_chunks: Iterable[models.NewChunk]) -> int:
        return sum(map(self._insert_new, new_chunks))

    def _insert_new(self, new: models.NewChunk) -> bool:
        document = mapping.new_chunk(new, self._db.now())
        try:
            self._write("insert chunk", lambda: self._db.chunks.insert(document), durable=True)
        except DuplicateKey:
            return False
        return True


class Failures(_Part):
    """What went wrong with which chunk, and when it is tried again."""

    def record(
        self,
        ids: Sequence[Any],
        failure: models.Failure,
        *,
        attempt: str,
        audio_at_fault: bool,
        due_in: float,
        max_failures: int,
    ) -> None:
        def record() -> None:
            for document in self._db.chunks.some(ids):
                known = _stt(document)
                if _is_pending(document) and known.get("attempt") != attempt:
                    failed = self._failed(known, failure, due_in)
                    counted = self._counted(known, audio_at_fault, max_failures)
                    new = {**known, **failed, **counted, "attempt": attempt}
                    self._db.chunks.put({**document, "stt": new})

        self._write("record failure", record, durable=True)

    def _failed(self, known: Document, failure: models.Failure, due_in: float) -> Document:
        now = self._db.now()
        entry = {
            "kind": str(failure.kind),
            "message": failure.message,
            "server": failure.server,
            "at": now,
        }
        past = known.get("history") if isinstance(known.get("history"), list) else []
        return {
            "error": entry,
            "retry_at": now + timedelta(seconds=due_in),
            "history": [*(past or []), entry][-HISTORY:],
        }

    def _counted(self, known: Document, audio_at_fault: bool, max_failures: int) -> Document:
        if not audio_at_fault:
            return {"excuses": _number(known.get("excuses")) + 1}
        failures = _number(known.get("failures")) + 1
        parked = {"parked_at": self._db.now()} if failures >= max_failures else {}
        return {"failures": failures, **parked}

    def kinds(self) -> list[models.FailedKind]:
        failed = self._read("failures", lambda: list(filter(_has_failed, self._db.chunks)))
        by_kind: dict[str, list[Document]] = defaultdict(list)
        for document in failed:
            by_kind[str(nested(document, "stt.error.kind"))].append(document)
        now = self._db.now()
        kinds = [_failed_kind(kind, documents, now) for kind, documents in by_kind.items()]
        return sorted(kinds, key=lambda found: (-found.chunks, found.kind))

    def stories(self, text: str, limit: int = 100) -> list[models.ChunkStory]:
        def find() -> list[Document]:
            by_id = [c for c in self._db.chunks if str(c["_id"]) == text]
            return by_id or self._matching(None, text)[:limit]

        found = self._read("failures", find)
        return [mapping.story(document, self._claim_on(document["_id"])) for document in found]

    def _claim_on(self, chunk_id: Any) -> Document | None:
        holding = (c for c in self._db.claims if chunk_id in c["chunk_ids"])
        return next(holding, None)

    def count(self, kind: str | None = None, text: str | None = None) -> int:
        return self._read("failures", lambda: len(self._matching(kind, text)))

    def retry_now(self, kind: str | None = None, text: str | None = None) -> int:
        def retry() -> int:
            found = self._matching(kind, text)
            for document in found:
                stt = {**_stt(document), "retry_at": self._db.now(), "failures": 0, "excuses": 0}
                stt.pop("parked_at", None)
                self._db.chunks.put({**document, "stt": stt})
            return len(found)

        return self._write("retry now", retry, durable=True)

    def _matching(self, kind: str | None, text: str | None) -> list[Document]:
        return [
            c
            for c in self._db.chunks
            if _has_failed(c)
            and (kind is None or nested(c, "stt.error.kind") == kind)
            and (text is None or text in (str(c["_id"]), str(c.get("original_id"))))
        ]


def _failed_kind(kind: str, documents: list[Document], now: datetime) -> models.FailedKind:
    waiting = [
        retry_at
        for document in documents
        if not _is_parked(document)
        and isinstance(retry_at := nested(document, "stt.retry_at"), datetime)
        and retry_at > now
    ]
    times = [nested(document, "stt.error.at") for document in documents]
    return models.FailedKind(
        kind=kind,
        chunks=len(documents),
        parked=sum(map(_is_parked, documents)),
        waiting=len(waiting),
        next_due=min(waiting, default=None),
        oldest=min(times),
        newest=max(times),
    )


class Transcripts(_Part):
    """The results."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._saving = _Group(connection, "save", self._db.transcripts.is_inserted, durable=True)

    def new_id(self) -> ObjectId:
        """An id that no other transcript has."""
        bits = self._connection.timing.random.getrandbits(96)
        return ObjectId(bits.to_bytes(12, "big"))

    def save(self, transcript: models.Transcript) -> bool:
        document = mapping.transcript(transcript, self._connection.timing.now())
        if self._saving.submit(document):
            return True
        return self._read(
            "find transcript", lambda: self._db.transcripts.get(transcript.id) is not None
        )

    def owned(self, original_id: Any, ids: Sequence[Any]) -> set[Hashable]:
        confirmed = self._db.transcripts.confirmed
        return self._read("find owners", lambda: set(_owned(confirmed(), original_id, ids)))

    def of_chunk(self, original_id: Any, chunk_id: Any) -> models.Transcript | None:
        found = self._read("find transcript", lambda: _owner(self._db, original_id, chunk_id))
        return None if found is None else mapping.read_transcript(found)

    def replace(self, transcript: models.Transcript) -> bool:
        last = models.Revision(transcript.id, transcript.revision - 1)
        made = mapping.transcript(transcript, self._connection.timing.now())
        new = {**made, "write_id": self.new_id()}
        self._write("keep history", lambda: self._keep_history(last), durable=True)
        return self._write("replace", lambda: self._replace(last, new), durable=True)

    def _keep_history(self, last: models.Revision) -> None:
        old = self._revision(last)
        if old is not None:
            name = _in_history(last.transcript_id, last.number)
            kept = {key: value for key, value in old.items() if key != "stt"}
            self._db.history.put({**kept, "_id": name, "replaced_at": self._db.now()})

    def _replace(self, last: models.Revision, new: Document) -> bool:
        old = self._revision(last)
        if old is not None and old["chunk_ids"] == new["chunk_ids"]:
            self._db.transcripts.put(new)
            return True
        written = [
            self._db.transcripts.get(new["_id"]),
            self._db.history.get(_in_history(new["_id"], new["revision"])),
        ]
        return any(found and found.get("write_id") == new["write_id"] for found in written)

    def _revision(self, revision: models.Revision) -> Document | None:
        found = self._db.transcripts.get(revision.transcript_id)
        return found if found and (found.get("revision") or 1) == revision.number else None

    def is_current(self, revision: models.Revision) -> bool:
        return self._read("find transcript", lambda: self._revision(revision) is not None)

    def note_nothing_heard(self, revision: models.Revision, model: str | None) -> None:
        def note() -> None:
            found = self._revision(revision)
            if found is not None and model is not None:
                note = {"model": model, "at": self._db.now()}
                self._db.transcripts.put({**found, "stt": {"heard_nothing": note}})

        self._write("note nothing heard", note)

    def count_by_origin(self, selection: Selection) -> list[tuple[models.Origin, int]]:
        counts: dict[models.Origin, int] = defaultdict(int)
        for old in self._connection.retrying(lambda: list(self.to_retranscribe(selection))):
            counts[old.origin] += 1
        return list(counts.items())

    def to_retranscribe(
        self, selection: Selection, *, before: datetime | None = None
    ) -> Iterator[models.OldTranscript]:
        def find() -> list[Document]:
            found = [t for t in self._db.transcripts if _is_in(t, "original", selection)]
            upto = [t for t in found if before is None or t["start"] <= before]
            return sorted(upto, key=lambda document: document["start"], reverse=True)

        for document in self._connection.once("old transcripts", find):
            yield mapping.old_transcript(document)

    def all(self) -> list[models.Transcript]:
        found = self._read("transcripts", lambda: list(self._db.transcripts))
        return sorted(map(mapping.read_transcript, found), key=lambda record: record.start)

    def has_any(self, recording: str) -> bool:
        return any(str(record.original_id) == recording for record in self.all())


def _in_history(transcript_id: ObjectId, revision: int) -> Document:
    return {"transcript": transcript_id, "revision": revision}


class Seams(_Part):
    """Where two transcripts meet: one decision for both, the first one."""

    def decide(
        self, original_id: Any, ids: tuple[Any, Any], seam: models.Seam, at: datetime
    ) -> models.Seam:
        heard = [{"word": word, "at": s} for word, s in zip(seam.words, seam.seconds, strict=True)]
        ours = {"heard": heard, "cut": seam.cut, "moment": seam.moment}
        document = {"_id": _pair(ids), "original": original_id, "at": at, **ours}
        try:
            self._write("decide seam", lambda: self._insert(document), durable=True)
        except DuplicateKey:
            return self.find(original_id, ids) or seam
        return seam

    def _insert(self, document: Document) -> None:
        self._db.seams.insert({**document, "decided_at": self._db.now()})

    def find(self, _original_id: Any, ids: tuple[Any, Any]) -> models.Seam | None:
        found = self._read("find seam", lambda: self._db.seams.get(_pair(ids)))
        if found is None:
            return None
        words = tuple(heard["word"] for heard in found["heard"])
        seconds = tuple(heard["at"] for heard in found["heard"])
        return models.Seam(words, seconds, found["cut"], found["moment"])


def _pair(ids: tuple[Any, Any]) -> Document:
    return {"before": ids[0], "after": ids[1]}


class DroppedText(_Part):
    """What the filter dropped from sequences without a transcript."""

    def save(self, transcript: models.Transcript) -> None:
        document = mapping.transcript(transcript, self._connection.timing.now())
        aside = {"_id": transcript.chunk_ids[0], "transcript": document}
        self._write("save dropped text", lambda: self._db.dropped.put(aside), durable=True)

    def all(self) -> list[models.Transcript]:
        found = self._read("dropped text", lambda: list(self._db.dropped))
        return [mapping.read_transcript(document["transcript"]) for document in found]


class ChangeStream(_Part):
    """Reports new chunks, if the database has change streams; a failover breaks it."""

    def events(self) -> Iterator[None]:
        term, seen = self._db.term, len(self._db.chunks)
        while self._db.has_change_streams:
            self._connection.timing.sleep(WATCH_SECONDS)
            if self._db.term != term:
                raise StoreUnavailable("the change stream broke")
            if len(self._db.chunks) > seen:
                seen = len(self._db.chunks)
                yield


def _has_speech(document: Document) -> Any:
    return nested(document, "vad.has_speech")


def _is_pending(document: Document) -> bool:
    return _has_speech(document) is True and document.get("transcribed_at") is None


def _is_parked(document: Document) -> bool:
    return nested(document, "stt.parked_at") is not None


def _is_workable(document: Document) -> bool:
    return _is_pending(document) and not _is_parked(document)


def _has_failed(document: Document) -> bool:
    return _is_pending(document) and nested(document, "stt.error.at") is not None


def _is_for_run(document: Document, run_started: datetime, *, only_failed: bool) -> bool:
    """Due when the run started; or with `only_failed`, not failed since then."""
    moment = nested(document, "stt.error.at" if only_failed else "stt.retry_at")
    return not isinstance(moment, datetime) or moment <= run_started


def _is_selected(chunk: Document, selection: Selection) -> bool:
    return _is_in(chunk, "original_id", selection)


def _is_in(document: Document, original: str, selection: Selection) -> bool:
    start = document.get("start")
    return (
        (selection.recording is None or str(document.get(original)) == selection.recording)
        and (selection.since is None or (isinstance(start, datetime) and start >= selection.since))
        and (selection.until is None or (isinstance(start, datetime) and start < selection.until))
    )


_ORDER: Final = (int | float, str, dict, list, bytes, ObjectId, bool, datetime)
"""BSON's order of types; nothing comes before all of them."""


def _work_order(document: Document) -> list[tuple[int, Any]]:
    return [_sortable(document.get(name)) for name in ("priority", "start", "index")]


def _sortable(value: Any) -> tuple[int, Any]:
    if value is None:
        return -1, 0
    if isinstance(value, bool):
        return _ORDER.index(bool), value
    rank = next((at for at, kind in enumerate(_ORDER) if isinstance(value, kind)), len(_ORDER))
    return rank, repr(value) if isinstance(value, dict | list) or rank == len(_ORDER) else value


def _owned(
    transcripts: Iterable[Document], original_id: Any, ids: Sequence[Any]
) -> frozenset[Hashable]:
    wanted = set(map(identity, ids))
    theirs = {
        identity(chunk_id)
        for transcript in transcripts
        if identity(transcript.get("original")) == identity(original_id)
        for chunk_id in transcript.get("chunk_ids") or ()
    }
    return frozenset(wanted & theirs)


def _owner(database: Database, original_id: Any, chunk_id: Any) -> Document | None:
    for transcript in database.transcripts:
        is_same = identity(transcript.get("original")) == identity(original_id)
        ids = map(identity, transcript.get("chunk_ids") or ())
        if is_same and identity(chunk_id) in ids:
            return transcript
    return None


def _stt(document: Document) -> Document:
    """A copy of what we keep on a chunk."""
    known = document.get("stt")
    return dict(known) if isinstance(known, dict) else {}


def _without_stt(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "stt"}


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0

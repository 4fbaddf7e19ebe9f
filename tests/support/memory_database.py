"""MongoDB in memory, as far as a run can tell the difference.

Documents pass through BSON on their way in, so that dates lose their microseconds and what MongoDB
could not store is refused. Unique indexes are enforced. A journal knows which writes a majority
has confirmed: a failover takes back those that it has not.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from stt_lib.domain.models import identity
from stt_lib.errors import StoreError
from stt_lib.timing import REAL, Timing

Document = dict[str, Any]
Keys = Callable[[Document], set[Hashable]]
Watcher = Callable[["Collection", Document | None, Document | None], None]
"""Told of each change: the collection, the document before it and after it."""

_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)

OWNER_INDEX, CLAIM_INDEX = "stt_owner", "stt_claimed"


class DuplicateKey(Exception):
    """A unique index refused a document."""


class Collection:
    """Documents by the identity of their `_id`, in the order of insertion."""

    def __init__(self, database: "Database", name: str) -> None:
        self._database = database
        self.name = name
        self._documents: dict[Hashable, Document] = {}
        self.unique: dict[str, Keys] = {}

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._documents.values()))

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, document_id: Any) -> Document | None:
        return self._documents.get(identity(document_id))

    def some(self, ids: Any) -> list[Document]:
        """Those of these documents that exist."""
        return [document for i in ids if (document := self.get(i)) is not None]

    def confirmed(self) -> list[Document]:
        """The documents as a majority has them."""
        unconfirmed = reversed(self._database.journal)
        before = {key: document for place, key, document in unconfirmed if place is self}
        return [d for d in {**self._documents, **before}.values() if d is not None]

    def insert(self, document: Document) -> None:
        if identity(document["_id"]) in self._documents:
            raise DuplicateKey("_id_")
        self.put(document)

    def is_inserted(self, document: Document) -> bool:
        """Insert a document; False when a unique index refuses it."""
        try:
            self.insert(document)
        except DuplicateKey:
            return False
        return True

    def put(self, document: Document) -> None:
        """Insert a document, or replace the one with the same `_id`."""
        stored = _stored(document)
        self._check(stored)
        self._change(identity(stored["_id"]), stored)

    def remove(self, document_id: Any) -> None:
        self._change(identity(document_id), None)

    def _change(self, key: Hashable, document: Document | None) -> None:
        before = self._documents.get(key)
        self._database.journal.append((self, key, before))
        self._set(key, document)

    def _set(self, key: Hashable, document: Document | None) -> None:
        before = self._documents.pop(key, None) if document is None else self._documents.get(key)
        if document is not None:
            self._documents[key] = document
        self._database.watcher(self, before, document)

    def _check(self, new: Document) -> None:
        own = identity(new["_id"])
        for name, keys in self.unique.items():
            wanted = keys(new)
            for key, other in self._documents.items():
                if key != own and wanted & keys(other):
                    raise DuplicateKey(name)

    def has_duplicates(self, keys: Keys) -> bool:
        every = [key for document in self for key in keys(document)]
        return len(every) > len(set(every))


class Database:
    """The collections of one database, its clock and its journal."""

    def __init__(self, timing: Timing = REAL, *, is_indexed: bool = True) -> None:
        """`is_indexed` starts with the unique indexes in place."""
        self._timing = timing
        self.clock_error = timedelta()
        """How far the clock of the present primary is ahead."""
        self.term = 1
        self.has_change_streams = False
        self.guard: AbstractContextManager[object] = nullcontext()
        """A lock for tests with real threads; in a simulation only one runs at a time."""
        self.watcher: Watcher = _ignore
        self.is_rolling_back = False
        self.journal: list[tuple[Collection, Hashable, Document | None]] = []
        """What each write that no majority has confirmed has replaced, oldest first."""
        self.chunks = Collection(self, "chunks")
        self.transcripts = Collection(self, "transcripts")
        self.history = Collection(self, "history")
        self.claims = Collection(self, "claims")
        self.dropped = Collection(self, "dropped")
        self.seams = Collection(self, "seams")
        if is_indexed:
            for name in self.missing_indexes():
                self.create_index(name)

    def now(self) -> datetime:
        """`$$NOW`, in whole milliseconds."""
        moment = self._timing.now() + self.clock_error
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def confirm(self) -> None:
        """A majority has everything that was written until now."""
        self.journal.clear()

    def fail_over(self, lost_writes: int, clock_error: timedelta = timedelta()) -> None:
        """A new primary takes over, without the last unconfirmed writes; its clock is its own."""
        self.is_rolling_back = True
        for _ in range(min(lost_writes, len(self.journal))):
            place, key, before = self.journal.pop()
            place._set(key, before)
        self.is_rolling_back = False
        self.confirm()
        self.term += 1
        self.clock_error = clock_error

    # -- unique indexes -----------------------------------------------------------------------

    def missing_indexes(self) -> list[str]:
        return [name for name, (place, _) in self._unique().items() if name not in place.unique]

    def create_index(self, name: str) -> bool:
        """False when there are duplicates."""
        collection, keys = self._unique()[name]
        if collection.has_duplicates(keys):
            return False
        collection.unique[name] = keys
        return True

    def drop_index(self, name: str) -> None:
        self._unique()[name][0].unique.pop(name, None)

    def _unique(self) -> dict[str, tuple[Collection, Keys]]:
        return {
            OWNER_INDEX: (self.transcripts, _owner_keys),
            CLAIM_INDEX: (self.claims, _claim_keys),
        }


def _ignore(_place: Collection, _before: Document | None, _after: Document | None) -> None:
    pass


def _owner_keys(document: Document) -> set[Hashable]:
    original = identity(document.get("original"))
    return {(original, identity(i)) for i in document.get("chunk_ids") or ()}


def _claim_keys(document: Document) -> set[Hashable]:
    return set(map(identity, document["chunk_ids"]))


def _stored(document: Document) -> Document:
    try:
        return bson.decode(bson.encode(document), _AWARE)
    except (BSONError, OverflowError) as error:
        raise StoreError(f"MongoDB in memory cannot do that ({type(error).__name__})") from None

"""What the queries have in common: the states of a chunk, and the indexes."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pymongo import IndexModel
from pymongo import errors as mongo_errors
from pymongo.collection import Collection

from stt_lib.errors import ConfigurationError, StoreError
from stt_lib.store.database import Connection, Document, short
from stt_lib.telemetry.events import Event

log = logging.getLogger("stt")

PENDING: Final[Document] = {"vad.has_speech": True, "transcribed_at": None}
WORKABLE: Final[Document] = {**PENDING, "stt.parked_at": None}
FAILED: Final[Document] = {**PENDING, "stt.error.at": {"$exists": True}}
WITHOUT_EMPTY_STT: Final[Document] = {
    "$set": {"stt": {"$cond": [{"$eq": ["$stt", {}]}, "$$REMOVE", "$stt"]}}
}
NEWEST_FIRST: Final = [("priority", -1), ("start", -1), ("index", -1)]
_ALSO_PLANNED_WITH: Final = [
    "original_id",
    "_id",
    "vad.prob",
    "stt.retry_at",
    "stt.claim.until",
    "stt.error.at",
]
PLAN: Final = dict.fromkeys([*dict(NEWEST_FIRST), *_ALSO_PLANNED_WITH], 1)
_PLAN_KEYS: Final = [*NEWEST_FIRST, *((name, 1) for name in _ALSO_PLANNED_WITH)]
_ALSO_LISTED_WITH: Final = ["stt.error.kind", "stt.failures", "stt.parked_at"]


_LIMITING: Final = frozenset({"partialFilterExpression", "sparse", "hidden", "collation"})
"""With one of these an index does not find everything."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index that we make when it is missing."""

    name: str
    collection: str
    keys: list[tuple[str, int]]
    options: Document
    purpose: str
    needed_keys: int | None = None
    """An index of somebody else's with so many of these keys in front will do as well."""

    def is_served_by(self, details: Document) -> bool:
        """Whether this index exists under another name."""
        if self.needed_keys is None or not details.keys().isdisjoint(_LIMITING):
            return False
        return list(details["key"])[: self.needed_keys] == self.keys[: self.needed_keys]


INDEXES: Final = (
    # Holds every field that planning reads, so that planning never touches the audio.
    Index(
        "stt_pending",
        "audio_chunks",
        _PLAN_KEYS,
        {"partialFilterExpression": WORKABLE},
        "finding pending chunks reads the whole collection",
    ),
    Index(
        "stt_failed",
        "audio_chunks",
        [*_PLAN_KEYS, *((name, 1) for name in _ALSO_LISTED_WITH)],
        {"partialFilterExpression": FAILED},
        "finding failed chunks reads the whole collection",
    ),
    # Holds the few chunks that keep what the filter dropped.
    Index(
        "stt_dropped",
        "audio_chunks",
        [("original_id", 1), ("start", 1)],
        {"partialFilterExpression": {"stt.dropped": {"$exists": True}}},
        "explaining a recording reads the whole collection",
    ),
    # For counting by time: 19 MB for a million chunks of 20 kB, and nothing is read but them.
    Index(
        "stt_arrived",
        "audio_chunks",
        [("vad.has_speech", 1), ("ingested_at", 1)],
        {"partialFilterExpression": {"vad.has_speech": True}},
        "status reads the whole collection",
    ),
    Index(
        "stt_done",
        "audio_chunks",
        [("vad.has_speech", 1), ("transcribed_at", 1)],
        {"partialFilterExpression": {"vad.has_speech": True}},
        "status reads the whole collection",
    ),
    Index(
        "stt_place",
        "audio_chunks",
        [("original_id", 1), ("index", 1), ("vad.has_speech", 1)],
        {},
        "a sequence that is cut from its neighbours is transcribed without context",
        needed_keys=2,
    ),
    Index(
        "stt_owner",
        "transcriptions",
        [("original", 1), ("chunk_ids", 1)],
        {"unique": True, "partialFilterExpression": {"chunk_ids": {"$exists": True}}},
        "two workers on the same chunks could save two transcripts",
    ),
    # For readers; the ones above leave out what older programs saved.
    Index(
        "stt_by_start",
        "transcriptions",
        [("start", 1)],
        {},
        "finding transcripts by their time reads the whole collection",
        needed_keys=1,
    ),
    Index(
        "stt_by_recording",
        "transcriptions",
        [("original", 1), ("start", 1)],
        {},
        "finding the transcripts of a recording reads the whole collection",
        needed_keys=2,
    ),
)


class Schema(Connection):
    """Making the indexes, and knowing which there are; what a claim looks like."""

    def ensure_indexes(self) -> None:
        """Make the indexes that are missing; without the right to, warn and do without."""
        missing = [index for index in INDEXES if not self._is_indexed(index.name)]
        for name in dict.fromkeys(index.collection for index in missing):
            wanted = [index for index in missing if index.collection == name]
            if self._create(name, wanted):
                self._indexed.update(index.name for index in wanted)

    def _count_keys(self, query: Document, index: str) -> int:
        """How many chunks: this command counts an index's keys without looking at each."""
        counting = {"count": "audio_chunks", "query": query, "hint": index}
        return int(self._db.command(counting)["n"])

    def _is_indexed(self, name: str) -> bool:
        return name in self._indexed

    @functools.cached_property
    def _indexed(self) -> set[str]:
        """Names of our indexes that exist."""
        try:
            return {
                name
                for collection in {index.collection for index in INDEXES}
                for name in _known(self._call(self._db[collection].index_information))
            }
        except ConfigurationError:
            return set()

    def _create(self, name: str, indexes: list[Index]) -> bool:
        """Make indexes of one collection, in one command: it is read only once."""
        collection = self._db[name]
        models = [IndexModel(index.keys, name=index.name, **index.options) for index in indexes]
        try:
            if not self._is_empty(collection):
                names = ", ".join(index.name for index in indexes)
                log.info("Building indexes on %s, once: %s", name, names, extra=Event.INDEX.of())
            # On a large collection this takes minutes, so there is no limit of time.
            self._call(lambda: collection.create_indexes(models), seconds=None)
        except (ConfigurationError, StoreError, mongo_errors.DuplicateKeyError) as error:
            for index in indexes:
                log.warning(
                    "Index %s on %s could not be made, so %s: %s",
                    index.name,
                    name,
                    index.purpose,
                    short(error),
                    extra=Event.INDEX.of(),
                )
            return False
        return True

    def _claim_of(self, token: str) -> Document:
        until = {"$add": ["$$NOW", self._lease_ms]}
        return {"by": {"$literal": token}, "at": "$$NOW", "until": until}

    def _is_empty(self, collection: Collection[Document]) -> bool:
        return self._call(lambda: collection.find_one({}, {"_id": 1})) is None


def _known(information: Mapping[str, Document]) -> set[str]:
    """The names of indexes of a collection, and of those of ours that they stand for."""
    served = {
        index.name
        for index in INDEXES
        if any(index.is_served_by(details) for details in information.values())
    }
    return served | set(information)

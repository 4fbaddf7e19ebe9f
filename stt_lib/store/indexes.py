"""The indexes: which ones we need, why, and how they are created."""

import json
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pymongo import IndexModel

from stt_lib.errors import ConfigurationError, StoreError
from stt_lib.store.database import Database, Document, short
from stt_lib.telemetry.events import Event

log = logging.getLogger("stt")

# -- the states of a chunk --------------------------------------------------------------------

PENDING: Final[Document] = {"vad.has_speech": True, "transcribed_at": None}
WORKABLE: Final[Document] = {**PENDING, "stt.parked_at": None}
FAILED: Final[Document] = {**PENDING, "stt.error.at": {"$exists": True}}
IS_PARKED: Final[Document] = {"$eq": [{"$type": "$stt.parked_at"}, "date"]}
DISCARDED: Final[Document] = {"stt.discarded_at": {"$exists": True}}

NEWEST_FIRST: Final = [("priority", -1), ("start", -1), ("index", -1)]
_ALSO_PLANNED_WITH: Final = ["original_id", "_id", "vad.prob", "stt.retry_at", "stt.error.at"]
PLAN: Final = dict.fromkeys([*dict(NEWEST_FIRST), *_ALSO_PLANNED_WITH], 1)
PLAN_KEYS: Final = [*NEWEST_FIRST, *((name, 1) for name in _ALSO_PLANNED_WITH)]
_ALSO_LISTED_WITH: Final = ["stt.error.kind", "stt.failures", "stt.parked_at"]
FAILED_KEYS: Final = [*PLAN_KEYS, *((name, 1) for name in _ALSO_LISTED_WITH)]

# -- the indexes ------------------------------------------------------------------------------

_LIMITING: Final = frozenset({"partialFilterExpression", "sparse", "hidden", "collation"})
"""An index with one of these options does not find everything."""

_DUPLICATES_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is created when it is missing; `purpose` is what happens without it."""

    name: str
    collection: str
    keys: list[tuple[str, int]]
    purpose: str
    options: Document = field(default_factory=dict)
    needed_keys: int | None = None
    """An index under another name that begins with this many of the keys will do as well."""

    @property
    def is_precondition(self) -> bool:
        """Whether nothing may be written without it."""
        return bool(self.options.get("unique"))

    def is_served_by(self, name: str, details: Document) -> bool:
        """Whether an existing index is this one, or does its job under another name."""
        if self.is_precondition:
            return list(details["key"]) == self.keys and _forbids_as_much(details, self.options)
        if name == self.name:
            return True
        if self.needed_keys is None or not details.keys().isdisjoint(_LIMITING):
            return False
        return list(details["key"])[: self.needed_keys] == self.keys[: self.needed_keys]

    @property
    def model(self) -> IndexModel:
        """The index as the driver creates it."""
        return IndexModel(self.keys, name=self.name, **self.options)

    @property
    def command(self) -> str:
        """What a person can paste into mongosh to create it."""
        options = json.dumps({"name": self.name, **self.options})
        return f"db.{self.collection}.createIndex({json.dumps(dict(self.keys))}, {options})"


def _partial(states: Document) -> Document:
    return {"partialFilterExpression": states}


def _forbids_as_much(details: Document, options: Document) -> bool:
    """A unique index without a filter forbids more; a hidden one forbids all the same."""
    filter_ = details.get("partialFilterExpression")
    is_wide = filter_ is None or filter_ == options.get("partialFilterExpression")
    return bool(details.get("unique")) and is_wide and "collation" not in details


_CHUNKS, _TRANSCRIPTS = "audio_chunks", "transcriptions"
_BY_RECORDING: Final = [("original", 1), ("start", 1)]
_PLACE: Final = ["original_id", "index", "vad.has_speech", "start", "file"]

OWNER: Final = Index(
    "stt_owner",
    _TRANSCRIPTS,
    [("original", 1), ("chunk_ids", 1)],
    "two workers could save two transcripts of the same audio",
    {"unique": True, **_partial({"chunk_ids": {"$exists": True}})},
)
CLAIM: Final = Index(
    "stt_claim",
    "stt_claims",
    [("chunk_ids", 1)],
    "two workers could transcribe the same audio at the same time",
    {"unique": True},
)

INDEXES: Final = (
    OWNER,
    CLAIM,
    # Holds every field that planning reads, so that planning never touches the audio.
    Index("stt_pending", _CHUNKS, PLAN_KEYS, "planning is slow", _partial(WORKABLE)),
    Index("stt_failed", _CHUNKS, FAILED_KEYS, "listing failures is slow", _partial(FAILED)),
    Index(
        "stt_discarded",
        _CHUNKS,
        [("stt.discarded_at", -1)],
        "listing discarded chunks is slow",
        _partial(DISCARDED),
    ),
    # Finds the neighbours of a sequence, and lists recordings without touching the audio.
    Index(
        "stt_recordings",
        _CHUNKS,
        [(name, 1) for name in _PLACE],
        "there is no context at cuts",
        needed_keys=len(_PLACE),
    ),
    # For readers; the unique index leaves out what older programs saved.
    Index("stt_by_start", _TRANSCRIPTS, [("start", 1)], "exports are slow", needed_keys=1),
    Index("stt_by_recording", _TRANSCRIPTS, _BY_RECORDING, "exports are slow", needed_keys=2),
    Index("stt_dropped_by_recording", "stt_dropped", _BY_RECORDING, "show is slow"),
)

OBSOLETE: Final = ("stt_arrived", "stt_done", "stt_dropped", "stt_place")
"""Indexes on audio_chunks that older versions created; they slow down every insert and mark."""


class Indexes:
    """Knows which indexes exist, and creates those that are missing."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._known: dict[str, str] | None = None
        self._refused: set[str] = set()
        self._is_doubtful = False
        database.when_hint_fails = self._doubt

    def ensure(self) -> None:
        """Create what is missing and drop what is obsolete; a refusal costs only speed.

        Raises:
            ConfigurationError: a unique index is missing and cannot be created.
        """
        self._known, self._is_doubtful = None, False
        self._drop_obsolete()
        missing = [index for index in self.missing() if index.name not in self._refused]
        for name in dict.fromkeys(index.collection for index in missing):
            self._create(name, [index for index in missing if index.collection == name])
        self._known = None

    def ensure_unique(self) -> None:
        """Create again whatever disappeared since `ensure`, as after `mongorestore --drop`.

        Raises:
            ConfigurationError: a unique index is missing and cannot be created.
        """
        if self._is_doubtful or not all(map(self._found, (OWNER, CLAIM))):
            self.ensure()

    def missing(self) -> list[Index]:
        """Those that the next run would create."""
        return [index for index in INDEXES if not self.has(index.name)]

    def has(self, name: str) -> bool:
        """Whether one of our indexes exists, or another one that serves its purpose."""
        return self.hint(name) is not None

    def hint(self, name: str) -> str | None:
        """The name in MongoDB of one of our indexes, or of another one that serves its purpose."""
        known = self._known  # another thread may forget it meanwhile
        if known is None:
            known = self._known = self._read()
        return known.get(name)

    def _doubt(self) -> None:
        """A hint failed: the index was dropped, or somebody is still building it: wait for that.

        MongoDB lists an index from the beginning of its build, and to create it again is to wait.
        """
        self._known, self._is_doubtful = None, True
        listed = [
            index
            for index in INDEXES
            if index.collection == _CHUNKS and self.hint(index.name) == index.name
        ]
        if listed:
            log.info("Waiting for the indexes of audio_chunks", extra=Event.INDEX.of())
            models = [index.model for index in listed]
            self._db.run_until_stopped(lambda: self._db.chunks.create_indexes(models))

    def _read(self) -> dict[str, str]:
        try:
            return {index.name: found for index in INDEXES if (found := self._found(index))}
        except ConfigurationError:
            return {}

    def _found(self, index: Index) -> str | None:
        existing = self._db.run(self._db.raw[index.collection].index_information)
        names = (name for name, details in existing.items() if index.is_served_by(name, details))
        return next(names, None)

    # -- creating -----------------------------------------------------------------------------

    def _create(self, collection: str, indexes: list[Index]) -> None:
        """Create indexes of one collection in one command, which reads it only once."""
        if self._db.has(self._db.raw[collection], {}):
            names = ", ".join(index.name for index in indexes)
            log.info("Building indexes on %s: %s", collection, names, extra=Event.INDEX.of())
        models = [index.model for index in indexes]
        try:
            # On a large collection this takes minutes, so there is no time limit.
            self._db.run(lambda: self._db.raw[collection].create_indexes(models), seconds=None)
        except (ConfigurationError, StoreError) as error:
            if len(indexes) == 1:
                self._give_up(indexes[0], error)
            else:
                for index in indexes:
                    self._create(collection, [index])

    def _give_up(self, index: Index, error: Exception) -> None:
        if index.is_precondition:
            raise ConfigurationError(
                f"Index {index.name} on {index.collection} is missing and cannot be created"
                f" ({short(error)}). Without it {index.purpose}. {self._remedy(index)}"
            ) from error
        self._refused.add(index.name)
        log.warning(
            "Index %s on %s could not be created, so %s: %s",
            index.name,
            index.collection,
            index.purpose,
            short(error),
            extra=Event.INDEX.of(),
        )

    def _remedy(self, index: Index) -> str:
        advice = f"Create it in mongosh, in database {self._db.raw.name}: {index.command}"
        duplicates = self._duplicates(index)
        if not duplicates:
            return advice
        named = ", ".join(map(str, duplicates))
        query = f"db.{index.collection}.aggregate({json.dumps(_duplicate_groups(index))})"
        return (
            f"There are duplicates, such as {named}; this lists all of them: {query}."
            " Remove one of each pair, then run again"
        )

    def _duplicates(self, index: Index) -> list[Any]:
        """Ids of some documents that keep a unique index from being built."""
        stages = [*_duplicate_groups(index), {"$limit": _DUPLICATES_NAMED}]
        collection = self._db.raw[index.collection]
        try:
            rows = self._db.run(
                lambda: list(collection.aggregate(stages, allowDiskUse=True)), seconds=None
            )
        except (ConfigurationError, StoreError):
            return []
        return [row["documents"] for row in rows]

    def _drop_obsolete(self) -> None:
        chunks = self._db.chunks
        try:
            for name in set(OBSOLETE).intersection(self._db.run(chunks.index_information)):
                self._db.run(partial(chunks.drop_index, name))
                log.info(
                    "Dropped index %s on audio_chunks, which is no longer needed",
                    name,
                    extra=Event.INDEX.of(),
                )
        except (ConfigurationError, StoreError) as error:
            log.debug("Obsolete indexes stay: %s", short(error), extra=Event.INDEX.of())


def _duplicate_groups(index: Index) -> list[Document]:
    """Stages that group the documents which share a key of a unique index on `chunk_ids`."""
    key = {name: f"${name}" for name, _ in index.keys}
    return [
        {"$unwind": "$chunk_ids"},
        {"$group": {"_id": key, "documents": {"$addToSet": "$_id"}}},
        {"$match": {"documents.1": {"$exists": True}}},
    ]

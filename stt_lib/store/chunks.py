"""The collection `audio_chunks`: what is pending, loading it, and marking it as transcribed."""

from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import ObjectId
from pymongo import InsertOne, UpdateMany
from pymongo.collection import Collection
from pymongo.command_cursor import CommandCursor

from stt_lib.domain.models import (
    ALL,
    Chunk,
    ChunkRef,
    ChunkSequence,
    Loaded,
    NewChunk,
    Selection,
    identity,
)
from stt_lib.errors import WriteRefused
from stt_lib.store import mapping
from stt_lib.store.database import Database, Document, confirmed, is_duplicate, unwaited
from stt_lib.store.group_commit import GroupCommit
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import (
    DISCARDED,
    FAILED,
    NEWEST_FIRST,
    PENDING,
    PLAN,
    WORKABLE,
    Indexes,
)
from stt_lib.store.mapping import nested
from stt_lib.timing import Timing

OLDEST_FIRST: Final = [(name, -direction) for name, direction in NEWEST_FIRST]

MOST_NEIGHBOURS: Final = 64
"""Chunks. Neighbours that are loaded at most, should a recording have thousands with one index."""

_LOADED: Final[Document] = {
    **dict.fromkeys(["index", "start", "original_id", "data", "format"], 1),
    **dict.fromkeys(["vad.prob", "vad.has_speech", "transcribed_at"], 1),
    **dict.fromkeys(
        ["stt.failures", "stt.excuses", "stt.error.kind", "stt.error.at", "stt.retry_at"], 1
    ),
}
_MARKED: Final[Document] = {"$currentDate": {"transcribed_at": True}, "$unset": {"stt": True}}
"""Update. The mark also removes everything that we stored on the chunk."""

_PRIORITIZED_AT_ONCE: Final = 10_000
"""Ids in one update: far below the 16 MB that a command may have."""


class Chunks:
    """Chunks, pending and done."""

    def __init__(self, database: Database, indexes: Indexes, timing: Timing) -> None:
        self._db = database
        self._indexes = indexes
        # A mark that a transcript backs may be lost: the next run finds the owner and repeats it.
        backed, alone = unwaited(database.chunks), database.chunks
        self._backed: GroupCommit[ChunkUpdate, None] = GroupCommit(
            lambda marks: update_chunks(database, backed, marks), timing
        )
        self._unbacked: GroupCommit[ChunkUpdate, None] = GroupCommit(
            lambda marks: update_chunks(database, alone, marks), timing
        )

    # -- planning -----------------------------------------------------------------------------

    def count_pending(self, selection: Selection = ALL, *, only_failed: bool = False) -> int:
        """How many chunks are pending and not parked, or with `only_failed` failed before."""
        return self._db.run(lambda: self._counted(selection, only_failed), seconds=None)

    def _counted(self, selection: Selection, only_failed: bool) -> int:
        index = "stt_failed" if only_failed else "stt_pending"
        if selection == ALL and self._indexes.has(index):
            # This command counts the keys of an index without looking at each.
            command = {"count": "audio_chunks", "query": {}, "hint": index}
            return int(self._db.raw.command(command)["n"])
        stages = [*only_selected(selection, {"_id": 1}), {"$count": "chunks"}]
        rows = list(self._backlog(stages, only_failed))
        return int(rows[0]["chunks"]) if rows else 0

    def backlog(self, stages: list[Document], *, only_failed: bool) -> list[Document]:
        """Pending chunks, or those that failed before, through the stages of a pipeline."""
        return self._db.run(lambda: list(self._backlog(stages, only_failed)), seconds=None)

    def _backlog(self, stages: list[Document], only_failed: bool) -> CommandCursor[Document]:
        """The partial index holds these chunks and no others.

        With a filter, MongoDB would read every document to check it once more, audio included.
        """
        index, wanted = ("stt_failed", FAILED) if only_failed else ("stt_pending", WORKABLE)
        if self._indexes.has(index):
            return self._db.chunks.aggregate(stages, hint=index, batchSize=1000)
        return self._db.chunks.aggregate([{"$match": wanted}, *stages], allowDiskUse=True)

    def pending(
        self,
        *,
        run_started: datetime,
        selection: Selection = ALL,
        only_failed: bool = False,
        excluding: Container[Hashable] = frozenset(),
    ) -> Iterator[ChunkRef]:
        """Stream what may be worked on, newest first and by priority: metadata, never audio.

        What fails in a run is not planned again in it: its retry is due after `run_started`. With
        `only_failed`, streams what failed before `run_started`, parked or not due as it may be.
        May raise errors of the driver half-way: call through `with_retries`, and start again.
        """
        newest_first = {"$sort": dict(NEWEST_FIRST)}
        # Not in a `with` block: the garbage collector may end this generator while the driver holds
        # a lock that its `close` takes, too. A cursor that is just dropped is closed in time.
        for document in self._backlog([newest_first, *only_selected(selection, PLAN)], only_failed):
            if identity(document["_id"]) in excluding:
                continue
            if _is_due(document, run_started, only_failed):
                yield mapping.chunk_ref(document)

    def first_and_last_pending(self, limit: int) -> tuple[list[ChunkRef], list[ChunkRef]]:
        """The first `limit` pending chunks in the order of work, and the last."""
        first, last = (self._some_pending(order, limit) for order in (NEWEST_FIRST, OLDEST_FIRST))
        return first, last[::-1]

    def _some_pending(self, order: list[tuple[str, int]], limit: int) -> list[ChunkRef]:
        stages: list[Document] = [{"$sort": dict(order)}, {"$limit": limit}, {"$project": PLAN}]
        return list(map(mapping.chunk_ref, self.backlog(stages, only_failed=False)))

    # -- loading ------------------------------------------------------------------------------

    def load(
        self, sequence: ChunkSequence, *, run_started: datetime, only_failed: bool = False
    ) -> Loaded:
        """Read a claimed sequence: what is still to do of it, who owns it, what lies beside it.

        Checks again everything that the plan required, so that a stale plan is harmless.
        """
        ids = [chunk.id for chunk in sequence.chunks]
        pipeline = self._load_stages(sequence, ids, FAILED if only_failed else WORKABLE)
        found: dict[Hashable, Chunk] = {}
        owned: set[Hashable] = set()
        neighbours: list[Chunk] = []
        for document in self._db.run(lambda: list(self._db.chunks.aggregate(pipeline))):
            if "chunk_ids" in document:
                owned.update(map(identity, mapping.owned_ids(document)))
            elif "is_neighbour" in document:
                neighbours.append(mapping.chunk(document))
                self._make_plannable(document)
            elif _is_due(document, run_started, only_failed):
                found[identity(document["_id"])] = mapping.chunk(document)
        chunks = tuple(found[i] for i in map(identity, ids) if i in found)
        if len(chunks) < len(ids):  # there are more ends than the query knew of
            neighbours = list(self.neighbours(sequence.original_id, chunks))
        owned &= found.keys()
        if owned:  # by transcripts that may not have reached a majority yet
            owned &= durably_owned(self._db, sequence.original_id, ids)
        return Loaded(chunks, frozenset(owned), tuple(neighbours))

    def _make_plannable(self, neighbour: Document) -> None:
        """Remove an empty list in place of what we store on a chunk.

        To MongoDB, no field is missing in an empty list, so that no plan would find the chunk.
        """
        if neighbour.get("stt") == [] and neighbour.get("transcribed_at") is None:
            query = {"_id": neighbour["_id"], "stt": []}
            self._db.run(lambda: self._db.chunks.update_one(query, {"$unset": {"stt": True}}))

    def _load_stages(
        self, sequence: ChunkSequence, ids: list[Any], states: Document
    ) -> list[Document]:
        """One query for three: each command costs the client as much as the next."""
        owner = [{"$match": owners(sequence.original_id, ids)}, {"$project": {"chunk_ids": 1}}]
        stages: list[Document] = [
            {"$match": {"_id": {"$in": ids}, **states}},
            {"$project": _LOADED},
            {"$unionWith": {"coll": "transcriptions", "pipeline": owner}},
        ]
        beside = None if sequence.problem else self._beside(sequence.original_id, sequence.chunks)
        if beside is not None:
            fields = {**_LOADED, "is_neighbour": {"$literal": True}}
            pipeline = [{"$match": beside}, {"$limit": MOST_NEIGHBOURS}, {"$project": fields}]
            stages.append({"$unionWith": {"coll": "audio_chunks", "pipeline": pipeline}})
        return stages

    def audio(self, ids: Sequence[Any]) -> tuple[Chunk, ...]:
        """Those of these chunks that still exist, with their audio, in this order."""
        found = self._find({"_id": {"$in": list(ids)}})
        by_id = {identity(chunk.id): chunk for chunk in found}
        return tuple(by_id[i] for i in map(identity, ids) if i in by_id)

    def neighbours(self, original_id: Any, chunks: Sequence[ChunkRef | Chunk]) -> tuple[Chunk, ...]:
        """The chunks with speech directly before and after these, wherever one is missing."""
        query = self._beside(original_id, chunks)
        return () if query is None else self._find(query, limit=MOST_NEIGHBOURS)

    def _beside(self, original_id: Any, chunks: Sequence[ChunkRef | Chunk]) -> Document | None:
        held = {chunk.index for chunk in chunks if chunk.index is not None and not chunk.problem}
        beside = {index + step for index in held for step in (-1, 1)} - held
        if not beside or not self._indexes.has("stt_recordings"):
            return None
        place = {"original_id": {"$eq": original_id}, "index": {"$in": sorted(beside)}}
        return {**place, "vad.has_speech": True}

    def _find(self, query: Document, *, limit: int = 0) -> tuple[Chunk, ...]:
        found = self._db.find(self._db.chunks, query, _LOADED, limit=limit)
        return tuple(map(mapping.chunk, found))

    def existing(self, ids: Sequence[Any]) -> set[Hashable]:
        """Which of these chunks (by `identity`) still exist."""
        query = {"_id": {"$in": list(ids)}}
        found = self._db.find(self._db.chunks, query, {"_id": 1})
        return {identity(document["_id"]) for document in found}

    def has_transcribed_twin(self, original_id: Any, chunk: Chunk) -> bool:
        """Whether a transcript owns another chunk of the same recording and index."""
        place = {"original_id": {"$eq": original_id}, "index": chunk.index}
        twins = {**place, "_id": {"$ne": chunk.id}}
        found = [twin["_id"] for twin in self._db.find(self._db.chunks, twins, {"_id": 1})]
        return bool(found) and self._db.has(self._db.transcriptions, owners(original_id, found))

    # -- writing ------------------------------------------------------------------------------

    def mark(self, ids: Sequence[Any], *, is_backed: bool) -> None:
        """Mark chunks as transcribed; harmless for those that are.

        `is_backed`: a saved transcript owns them. Otherwise the mark itself is the verdict that
        they hold no speech, and has to survive a failover.

        Raises:
            WriteRefused: MongoDB does not let some of them be changed; the others are marked.
        """
        group = self._backed if is_backed else self._unbacked
        self._db.encoded({"ids": ids})  # what cannot be sent must not join a group
        group.submit(ChunkUpdate(ids, {"transcribed_at": None}, _MARKED))

    def prioritize(self, recording: str, level: int) -> int:
        """Give the pending chunks of a recording a priority, parked ones included; 0 removes it.

        Returns how many there are.
        """
        update = {"$set": {"priority": level}} if level else {"$unset": {"priority": True}}
        ids = self.pending_of(recording)
        return sum(
            self._update_pending(ids[start : start + _PRIORITIZED_AT_ONCE], update)
            for start in range(0, len(ids), _PRIORITIZED_AT_ONCE)
        )

    def pending_of(self, recording: str) -> list[Any]:
        """The ids of the pending chunks of a recording, parked ones included."""
        stages = only_selected(Selection(recording=recording), {"_id": 1})
        found = {
            identity(document["_id"]): document["_id"]
            for only_failed in (False, True)
            for document in self.backlog(stages, only_failed=only_failed)
        }
        return list(found.values())

    def _update_pending(self, ids: list[Any], update: Document) -> int:
        query = {"_id": {"$in": ids}, **PENDING}
        return self._db.run(lambda: self._db.chunks.update_many(query, update)).matched_count

    def insert(self, new_chunks: Iterable[NewChunk]) -> int:
        """Insert chunks of the embedded ingester; returns how many were new."""
        now = datetime.now(UTC)
        return sum(self._insert(mapping.new_chunk(chunk, now)) for chunk in new_chunks)

    def start(self, id_bytes: bytes) -> datetime | None:
        """When a chunk that `insert` has stored begins; None if there is none."""
        query = {"_id": ObjectId(id_bytes)}
        found = self._db.find_one(self._db.chunks, query, {"start": 1})
        return mapping.chunk_ref(found).start if found else None

    def is_whole(self, recording: str) -> bool:
        """Whether `insert` has stored a recording to its last chunk."""
        query = {"original_id": {"$in": possible_ids(recording)}}
        last = self._db.find_one(self._db.chunks, query, {"last": 1}, sort=[("index", -1)])
        return bool(last and last.get("last"))

    def has_due(self, recording: str, moment: datetime) -> bool:
        """Whether some of a recording is pending, was due at this moment, and is not discarded.

        The first chunk usually answers, because runs go from the newest to the oldest.
        """
        pending = {"original_id": {"$in": possible_ids(recording)}, **PENDING}
        due = {**pending, "stt.retry_at": {"$not": {"$gt": moment}}, "stt.discarded_at": None}
        return bool(self._db.find_one(self._db.chunks, due, {"_id": 1}, sort=[("index", 1)]))

    def has_discarded(self, recording: str) -> bool:
        """Whether some of a recording was discarded."""
        query = {"original_id": {"$in": possible_ids(recording)}, **DISCARDED}
        return self._db.has(self._db.chunks, query)

    def _insert(self, document: Document) -> bool:
        [refusal] = self._db.bulk(self._db.chunks, [InsertOne(document)])
        if refusal is not None and not is_duplicate(refusal):
            raise self._db.refused(refusal, [document["_id"]])
        return refusal is None


# -- updates of chunks ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChunkUpdate:
    """The same change to several chunks, those that meet the condition."""

    ids: Sequence[Any]
    condition: Document
    change: Document | list[Document]

    def of(self, ids: Sequence[Any]) -> UpdateMany:
        """The statement for some of them."""
        return UpdateMany({"_id": {"$in": list(ids)}, **self.condition}, self.change)


def update_chunks(
    database: Database, collection: Collection[Document], updates: Sequence[ChunkUpdate]
) -> list[WriteRefused | None]:
    """Change chunks, with one statement for each update; returns the refusal of each.

    A refused statement is repeated chunk by chunk, so that a bad chunk costs only itself.
    """
    refusals = database.bulk(collection, [update.of(update.ids) for update in updates])
    return [
        None if refusal is None else _update_one_by_one(database, collection, update)
        for update, refusal in zip(updates, refusals, strict=True)
    ]


def _update_one_by_one(
    database: Database, collection: Collection[Document], update: ChunkUpdate
) -> WriteRefused | None:
    refusals = database.bulk(collection, [update.of([chunk_id]) for chunk_id in update.ids])
    refused = [(i, refusal) for i, refusal in zip(update.ids, refusals, strict=True) if refusal]
    return database.refused(refused[0][1], [i for i, _ in refused]) if refused else None


# -- queries ----------------------------------------------------------------------------------


def only_selected(selection: Selection, fields: Document) -> list[Document]:
    """Stages of a pipeline that let the chunks of a selection through, with these fields.

    A query would make MongoDB read the documents to check what a partial index leaves out. A
    computed field is filtered by the keys of the index alone.
    """
    conditions: list[Document] = []
    if selection.since is not None or selection.until is not None:
        conditions.append({"$eq": [{"$type": "$start"}, "date"]})
    if selection.since is not None:
        conditions.append({"$gte": ["$start", selection.since]})
    if selection.until is not None:
        conditions.append({"$lt": ["$start", selection.until]})
    if selection.recording is not None:
        ids = {"$literal": possible_ids(selection.recording)}
        conditions.append({"$in": ["$original_id", ids]})
    if not conditions:
        return [{"$project": fields}]
    computed = {**fields, "is_selected": {"$and": conditions}}
    return [{"$project": computed}, {"$match": {"is_selected": True}}]


def owners(original_id: Any, ids: Sequence[Any]) -> Document:
    """The transcripts that own some of these chunks."""
    return {
        "original": {"$eq": original_id},
        "chunk_ids": {"$in": list(ids), "$exists": True},
    }


def durably_owned(database: Database, original_id: Any, ids: Sequence[Any]) -> set[Hashable]:
    """Which of these chunks (by `identity`) a transcript owns that a failover cannot take back.

    Otherwise a mark might reach the new primary without its transcript.
    """
    query = owners(original_id, ids)
    found = database.find(confirmed(database.transcriptions), query, {"chunk_ids": 1})
    theirs = {identity(i) for document in found for i in mapping.owned_ids(document)}
    return theirs & set(map(identity, ids))


def _is_due(document: Document, run_started: datetime, only_failed: bool) -> bool:
    """Whether a run that began then may work on a pending chunk."""
    moment = nested(document, "stt.error.at" if only_failed else "stt.retry_at")
    return not isinstance(moment, datetime) or moment <= run_started

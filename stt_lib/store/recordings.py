"""Recordings for a list: read from indexes and transcripts, never from a chunk with its audio."""

from collections import Counter
from collections.abc import Hashable, Iterator
from datetime import datetime
from typing import Any, Final

from bson.max_key import MaxKey
from bson.min_key import MinKey

from stt_lib.domain.models import NOMINAL_CHUNK_SECONDS, RecordingState, RecordingSummary, identity
from stt_lib.domain.text import word_count
from stt_lib.store.database import Database, Document
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import FAILED_KEYS, PENDING, PLAN_KEYS, Indexes
from stt_lib.store.mapping import nested
from stt_lib.telemetry.formatters import shown_id

_A_DATE: Final[Document] = {"$gte": datetime.min, "$lt": datetime.max}
"""What fits a calendar: MongoDB's dates go far beyond it."""

_STATE: Final[Document] = {"_id": 0, "original_id": 1, "stt.error.at": 1}
_FAILED_STATE: Final[Document] = {**_STATE, "stt.parked_at": 1}
_WORDS: Final[Document] = {"original": 1, "segments.text": 1}


class Recordings:
    """What there is of each recording, and how far it has come."""

    def __init__(self, database: Database, indexes: Indexes) -> None:
        self._db = database
        self._indexes = indexes

    def newest(
        self, limit: int, since: datetime | None = None, until: datetime | None = None
    ) -> list[RecordingSummary]:
        """The recordings that began last, in a span of time."""
        begun = {identity(row["_id"]): row for row in self._begun(limit, since, until)}
        if not begun:
            return []
        ids = [row["_id"] for row in begun.values()]
        # A recording may have been deleted since.
        ends = {key: row["start"] for key, row in begun.items()} | self._ends(ids)
        states = self._states(ids, min(r["start"] for r in begun.values()), max(ends.values()))
        words = self._words(ids)
        return [
            RecordingSummary(
                shown_id(row["_id"]),
                row["name"] if isinstance(row["name"], str) else None,
                row["start"],
                (ends[key] - row["start"]).total_seconds() + NOMINAL_CHUNK_SECONDS,
                states.get(key, RecordingState.DONE),
                words[key],
            )
            for key, row in begun.items()
        ]

    def beginning(self, recording: str) -> datetime | None:
        """When the first chunk of a recording began, silent or not, while it still exists."""
        start = self._first(recording, "start")
        return start if isinstance(start, datetime) else None

    def name(self, recording: str) -> str | None:
        """The name of the file that a recording was stored from, if it was one."""
        name = self._first(recording, "file")
        return name if isinstance(name, str) else None

    def _first(self, recording: str, field: str) -> Any:
        """A field of the first chunk, from the index alone."""
        if not self._indexes.has("stt_recordings"):
            return None
        chunks = {"original_id": {"$in": possible_ids(recording)}, "index": {"$type": "number"}}
        fields = {"_id": 0, field: 1}
        first = self._db.find_one(self._db.chunks, chunks, fields, sort=[("index", 1)])
        return (first or {}).get(field)

    def _begun(self, limit: int, since: datetime | None, until: datetime | None) -> list[Document]:
        """The first chunk of each: MongoDB jumps from one recording to the next in the index."""
        first = {"start": {"$first": "$start"}, "name": {"$first": "$file"}}
        span = {"$gte": since or datetime.min, "$lt": until or datetime.max}
        return self._from_index(
            [
                {"$sort": {"original_id": 1, "index": 1}},
                {"$group": {"_id": "$original_id", **first}},
                {"$match": {"start": span}},
                {"$sort": {"start": -1}},
                {"$limit": limit},
            ]
        )

    def _ends(self, ids: list[Any]) -> dict[Hashable, datetime]:
        """When the last chunk of each began."""
        rows = self._from_index(
            [
                {"$match": {"original_id": {"$in": ids}, "start": _A_DATE}},
                {"$group": {"_id": "$original_id", "start": {"$max": "$start"}}},
            ]
        )
        return {identity(row["_id"]): row["start"] for row in rows}

    def _from_index(self, stages: list[Document]) -> list[Document]:
        def read() -> list[Document]:
            hint = self._indexes.hint("stt_recordings")
            options: Document = {"hint": hint} if hint else {}
            return list(self._db.chunks.aggregate(stages, allowDiskUse=True, **options))

        return self._db.run(read, seconds=None)

    # -- states -------------------------------------------------------------------------------

    def _states(
        self, ids: list[Any], first: datetime, last: datetime
    ) -> dict[Hashable, RecordingState]:
        """Of recordings that are not done; if chunks differ, the state of those with most hope."""
        states: dict[Hashable, RecordingState] = {}
        wanted = set(map(identity, ids))
        for document in self._db.run(
            lambda: list(self._unfinished(ids, first, last)), seconds=None
        ):
            key = identity(document.get("original_id"))
            if key in wanted:
                states[key] = min(_state(document), states.get(key, RecordingState.DONE), key=_RANK)
        return states

    def _unfinished(self, ids: list[Any], first: datetime, last: datetime) -> Iterator[Document]:
        """The pending chunks that began in a span: by bounds in the partial indexes.

        A filter would make MongoDB read every document to check it once more.
        """
        find = self._db.chunks.find
        if not (self._indexes.has("stt_pending") and self._indexes.has("stt_failed")):
            yield from find({**PENDING, "original_id": {"$in": ids}}, _FAILED_STATE)
            return
        for name, keys, fields in (
            ("stt_pending", PLAN_KEYS, _STATE),
            ("stt_failed", FAILED_KEYS, _FAILED_STATE),
        ):
            prioritized = _bound(keys, MaxKey(), MaxKey()), _bound(keys, None, MaxKey())
            others = _bound(keys, None, last), _bound(keys, None, first, is_end=True)
            for start, end in (prioritized, others):
                yield from find({}, fields, hint=name, min=start, max=end)

    # -- words --------------------------------------------------------------------------------

    def _words(self, ids: list[Any]) -> Counter[Hashable]:
        counts: Counter[Hashable] = Counter()
        query = {"original": {"$in": ids}}
        found = self._db.find(self._db.transcriptions, query, _WORDS, seconds=None)
        for key, words in self._db.readable(found, _counted):
            counts[key] += words
        return counts


_RANK: Final = list(RecordingState).index


def _state(document: Document) -> RecordingState:
    if nested(document, "stt.parked_at") is not None:
        return RecordingState.PARKED
    is_failed = nested(document, "stt.error.at") is not None
    return RecordingState.FAILED if is_failed else RecordingState.PENDING


def _bound(
    keys: list[tuple[str, int]], priority: Any, start: Any, *, is_end: bool = False
) -> Document:
    """The first place in an index with this priority and start, or the place after the last."""
    first = {1: MinKey(), -1: MaxKey()}
    after = {1: MaxKey(), -1: MinKey()}
    rest = {name: (after if is_end else first)[direction] for name, direction in keys[2:]}
    return {"priority": priority, "start": start, **rest}


def _counted(document: Document) -> tuple[Hashable, int]:
    texts = (segment["text"] for segment in document["segments"])
    words = sum(word_count(text.split()) for text in texts)
    return identity(document["original"]), round(words)

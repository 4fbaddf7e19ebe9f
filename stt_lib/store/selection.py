"""What a person typed to name chunks, as a query that our indexes answer."""

import uuid
from typing import Any, Final

from bson import Binary, Int64, ObjectId, Regex, json_util
from bson.errors import BSONError

from stt_lib.model import Selection
from stt_lib.store.connection import Document

_INT64: Final = range(-(2**63), 2**63)


def only_selected(selection: Selection, fields: Document) -> list[Document]:
    """Stages of a pipeline that let the chunks of a selection through, with these fields.

    A query would make MongoDB read the documents: it checks what a partial index leaves out, and
    cannot know that the index is read for what it holds. A computed field it filters by the
    keys of the index alone.
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


def possible_ids(text: str) -> list[Any]:
    """The values that an id typed by a person may stand for.

    Any other than text, numbers, ObjectIds and UUIDs can be given as MongoDB's Extended JSON
    writes it, as {"$date": "2026-03-01T08:00:00Z"}.
    """
    ids: list[Any] = [text]
    if ObjectId.is_valid(text):
        ids.append(ObjectId(text))
    for read in (_integer, _real, _uuid, _extended_json):
        try:
            ids.append(read(text))
        except (ValueError, TypeError, KeyError, BSONError):
            continue
    return ids


def _integer(text: str) -> Int64:
    number = int(text)
    if number not in _INT64:
        raise ValueError("too large for BSON")
    return Int64(number)


def _real(text: str) -> float:
    if not any(c in text for c in ".eE"):
        raise ValueError("no fraction: an integer compares equal")
    return float(text)


def _uuid(text: str) -> Binary:
    return Binary.from_uuid(uuid.UUID(text))


def _extended_json(text: str) -> Any:
    """Not a pattern: it would name chunks that nobody named."""
    if not text.startswith("{"):
        raise ValueError("no Extended JSON")
    value = json_util.loads(text)
    if isinstance(value, Regex):
        raise TypeError("a pattern is no id")
    return value

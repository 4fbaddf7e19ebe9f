"""Ids of any BSON type, as people type and read them."""

import uuid
from typing import Any, Final

from bson import Binary, Int64, ObjectId, Regex, json_util
from bson.binary import OLD_UUID_SUBTYPE, UUID_SUBTYPE
from bson.errors import BSONError

_INT64: Final = range(-(2**63), 2**63)


def possible_ids(text: str) -> list[Any]:
    """The values that an id typed by a person may stand for.

    Any other than text, numbers, ObjectIds and UUIDs can be given as MongoDB's Extended JSON
    writes it, as {"$date": "2026-03-01T08:00:00Z"}.
    """
    ids: list[Any] = [text]
    if ObjectId.is_valid(text):
        ids.append(ObjectId(text))
    for read in (_integer, _real, _uuid, _old_uuid, _extended_json):
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


def _old_uuid(text: str) -> Binary:
    return Binary(uuid.UUID(text).bytes, OLD_UUID_SUBTYPE)


def _extended_json(text: str) -> Any:
    """Not a pattern: it would name chunks that nobody named."""
    if not text.startswith("{") and text != "null":
        raise ValueError("no Extended JSON")
    value = json_util.loads(text)
    if isinstance(value, Regex):
        raise TypeError("a pattern is no id")
    return value


def shown_id(value: Any) -> str:
    """An id in the form in which `possible_ids` takes it."""
    if isinstance(value, str | ObjectId | int) and not isinstance(value, bool):
        return str(value)
    is_uuid = isinstance(value, Binary) and value.subtype in (UUID_SUBTYPE, OLD_UUID_SUBTYPE)
    if is_uuid and len(value) == 16:
        return str(uuid.UUID(bytes=bytes(value)))
    return json_util.dumps(value)

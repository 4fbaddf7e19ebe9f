"""Ids of any BSON type, as people type and read them."""

import uuid
from typing import Any

import bson
from bson import Binary, Int64, ObjectId, Regex, json_util
from bson.binary import OLD_UUID_SUBTYPE, UUID_SUBTYPE
from bson.errors import BSONError

from stt_lib.telemetry.formatters import shown_id


def possible_ids(text: str) -> list[Any]:
    """The values that an id typed by a person may stand for.

    Any other than text, numbers, ObjectIds and UUIDs can be given as MongoDB's Extended JSON
    writes it, as {"$date": "2026-03-01T08:00:00Z"}.
    """
    ids: list[Any] = []
    for read in (str, ObjectId, Int64, _real, _uuid, _old_uuid, _extended_json):
        try:
            value = read(text)
            bson.encode({"_id": value})
        except (ValueError, TypeError, KeyError, ArithmeticError, BSONError):
            continue
        ids.append(value)
    return ids


def _real(text: str) -> float:
    if not any(c in text for c in ".eE"):
        raise ValueError("no fraction: an integer compares equal")
    return float(text)


def _uuid(text: str) -> Binary:
    return Binary.from_uuid(uuid.UUID(text))


def _old_uuid(text: str) -> Binary:
    return Binary(uuid.UUID(text).bytes, OLD_UUID_SUBTYPE)


def _extended_json(text: str) -> Any:
    """Neither a pattern nor an operator: they would name chunks that nobody named."""
    if not text.startswith("{") and text != "null":
        raise ValueError("no Extended JSON")
    value = json_util.loads(text)
    is_operator = isinstance(value, dict) and next(iter(value), "").startswith("$")
    if is_operator or isinstance(value, Regex):
        raise TypeError("no id")
    return value


@shown_id.register(object)
def _shown(value: Any) -> str:
    """An id in the form in which `possible_ids` takes it."""
    if isinstance(value, str | ObjectId | int) and not isinstance(value, bool):
        return str(value)
    is_uuid = isinstance(value, Binary) and value.subtype in (UUID_SUBTYPE, OLD_UUID_SUBTYPE)
    if is_uuid and len(value) == 16:
        return str(uuid.UUID(bytes=bytes(value)))
    return json_util.dumps(value)

"""The change stream: MongoDB reports when there may be new work, so that nobody has to poll."""

from collections.abc import Iterator
from typing import Final

from pymongo import errors as mongo_errors

from stt_lib.store.database import UNAUTHORIZED_CODES, Database, Document

AWAIT_MS: Final = 10_000
"""Milliseconds. MongoDB answers after this long when nothing has happened."""

_NO_CHANGE_STREAMS: Final = UNAUTHORIZED_CODES | {40573}
"""Error codes of a missing right, and of a standalone mongod."""

_CHANGED: Final[Document] = {
    "$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}
}
_TOUCHES_VAD: Final[Document] = {"$eq": [{"$substrCP": ["$$this.k", 0, 3]}, "vad"]}
_MAY_BE_WORK: Final[list[Document]] = [
    {
        "$match": {
            "operationType": {"$in": ["insert", "replace", "update"]},
            "fullDocument.vad.has_speech": {"$ne": False},
            "$expr": {
                "$or": [
                    {"$ne": ["$operationType", "update"]},
                    {"$anyElementTrue": {"$map": {"input": _CHANGED, "in": _TOUCHES_VAD}}},
                ]
            },
        }
    },
    {"$project": {"_id": 1}},
]
"""New chunks, and chunks that the voice-activity detector changed; not what workers write."""


class ChangeStream:
    """Changes of `audio_chunks`, where MongoDB supports change streams."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def events(self) -> Iterator[None]:
        """Yield whenever there may be new work; ends where MongoDB has no change streams.

        Changes while the stream is broken are missed: poll as well.

        Raises:
            SttError: the stream broke; it may be opened again.
        """
        try:
            while True:  # a stream ends when the collection is dropped
                with self._db.chunks.watch(_MAY_BE_WORK, max_await_time_ms=AWAIT_MS) as stream:
                    yield  # what came before it was open
                    for _ in stream:
                        yield
        except mongo_errors.PyMongoError as error:
            if getattr(error, "code", None) not in _NO_CHANGE_STREAMS:
                raise self._db.translated(error) from None

"""News: MongoDB tells when there may be new work, so that nobody has to ask for it."""

from collections.abc import Iterator
from typing import Any, Final

from pymongo import errors as mongo_errors

from stt_lib.store.database import UNAUTHORIZED_CODES, Connection, Document

AWAIT_MS: Final = 10_000
"""MongoDB answers after so long when nothing has happened."""

_NO_CHANGE_STREAMS: Final = 40573
"""The code of the answer of a standalone mongod."""

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
"""New chunks, and those that the voice-activity detector has come to; not what workers write."""


class News(Connection):
    """Change streams, where there are any."""

    def news(self) -> Iterator[None]:
        """Yield whenever there may be new work; ends where MongoDB cannot tell or may not.

        What happens before the stream is open, or while it is broken, is not told: so ask now and
        then as well.

        Raises:
            SttError: the stream broke; it may be opened anew.
        """
        try:
            with self._chunks.watch(_MAY_BE_WORK, max_await_time_ms=AWAIT_MS) as stream:
                for _ in stream:
                    yield
        except mongo_errors.PyMongoError as error:
            if not _is_impossible(error):
                raise self._translated(error) from None


def _is_impossible(error: mongo_errors.PyMongoError) -> bool:
    code: Any = getattr(error, "code", None)
    return code == _NO_CHANGE_STREAMS or code in UNAUTHORIZED_CODES

"""The embedded ingester's writing."""

from collections.abc import Iterable
from datetime import UTC, datetime

from bson import ObjectId
from bson.binary import Binary

from stt_lib.domain import models
from stt_lib.store import mapping
from stt_lib.store.database import Connection, Document


class Ingest(Connection):
    """New chunks."""

    def insert_chunks(self, chunks: Iterable[models.NewChunk]) -> int:
        """Insert chunks of the embedded ingester; returns how many were not there before."""
        now = datetime.now(UTC)
        rows = (
            mapping.new_chunk(c, ObjectId(c.id_bytes), ObjectId(c.original_id_bytes), now)
            for c in chunks
        )
        return sum(map(self._insert_new, rows))

    def _insert_new(self, row: Document) -> bool:
        row["data"] = Binary(row["data"])
        query, new = {"_id": row["_id"]}, {"$setOnInsert": row}
        result = self._call(lambda: self._chunks.update_one(query, new, upsert=True))
        return result.upserted_id is not None

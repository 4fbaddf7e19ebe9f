"""Seams: where two transcripts meet, one decision for both, each a document of `stt_seams`."""

from datetime import datetime
from typing import Any

from stt_lib.domain.models import Seam
from stt_lib.store import mapping
from stt_lib.store.database import Database, Document


class Seams:
    """Decisions on seams: the first one holds."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def decide(self, original_id: Any, ids: tuple[Any, Any], seam: Seam, at: datetime) -> Seam:
        """The seam between two chunks: this one, unless another worker decided before.

        `ids` are those of the chunk before the cut and the one after it; `at` is the seam's time.
        """
        decided = self._on_chunk(original_id, ids)
        fields = decided or {"at": at, **mapping.seam(seam)}
        new: Document = {name: {"$literal": value} for name, value in fields.items()}
        new |= {"original": {"$literal": original_id}, "decided_at": "$$NOW"}
        first = {"$replaceWith": {"$mergeObjects": [new, "$$ROOT"]}}  # what is there wins
        query = {"_id": _pair(ids)}
        self._db.run(lambda: self._db.seams.update_one(query, [first], upsert=True))
        return self._stored(ids) or seam

    def find(self, original_id: Any, ids: tuple[Any, Any]) -> Seam | None:
        """The seam between two chunks, if it is decided."""
        return self._stored(ids) or mapping.read_seam(self._on_chunk(original_id, ids))

    def _stored(self, ids: tuple[Any, Any]) -> Seam | None:
        return mapping.read_seam(self._db.find_one(self._db.seams, {"_id": _pair(ids)}))

    def _on_chunk(self, original_id: Any, ids: tuple[Any, Any]) -> Document | None:
        """As older versions kept it: on the chunk before the cut."""
        query = {
            "_id": ids[0],
            "original_id": {"$eq": original_id},
            "stt.seam.next": {"$eq": ids[1]},
        }
        found = self._db.find_one(self._db.chunks, query, {"stt.seam": 1})
        old = mapping.nested(found or {}, "stt.seam")
        return old if mapping.read_seam(old) else None


def _pair(ids: tuple[Any, Any]) -> Document:
    return {"before": ids[0], "after": ids[1]}

"""Where two transcripts meet: one decision for both, on the chunk before the cut."""

from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from stt_lib.domain import models
from stt_lib.store import mapping
from stt_lib.store.chunks import owners
from stt_lib.store.database import Connection, Document


class Seams(Connection):
    """Agreeing on seams."""

    def agree_on_seam(
        self, original_id: Any, ids: tuple[Any, Any], seam: models.Seam, at: datetime
    ) -> models.Seam:
        """The seam between two chunks: this one, unless somebody has decided before us.

        `ids` are those of the chunk before the cut and the one behind it; `at` is the seam's time.
        It stays when the chunk is marked, so that the other side finds it whenever it comes.
        """
        later = {"$literal": ids[1]}
        is_decided = {
            "$and": [
                {"$eq": [{"$type": "$stt.seam"}, "object"]},
                {"$eq": ["$stt.seam.next", later]},
            ]
        }
        ours = {
            "next": later,
            "at": at,
            "decided_at": "$$NOW",
            **{name: {"$literal": value} for name, value in mapping.seam(seam).items()},
        }
        decided: list[Document] = [
            {"$set": {"stt.seam": {"$cond": [is_decided, "$stt.seam", ours]}}}
        ]
        query = {"_id": ids[0], "original_id": original_id}
        found = self._call(
            lambda: self._chunks.find_one_and_update(
                query, decided, projection={"stt.seam": 1}, return_document=ReturnDocument.AFTER
            )
        )
        return (mapping.read_seam(found) if found else None) or seam

    def seam_behind(self, original_id: Any, chunk_id: Any) -> models.Seam | None:
        """The seam between a chunk and the next one, if anybody has decided."""
        query = {"_id": chunk_id, "original_id": original_id}
        found = self._call(lambda: self._chunks.find_one(query, {"stt.seam": 1}))
        return mapping.read_seam(found) if found else None

    def transcript_of(self, original_id: Any, chunk_id: Any) -> models.Transcript | None:
        """The transcript that owns a chunk, if any does."""
        query = owners(original_id, [chunk_id])
        found = self._call(lambda: self._transcriptions.find_one(query))
        return mapping.read_transcript(found) if found else None

"""What comes first, whatever its age."""

from typing import Any, Final

from stt_lib.domain.models import Selection, identity
from stt_lib.store.chunks import Backlog
from stt_lib.store.database import Document
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import PENDING
from stt_lib.store.selection import only_selected

_BATCH: Final = 10_000
"""Ids named in one update: far below the 16 MB that a command may have."""


class Priorities(Backlog):
    """The field `priority` of pending chunks."""

    def prioritize(self, recording: str, level: int) -> int:
        """Give the pending chunks of a recording a priority, parked ones too; 0 takes it away.

        Returns how many there are.
        """
        update = {"$set": {"priority": level}} if level else {"$unset": {"priority": True}}
        ids = self._call(lambda: self._pending_of(recording), seconds=None)
        return sum(
            self._update_pending(ids[start : start + _BATCH], update)
            for start in range(0, len(ids), _BATCH)
        )

    def _pending_of(self, recording: str) -> list[Any]:
        stages = only_selected(Selection(recording=recording), {"_id": 1})
        found = [
            document["_id"]
            for only_failed in (False, True)
            for document in self._backlog(stages, only_failed)
        ]
        return list({identity(chunk_id): chunk_id for chunk_id in found}.values())

    def _update_pending(self, ids: list[Any], update: Document) -> int:
        query = {"_id": {"$in": ids}, **PENDING}
        return self._call(lambda: self._chunks.update_many(query, update)).matched_count

    def has_transcripts(self, recording: str) -> bool:
        """Whether some of a recording is transcribed."""
        query = {"original": {"$in": possible_ids(recording)}, "chunk_ids": {"$exists": True}}
        return self._call(lambda: self._transcriptions.find_one(query, {"_id": 1})) is not None

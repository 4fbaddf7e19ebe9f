"""What there is to know of the database before a run; looking leaves no trace in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bson import ObjectId

from stt_lib.errors import ConfigurationError, StoreError
from stt_lib.store.database import Document
from stt_lib.store.indexes import INDEXES, Index, Schema


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the disk that MongoDB keeps its data on."""

    free: int
    total: int


class Checkup(Schema):
    """Version, rights, indexes, disk."""

    @property
    def version(self) -> tuple[int, ...]:
        """MongoDB's version, as 6, 0, 5."""
        return tuple(self._call(lambda: self._db.command("buildInfo"))["versionArray"][:3])

    @property
    def database(self) -> str:
        """Its name."""
        return self._db.name

    def estimated_chunks(self) -> int:
        """How many chunks there are, by the collection's own books."""
        return self._call(self._chunks.estimated_document_count)

    def missing_indexes(self) -> list[Index]:
        """Those of ours that the next run would make."""
        return [index for index in INDEXES if not self._is_indexed(index.name)]

    def refused(self) -> list[str]:
        """What this user may not do, though a run has to; tried with writes that change nothing."""
        return [what for what, trial in self._trials().items() if not self._may(trial)]

    def _trials(self) -> Mapping[str, Callable[[], object]]:
        nobody, nothing = {"_id": ObjectId()}, {"$set": {"stt": None}}
        chunks, transcriptions = self._chunks, self._transcriptions
        return {
            "find in audio_chunks": lambda: chunks.find_one(nobody),
            "update audio_chunks": lambda: chunks.update_one(nobody, nothing),
            "find in transcriptions": lambda: transcriptions.find_one(nobody),
            # An _id must not be a list: what passes the check of rights fails at the next one.
            "insert into transcriptions": lambda: transcriptions.insert_one(_impossible()),
            "update transcriptions": lambda: transcriptions.update_one(nobody, nothing),
        }

    def _may(self, trial: Callable[[], object]) -> bool:
        try:
            self._call(trial)
        except ConfigurationError:
            return False
        except StoreError:
            return True
        return True

    def disk(self) -> Disk | None:
        """None where MongoDB does not say, or not to this user."""
        try:
            stats = self._call(lambda: self._db.command("dbStats"))
        except ConfigurationError:
            return None
        total, used = stats.get("fsTotalSize"), stats.get("fsUsedSize")
        return Disk(int(total - used), int(total)) if total and used else None


def _impossible() -> Document:
    return {"_id": []}

"""What `doctor` wants to know of the database before a run; looking changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bson import ObjectId

from stt_lib.errors import ConfigurationError, StoreError
from stt_lib.store.database import Database, Document


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the disk that MongoDB keeps its data on."""

    free: int
    total: int


class Diagnostics:
    """Version, rights, size, disk."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @property
    def version(self) -> tuple[int, ...]:
        """MongoDB's version, as 6, 0, 5."""
        return tuple(self._db.run(lambda: self._db.raw.command("buildInfo"))["versionArray"][:3])

    def estimated_chunks(self) -> int:
        """How many chunks there are, by the collection's metadata."""
        return self._db.run(self._db.chunks.estimated_document_count)

    def refused(self) -> list[str]:
        """What a run needs and this user may not do; tried with writes that change nothing."""
        return [what for what, trial in self._trials().items() if not self._may(trial)]

    def _trials(self) -> Mapping[str, Callable[[], object]]:
        nobody, nothing = {"_id": ObjectId()}, {"$set": {"stt": None}}
        impossible: Document = {"_id": []}
        db = self._db
        return {
            "find in audio_chunks": lambda: db.chunks.find_one(nobody),
            "update audio_chunks": lambda: db.chunks.update_one(nobody, nothing),
            "find in transcriptions": lambda: db.transcriptions.find_one(nobody),
            # An _id must not be a list: what passes the check of rights fails at the next one.
            "insert into transcriptions": lambda: db.transcriptions.insert_one(impossible),
            "update transcriptions": lambda: db.transcriptions.update_one(nobody, nothing),
            "insert into stt_claims": lambda: db.claims.insert_one(impossible),
            "update stt_claims": lambda: db.claims.update_one(nobody, nothing),
            "delete from stt_claims": lambda: db.claims.delete_one(nobody),
            "insert into stt_dropped": lambda: db.dropped.insert_one(impossible),
            "update stt_dropped": lambda: db.dropped.update_one(nobody, nothing),
            "insert into stt_seams": lambda: db.seams.insert_one(impossible),
            "update stt_seams": lambda: db.seams.update_one(nobody, nothing),
        }

    def _may(self, trial: Callable[[], object]) -> bool:
        try:
            self._db.run(trial)
        except ConfigurationError:
            return False
        except StoreError:
            return True
        return True

    def disk(self) -> Disk | None:
        """None where MongoDB does not say, or not to this user."""
        try:
            stats = self._db.run(lambda: self._db.raw.command("dbStats"))
        except ConfigurationError:
            return None
        total, used = stats.get("fsTotalSize"), stats.get("fsUsedSize")
        return Disk(int(total - used), int(total)) if total and used else None

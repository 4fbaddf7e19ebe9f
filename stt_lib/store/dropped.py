"""What the filter dropped: found again, and taken back."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from pymongo import errors as mongo_errors

from stt_lib.domain import models
from stt_lib.domain.models import identity
from stt_lib.errors import InputError
from stt_lib.store import mapping
from stt_lib.store.chunks import owners
from stt_lib.store.database import Document
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import WITHOUT_EMPTY_STT, Schema

_DETECTED: Final = {"index": 1, "start": 1, "vad.prob": 1}
_MAX_TRANSCRIPTS: Final = 1000
"""Of a recording: three days of speech."""


class Explanations(Schema):
    """Transcripts, saved or set aside, with what was dropped from them."""

    def explained(self, text: str) -> list[models.Explained]:
        """Find what was heard in a transcript, a chunk or a recording of this id, oldest first."""
        ids = possible_ids(text)
        found = self._saved({"_id": {"$in": ids}}) or self._of_chunks(ids)
        if not found:
            found = self._saved({"original": {"$in": ids}, "chunk_ids": {"$exists": True}})
            saved = {identity(explained.transcript.id) for explained in found}
            aside = self._aside({"original_id": {"$in": ids}})
            found += [a for a in aside if identity(a.transcript.id) not in saved]
        found.sort(key=lambda explained: explained.transcript.start)
        return found

    def _of_chunks(self, ids: Sequence[Any]) -> list[models.Explained]:
        query = {"_id": {"$in": ids}}
        fields = {"original_id": 1, "stt.dropped_with": 1}
        for chunk in self._call(lambda: list(self._chunks.find(query, fields))):
            holder = mapping.nested(chunk, "stt.dropped_with")
            found = self._saved(owners(chunk.get("original_id"), [chunk["_id"]]))
            found = found or self._aside({"_id": chunk["_id"] if holder is None else holder})
            if found:
                return found
        return []

    def _saved(self, query: Document) -> list[models.Explained]:
        cursor = self._transcriptions.find(query, limit=_MAX_TRANSCRIPTS)
        return self._explained(self._call(lambda: list(cursor.clone())), is_saved=True)

    def _aside(self, query: Document) -> list[models.Explained]:
        aside = {**query, "stt.dropped": {"$exists": True}}
        cursor = self._chunks.find(aside, {"stt.dropped": 1}, limit=_MAX_TRANSCRIPTS)
        chunks = self._call(lambda: list(cursor.clone()), seconds=None)
        return self._explained([chunk["stt"]["dropped"] for chunk in chunks], is_saved=False)

    def _explained(self, found: list[Document], *, is_saved: bool) -> list[models.Explained]:
        ids = [chunk_id for document in found for chunk_id in document.get("chunk_ids", ())]
        cursor = self._chunks.find({"_id": {"$in": ids}}, _DETECTED)
        chunks = {
            identity(chunk["_id"]): chunk for chunk in self._call(lambda: list(cursor.clone()))
        }
        return [
            mapping.explained(
                document,
                [chunks[i] for i in map(identity, document.get("chunk_ids", ())) if i in chunks],
                is_saved=is_saved,
            )
            for document in found
        ]

    def restore(self, explained: models.Explained, places: Collection[int] | None = None) -> int:
        """Put dropped segments back, all or those at these places; returns how many.

        What was set aside as a whole becomes a transcript. Doing it again changes nothing.

        Raises:
            InputError: another transcript owns the chunks, or it was changed meanwhile.
        """
        record = explained.transcript
        if explained.is_saved:
            return self._put_back(record, places)
        held = self._call(
            lambda: self._chunks.find_one({"_id": record.chunk_ids[0]}, {"stt.dropped": 1})
        )
        document = mapping.nested(held or {}, "stt.dropped")
        segments = mapping.restored(document, places) if document else None
        if segments is None:
            return 0
        self._save_aside({**document, **segments})
        self._forget(record.chunk_ids)
        return len(segments["segments"])

    def _put_back(self, record: models.Transcript, places: Collection[int] | None) -> int:
        query = {"_id": record.id}
        document = self._call(lambda: self._transcriptions.find_one(query))
        segments = mapping.restored(document, places) if document else None
        if document is None or segments is None:
            return 0
        unchanged = {
            **query,
            "segments": document["segments"],
            "dropped_segments": document["dropped_segments"],
        }
        done = self._call(lambda: self._transcriptions.update_one(unchanged, {"$set": segments}))
        if not done.matched_count and not self._is_there({**query, **segments}):
            raise InputError(f"transcript {record.id} was changed by somebody else: try again")
        return len(document["dropped_segments"]) - len(segments["dropped_segments"])

    def _save_aside(self, document: Document) -> None:
        try:
            self._call(lambda: self._transcriptions.insert_one(document))
        except mongo_errors.DuplicateKeyError:
            if not self._is_there({"_id": document["_id"]}):
                raise InputError(
                    "another transcript owns these chunks by now: explain that one instead"
                ) from None

    def _is_there(self, query: Document) -> bool:
        return self._call(lambda: self._transcriptions.find_one(query, {"_id": 1})) is not None

    def _forget(self, ids: Sequence[Any]) -> None:
        """The transcript holds it now."""
        query = {"_id": {"$in": list(ids)}}
        gone: list[Document] = [{"$unset": ["stt.dropped", "stt.dropped_with"]}, WITHOUT_EMPTY_STT]
        self._call(lambda: self._chunks.update_many(query, gone))

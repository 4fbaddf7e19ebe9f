"""The collection `transcriptions`: saving, replacing, and reading what was said.

A unique index forbids a second transcript for a chunk. A transcript is replaced by one atomic
operation on its document, so that readers see the old text or the new one, never two, never none.
"""

from collections.abc import Hashable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bson import ObjectId
from pymongo import InsertOne

from stt_lib.domain.models import (
    ALL,
    OldTranscript,
    Origin,
    Revision,
    Selection,
    Transcript,
    identity,
)
from stt_lib.domain.utterances import Stretch, stretch
from stt_lib.errors import WriteRefused
from stt_lib.store import mapping
from stt_lib.store.chunks import durably_owned, owners
from stt_lib.store.database import Database, Document, is_duplicate
from stt_lib.store.group_commit import GroupCommit
from stt_lib.store.ids import possible_ids
from stt_lib.store.indexes import OWNER, Indexes
from stt_lib.telemetry.formatters import shown_id
from stt_lib.timing import Timing

HISTORY: Final = "transcriptions_history"
"""Collection of replaced texts, each under `{transcript, revision}`."""

_PAGE: Final = 100
"""Transcripts read at once; each holds minutes of speech."""

_LONGEST: Final = timedelta(hours=1)
"""Longer than any transcript: one that began earlier than this before a span does not reach it."""

_ORIGIN: Final = ("model", "server", "protocol", "language", "version")
_LISTED: Final = dict.fromkeys(["original", "start", "chunk_ids", "revision", "stt", *_ORIGIN], 1)
_SAID: Final = dict.fromkeys(["original", "start", "segments", "language", "model"], 1)


class Transcripts:
    """Each chunk is owned by one transcript, and each revision is written once."""

    def __init__(self, database: Database, indexes: Indexes, timing: Timing) -> None:
        self._db = database
        self._indexes = indexes
        self._saving: GroupCommit[Any, Document | None] = GroupCommit(self._insert, timing)

    # -- saving -------------------------------------------------------------------------------

    def new_id(self) -> ObjectId:
        """An id for a transcript, made before the first attempt to save under it."""
        return ObjectId()

    def save(self, transcript: Transcript) -> bool:
        """Insert a transcript, durably; False when another one owns some of its chunks.

        Repeating it with the same transcript is harmless: it is recognised by its id.

        Raises:
            WriteRefused: a validator or an index of somebody else's forbids it.
        """
        document = self._db.encoded(mapping.transcript(transcript, datetime.now(UTC)))
        refusal = self._saving.submit(document)
        if refusal is None or self._db.has(self._db.transcriptions, {"_id": transcript.id}):
            return True
        if refusal.get("keyPattern") == dict(OWNER.keys):
            return False
        raise self._refused(refusal, transcript)

    def _insert(self, documents: Sequence[Any]) -> list[Document | None]:
        inserts = [InsertOne(document) for document in documents]
        return self._db.bulk(self._db.transcriptions, inserts)

    def _refused(self, refusal: Document, transcript: Transcript) -> WriteRefused:
        if not is_duplicate(refusal):
            return self._db.refused(refusal, transcript.chunk_ids)
        fields = ", ".join(refusal.get("keyPattern", {}))
        return WriteRefused(
            f"a unique index on ({fields}) of transcriptions, which stt did not create,"
            " forbids saving this transcript: drop that index",
            transcript.chunk_ids,
        )

    def owned(self, original_id: Any, ids: Sequence[Any]) -> set[Hashable]:
        """Which of these chunks (by `identity`) a durably saved transcript owns."""
        return durably_owned(self._db, original_id, ids)

    def of_chunk(self, original_id: Any, chunk_id: Any) -> Transcript | None:
        """The transcript that owns a chunk, if there is one and it can be read."""
        found = self._db.find(self._db.transcriptions, owners(original_id, [chunk_id]))
        return next(self._db.readable(found, mapping.read_transcript), None)

    # -- re-transcription ---------------------------------------------------------------------

    def count_by_origin(self, selection: Selection) -> list[tuple[Origin, int]]:
        """How many transcripts there are of each origin."""
        origin = {name: f"${name}" for name in _ORIGIN}
        stages: list[Document] = [
            {"$match": _selected(selection)},
            {"$group": {"_id": origin, "count": {"$sum": 1}}},
        ]
        rows = self._db.run(lambda: list(self._db.transcriptions.aggregate(stages)), seconds=None)
        return [(mapping.origin(row["_id"]), row["count"]) for row in rows]

    def to_retranscribe(
        self, selection: Selection, *, before: datetime | None = None
    ) -> Iterator[OldTranscript]:
        """Stream transcripts without their text, newest first, from `before` backwards.

        May raise errors of the driver half-way: call through `with_retries`, and start again.
        """
        query = _selected(selection)
        if before is not None:
            query = {"$and": [query, {"start": {"$lte": before}}]}
        cursor = self._db.transcriptions.find(
            query, _LISTED, sort=[("start", -1)], batch_size=200, allow_disk_use=True
        )
        yield from self._db.readable(cursor, mapping.old_transcript)  # as in `Chunks.pending`

    def is_current(self, revision: Revision) -> bool:
        """Whether a transcript still has this revision."""
        return self._db.has(self._db.transcriptions, _of(revision))

    def note_nothing_heard(self, revision: Revision, model: str | None) -> None:
        """Note the model that found no speech where this revision has text."""
        note = {"model": {"$literal": model}, "at": "$$NOW"}
        update: list[Document] = [{"$unset": "stt.claim"}, {"$set": {"stt.heard_nothing": note}}]
        self._db.run(lambda: self._db.transcriptions.update_one(_of(revision), update))

    def replace(self, transcript: Transcript) -> bool:
        """Put a transcript in place of its last revision; False when that is no longer there.

        May be repeated at any point: the copy in the history has a name of its own for each
        revision, and a replacement that happened already is recognised by the id of its write.
        """
        last = Revision(transcript.id, transcript.revision - 1)
        new = {**mapping.transcript(transcript, datetime.now(UTC)), "write_id": ObjectId()}
        old = {**_of(last), "chunk_ids": new["chunk_ids"]}  # the same audio: one in, one out
        self._copy_to_history(old, last)
        if self._db.run(lambda: self._db.transcriptions.replace_one(old, new)).matched_count:
            return True
        return self._was_written(Revision(transcript.id, transcript.revision), new["write_id"])

    def _was_written(self, revision: Revision, write_id: ObjectId) -> bool:
        """Whether this write made the revision, which may have been replaced since."""
        mine = {"write_id": write_id}
        if self._db.has(self._db.transcriptions, {"_id": revision.transcript_id, **mine}):
            return True
        return self._db.has(self._db.raw[HISTORY], {"_id": _in_history(revision), **mine})

    def _copy_to_history(self, old: Document, last: Revision) -> None:
        """Within MongoDB, so that the copy is exact."""
        name = _in_history(last)
        into = {"into": HISTORY, "on": "_id", "whenMatched": "replace", "whenNotMatched": "insert"}
        stages: list[Document] = [
            {"$match": old},
            {"$set": {"_id": {"$literal": name}, "replaced_at": "$$NOW"}},
            {"$unset": "stt"},
            {"$merge": into},
        ]
        self._db.run(lambda: list(self._db.transcriptions.aggregate(stages)))

    # -- for readers --------------------------------------------------------------------------

    def all(self) -> list[Transcript]:
        """All transcripts, oldest first."""
        found = self._db.find(self._db.transcriptions, {}, sort=[("start", 1)])
        return list(self._db.readable(found, mapping.read_transcript))

    def has_any(self, recording: str) -> bool:
        """Whether some of a recording is transcribed."""
        query = {"original": {"$in": possible_ids(recording)}, "chunk_ids": {"$exists": True}}
        return self._db.has(self._db.transcriptions, query)

    def stretches(self, selection: Selection = ALL) -> Iterator[Stretch]:
        """Stream transcripts by their start.

        Of those at the edges of the selected span, only the utterances that begin in it.
        """
        documents = self._oldest_first(said_in(selection))
        read = self._db.readable(documents, lambda document: stretch(document, shown_id))
        for found in filter(None, read):
            inside = tuple(u for u in found.utterances if _is_within(u.start, selection))
            if inside:
                yield Stretch(found.start, inside)

    def _oldest_first(self, query: Document) -> Iterator[Document]:
        """Page by page, so that MongoDB may go away in between and come back."""
        seen: set[Hashable] = set()
        while page := self._page(query, seen):
            yield from page
            last = page[-1]["start"]
            if last != query["start"].get("$gte"):
                seen.clear()
            seen.update(identity(d["_id"]) for d in page if d["start"] == last)
            query = {**query, "start": {**query["start"], "$gte": last}}

    def _page(self, query: Document, seen: set[Hashable]) -> list[Document]:
        """What comes next; `seen` are those with the first start that were read before."""
        options: Document = {"sort": [("start", 1)], "limit": _PAGE + len(seen)}
        # There is no time limit: without an index, MongoDB has to sort everything.
        found = self._db.find(
            self._db.transcriptions, query, _SAID, seconds=None, allow_disk_use=True, **options
        )
        return [document for document in found if identity(document["_id"]) not in seen]

    def versions(self, selection: Selection = ALL) -> dict[str, str]:
        """The recordings with selected transcripts, each with a version of its text.

        The version changes with every transcript that is added, replaced or restored.
        """
        query = said_in(selection)
        if selection.recording is None and (selection.since or selection.until):
            query = {"original": {"$in": [row["_id"] for row in self._by_recording(query, {})]}}
        segments = {"$cond": [{"$isArray": "$segments"}, {"$size": "$segments"}, 0]}
        version: Document = {
            "revisions": {"$sum": {"$ifNull": ["$revision", 1]}},
            "segments": {"$sum": segments},
            "newest": {"$max": "$created_at"},
        }
        versions: dict[str, str] = {}
        rows = self._by_recording(query, version)
        for shown, text in sorted((shown_id(row["_id"]), _version(row)) for row in rows):
            versions[shown] = versions.get(shown, "") + text
        return versions

    def _by_recording(self, query: Document, fields: Document) -> list[Document]:
        stages: list[Document] = [{"$match": query}, {"$group": {"_id": "$original", **fields}}]
        return self._db.run(lambda: list(self._db.transcriptions.aggregate(stages)), seconds=None)


def _selected(selection: Selection) -> Document:
    query: Document = {}
    if selection.since is not None:
        query["start"] = {"$gte": selection.since}
    if selection.until is not None:
        query["start"] = {**query.get("start", {}), "$lt": selection.until}
    if selection.recording is not None:
        query["original"] = {"$in": possible_ids(selection.recording)}
    return query


def _of(revision: Revision) -> Document:
    number = revision.number if revision.number > 1 else {"$in": [1, None]}
    return {"_id": revision.transcript_id, "revision": number}


def _in_history(revision: Revision) -> Document:
    """The `_id` of a revision's copy in the history."""
    return {"transcript": revision.transcript_id, "revision": revision.number}


def said_in(selection: Selection) -> Document:
    """The transcripts that may reach into the selected span, of one recording or of all."""
    earliest = datetime.min if selection.since is None else _before(selection.since)
    query = _selected(selection)
    return {**query, "start": {**query.get("start", {}), "$gte": earliest}}


def _version(row: Document) -> str:
    return f"{row['revisions']}/{row['segments']}/{row['newest']};"


def _before(since: datetime) -> datetime:
    try:
        return since - _LONGEST
    except OverflowError:
        return datetime.min


def _is_within(moment: datetime, selection: Selection) -> bool:
    since, until = selection.since, selection.until
    return (since is None or since <= moment) and (until is None or moment < until)

"""The archive: transcripts for readers, oldest first, however many there are."""

from collections.abc import Hashable, Iterator
from datetime import datetime, timedelta
from typing import Final

from stt_lib.domain.models import identity
from stt_lib.domain.utterances import Stretch, stretch
from stt_lib.store.database import Document
from stt_lib.store.ids import possible_ids, shown_id
from stt_lib.store.indexes import Schema

_PAGE: Final = 100
"""Transcripts read at once; each holds minutes of speech."""

_LONGEST: Final = timedelta(hours=1)
"""Longer than any transcript: one that began so long before a span reaches into it no more."""

_FIELDS: Final = dict.fromkeys(["original", "start", "segments", "language", "model"], 1)


class Archive(Schema):
    """Reading what was said."""

    def stretches(
        self,
        recording: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Stretch]:
        """Stream transcripts by their start, of one recording or of all, within a span of time.

        Of those at the edges of the span only the utterances that begin in it are there.
        """
        for document in self._oldest_first(_query(recording, since, until)):
            found = stretch(document, shown_id)
            said = found.utterances if found else ()
            inside = tuple(u for u in said if _is_within(u.start, since, until))
            if found and inside:
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
        """What comes next; `seen` are those that begin with the span and were read before."""
        cursor = self._transcriptions.find(
            query, _FIELDS, sort=[("start", 1)], limit=_PAGE + len(seen), allow_disk_use=True
        )
        # Without an index MongoDB has to sort, which takes what it takes.
        found = self._call(lambda: list(cursor.clone()), seconds=None)
        return [document for document in found if identity(document["_id"]) not in seen]

    def beginning(self, recording: str) -> datetime | None:
        """When the first chunk of a recording began, silence or not, as long as it is there."""
        if not self._is_indexed("stt_place"):
            return None
        chunks = {"original_id": {"$in": possible_ids(recording)}, "index": {"$type": "number"}}
        fields, order = {"start": 1}, [("index", 1)]
        first = self._call(lambda: self._chunks.find_one(chunks, fields, sort=order))
        start = (first or {}).get("start")
        return start if isinstance(start, datetime) else None


def _query(recording: str | None, since: datetime | None, until: datetime | None) -> Document:
    start: Document = {"$gte": datetime.min if since is None else _before(since)}
    if until is not None:
        start["$lt"] = until
    of = {} if recording is None else {"original": {"$in": possible_ids(recording)}}
    return {**of, "start": start}


def _before(since: datetime) -> datetime:
    try:
        return since - _LONGEST
    except OverflowError:
        return datetime.min


def _is_within(moment: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or since <= moment) and (until is None or moment < until)

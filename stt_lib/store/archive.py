"""The archive: transcripts for readers, oldest first, however many there are."""

from collections.abc import Hashable, Iterator
from datetime import datetime, timedelta
from typing import Final

from stt_lib.documents import identity
from stt_lib.model import NOMINAL_CHUNK_SECONDS
from stt_lib.store.connection import Connection, Document
from stt_lib.store.ids import possible_ids, shown_id
from stt_lib.utterances import Stretch, stretch

_PAGE: Final = 100
"""Transcripts read at once; each holds minutes of speech."""

_LONGEST: Final = timedelta(hours=1)
"""Longer than any transcript: one that began so long before a span reaches into it no more."""

_FIELDS: Final = dict.fromkeys(["original", "start", "segments", "language", "model"], 1)


class Archive(Connection):
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
        """When a recording began, silence before the first words included.

        Its first transcript owns a chunk whose index says how many went before. None when there
        is no such transcript or chunk any more.
        """
        query = _query(recording, None, None)
        first = self._call(
            lambda: self._transcriptions.find_one(query, {"chunk_ids": 1}, sort=[("start", 1)]),
            seconds=None,
        )
        chunk_ids = (first or {}).get("chunk_ids")
        if not isinstance(chunk_ids, list) or not chunk_ids:
            return None
        ends = {"_id": {"$in": [chunk_ids[0], chunk_ids[-1]]}}
        fields = {"index": 1, "start": 1}
        chunks = self._call(lambda: list(self._chunks.find(ends, fields, sort=[("index", 1)])))
        return _extrapolated([c for c in chunks if _is_placed(c)])


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


def _is_placed(chunk: Document) -> bool:
    return isinstance(chunk.get("index"), int | float) and isinstance(chunk.get("start"), datetime)


def _extrapolated(chunks: list[Document]) -> datetime | None:
    """The start of chunk 0, at the pace of these chunks, oldest first."""
    if not chunks:
        return None
    first, last = chunks[0], chunks[-1]
    began: datetime = first["start"]
    steps: float = last["index"] - first["index"]
    pace: float = (last["start"] - began).total_seconds() / steps if steps else 0.0
    if not 0 < pace < 10 * NOMINAL_CHUNK_SECONDS:  # one chunk, or a clock that jumped
        pace = NOMINAL_CHUNK_SECONDS
    try:
        return began - timedelta(seconds=pace * max(first["index"], 0))
    except (OverflowError, ValueError):
        return began

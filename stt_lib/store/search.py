"""Full-text search over the collection `transcriptions`.

Saving a transcript must not pay for an index that nobody uses, so the first search that needs
it creates the text index, never the worker.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from stt_lib.domain.models import Selection, identity
from stt_lib.domain.search import Query, is_spaced
from stt_lib.domain.utterances import Stretch, stretch
from stt_lib.errors import ConfigurationError, StoreError, StoreUnavailable
from stt_lib.store.database import Database, Document, short
from stt_lib.store.transcripts import said_in
from stt_lib.telemetry.events import Event
from stt_lib.telemetry.formatters import shown_id
from stt_lib.timing import Timing

log = logging.getLogger("stt")

INDEX: Final = "stt_search"
_OPTIONS: Final[Document] = {
    # A language that MongoDB does not know, in the field `language` of a transcript or a segment,
    # would make it refuse the transcript.
    "default_language": "none",
    "language_override": "stt_text_language",
}

RECENT: Final = 500
"""Transcripts. The newest ones are read without the index, so that frequent words, for which it
would return nearly everything, are found at once."""

SECONDS: Final = 5.0
"""Seconds. Maximum duration of a search, without building the index."""

_INDEX_SECONDS: Final = 1.0
"""Seconds. Time for the index to name all transcripts with a word; more means a frequent word,
which reading the newest transcripts finds sooner."""

_PAGE: Final = 200
"""Transcripts read at once, of those that the index names."""

_WINDOW: Final = 5000
"""Transcripts among which MongoDB looks at once without the index."""

_READ: Final = ("text", "start", "end", "start_at", "end_at")
_SAID: Final = dict.fromkeys(["original", "start", *(f"segments.{name}" for name in _READ)], 1)

Batch = tuple[list[Document], datetime | None]
"""Documents, and the start down to which all transcripts were searched; None if none is left."""


@dataclass(frozen=True, slots=True)
class Page:
    """Transcripts, newest first, that contain what is searched for.

    All transcripts back to `reached` were searched; None if none is left.
    """

    stretches: list[Stretch]
    reached: datetime | None


class Search:
    """Finds transcripts by their words."""

    def __init__(self, database: Database, timing: Timing) -> None:
        self._db = database
        self._timing = timing

    def pages(self, query: Query, since: datetime | None, until: datetime | None) -> Iterator[Page]:
        """Stream what is found, newest first, for a limited time.

        Everything was searched if, and only if, the last page has reached the end.
        """
        span = said_in(Selection(since, until))
        for documents, reached in self._newest_first(query.rarest, span):
            found = [document for document in documents if query.is_in(_text(document))]
            read = self._db.readable(found, lambda document: stretch(document, shown_id))
            yield Page(list(filter(None, read)), reached)

    def _newest_first(self, word: str, span: Document) -> Iterator[Batch]:
        recent = self._read(span, limit=RECENT)
        if len(recent) == RECENT:
            yield recent, recent[-1]["start"]
            older = {**span["start"], "$lte": recent[-1]["start"]}
            seen = {identity(document["_id"]) for document in recent}
            is_indexed = is_spaced(word) and self._ensure_index()
            end = self._timing.monotonic() + SECONDS
            for documents, reached in self._older(word, older, is_indexed=is_indexed):
                yield [d for d in documents if identity(d["_id"]) not in seen], reached
                if reached is not None and self._timing.monotonic() >= end:
                    return
            recent = []
        yield recent, None

    def _older(self, word: str, start: Document, *, is_indexed: bool) -> Iterator[Batch]:
        named = self._containing(word, start) if is_indexed else None
        if named is None:
            yield from self._windows(word, start)
            return
        for at in range(0, len(named), _PAGE):
            page = named[at : at + _PAGE]
            yield self._read({"_id": {"$in": [row["_id"] for row in page]}}), page[-1]["start"]

    def _windows(self, word: str, start: Document) -> Iterator[Batch]:
        """Go through all transcripts; MongoDB leaves out those without the word if it can."""
        contains = _contains(word)
        size = _WINDOW if contains else RECENT
        while last := self._read({"start": start}, {"start": 1}, skip=size - 1, limit=1):
            lowest = last[0]["start"]
            yield self._read({"start": {**start, "$gte": lowest}, **contains}), lowest
            start = {"$gte": start["$gte"], "$lt": lowest}
        yield self._read({"start": start, **contains}), None

    def _read(self, query: Document, fields: Document = _SAID, **options: Any) -> list[Document]:
        return self._db.find(
            self._db.transcriptions,
            query,
            fields,
            seconds=None,
            sort=[("start", -1)],
            allow_disk_use=True,
            **options,
        )

    def _containing(self, word: str, start: Document) -> list[Document] | None:
        """Ids and starts of the transcripts with a word, newest first; None if that takes long."""
        stages: list[Document] = [
            {"$match": {"start": start, "$text": {"$search": word}}},
            {"$project": {"start": 1}},
            {"$sort": {"start": -1}},
        ]
        found = self._db.transcriptions
        try:
            return self._db.run(
                lambda: list(found.aggregate(stages)), seconds=_INDEX_SECONDS, wait=0
            )
        except StoreUnavailable:
            return None

    def _ensure_index(self) -> bool:
        """Create the text index if it is missing; False if that is impossible."""
        collection = self._db.transcriptions
        keys = [("segments.text", "text")]
        try:
            if INDEX not in self._db.run(collection.index_information):
                log.warning("Building the search index, once", extra=Event.INDEX.of())
                self._db.run(
                    lambda: collection.create_index(keys, name=INDEX, **_OPTIONS), seconds=None
                )
        except (ConfigurationError, StoreError) as error:
            log.warning(
                "The search index cannot be created, so searching is slow: %s",
                short(error),
                extra=Event.INDEX.of(),
            )
            return False
        return True


def _contains(word: str) -> Document:
    """Restrict a query to transcripts with a word, where MongoDB compares letters as we do.

    It does not for scripts with accents. Ignoring case costs five times as much.
    """
    if is_spaced(word):
        return {}
    case = "" if word.lower() == word.upper() else "i"
    return {"segments.text": {"$regex": re.escape(word), "$options": case}}


def _text(document: Document) -> str:
    segments = document.get("segments")
    found = segments if isinstance(segments, list) else []
    return " ".join(str(segment.get("text")) for segment in found if isinstance(segment, dict))

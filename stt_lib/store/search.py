"""Full-text search over the collection `transcriptions`.

Saving a transcript must not pay for an index that nobody uses, so the first search that needs
it creates the text index, never the worker.
"""

import logging
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from stt_lib.domain.models import identity
from stt_lib.domain.search import Query, is_spaced
from stt_lib.domain.utterances import Stretch, stretch
from stt_lib.errors import ConfigurationError, StoreError
from stt_lib.store.database import Database, Document, short
from stt_lib.store.ids import shown_id
from stt_lib.store.transcripts import said_in
from stt_lib.telemetry.events import Event

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

_PAGE: Final = 50
"""Transcripts read at once."""

_READ: Final = ("text", "start", "end", "start_at", "end_at")
_SAID: Final = dict.fromkeys(["original", "start", *(f"segments.{name}" for name in _READ)], 1)


class Search:
    """Finds transcripts by their words."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def candidates(
        self, query: Query, since: datetime | None, until: datetime | None
    ) -> Iterator[Stretch]:
        """Stream the transcripts, newest first, that contain what is searched for."""
        span = said_in(None, since, until)
        documents = (d for d in self._newest_first(query.rarest, span) if query.is_in(_text(d)))
        yield from filter(
            None, self._db.readable(documents, lambda document: stretch(document, shown_id))
        )

    def _newest_first(self, word: str, span: Document) -> Iterator[Document]:
        recent = self._read(span, limit=RECENT)
        yield from recent
        if len(recent) < RECENT:
            return
        seen = {identity(document["_id"]) for document in recent}
        older = {"start": {**span["start"], "$lte": recent[-1]["start"]}}
        found = [id_ for id_ in self._containing(word, older) if identity(id_) not in seen]
        for at in range(0, len(found), _PAGE):
            yield from self._read({"_id": {"$in": found[at : at + _PAGE]}})

    def _read(self, query: Document, **options: Any) -> list[Document]:
        return self._db.find(
            self._db.transcriptions,
            query,
            _SAID,
            seconds=None,
            sort=[("start", -1)],
            allow_disk_use=True,
            **options,
        )

    def _containing(self, word: str, span: Document) -> list[Any]:
        """Ids of the transcripts with a word, newest first."""
        contains: Document = {"segments.text": {"$regex": re.escape(word), "$options": "i"}}
        if is_spaced(word) and self._ensure_index():
            contains = {"$text": {"$search": word}}
        stages: list[Document] = [
            {"$match": {**span, **contains}},
            {"$project": {"start": 1}},
            {"$sort": {"start": -1}},
        ]
        rows = self._db.run(lambda: list(self._db.transcriptions.aggregate(stages)), seconds=None)
        return [row["_id"] for row in rows]

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
                "The search index cannot be created, so that searching is slow: %s",
                short(error),
                extra=Event.INDEX.of(),
            )
            return False
        return True


def _text(document: Document) -> str:
    segments = document.get("segments")
    found = segments if isinstance(segments, list) else []
    return " ".join(str(segment.get("text")) for segment in found if isinstance(segment, dict))

"""What happens lately: how much arrives, is transcribed and fails, and who is at work.

Reading only. Each number is counted in an index, however large the collection; without our
indexes MongoDB has to read the documents, once for all numbers.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from stt_lib.domain import models
from stt_lib.store import mapping
from stt_lib.store.database import Document
from stt_lib.store.failures import Failures
from stt_lib.store.indexes import FAILED, NEWEST_FIRST, PENDING, PLAN, WORKABLE
from stt_lib.store.mapping import nested

SPEECH: Final[Document] = {"vad.has_speech": True}
CLAIM_HORIZON: Final = 50_000
"""Claims are looked for among so many chunks, in the order in which workers take them: to look at
all of a million takes a second."""

_OLDEST_FIRST: Final = [(name, -direction) for name, direction in NEWEST_FIRST]
_TIMES: Final = {"arrived": "ingested_at", "transcribed": "transcribed_at"}
_INDEXES: Final = {"arrived": "stt_arrived", "transcribed": "stt_done"}


class Activity(Failures):
    """Counts over time."""

    @property
    def counts_quickly(self) -> bool:
        """Whether the indexes are there that make counting a matter of milliseconds."""
        return all(map(self._is_indexed, ("stt_pending", "stt_failed", *_INDEXES.values())))

    def activity(self, spans: Sequence[models.Span]) -> list[models.Activity]:
        """What arrived, was transcribed and failed for the last time in each of these spans."""
        if all(map(self._is_indexed, _INDEXES.values())):
            done = [[self._count(what, span) for what in _TIMES] for span in spans]
        else:
            done = self._call(lambda: self._read_counts(spans), seconds=None)
        failed = self._failures_in(spans)
        return [
            models.Activity(came, went, lost)
            for (came, went), lost in zip(done, failed, strict=True)
        ]

    def _count(self, what: str, span: models.Span) -> int:
        query = {**SPEECH, _TIMES[what]: {"$gte": span.since, "$lt": span.until}}
        return self._call(lambda: self._count_keys(query, _INDEXES[what]), seconds=None)

    def _read_counts(self, spans: Sequence[models.Span]) -> list[list[int]]:
        sums = {
            f"{what}{number}": _within(f"${path}", span)
            for number, span in enumerate(spans)
            for what, path in _TIMES.items()
        }
        stages: list[Document] = [{"$match": SPEECH}, {"$group": {"_id": None, **sums}}]
        row = next(iter(self._chunks.aggregate(stages)), {})
        return [[row.get(f"{what}{n}", 0) for what in _TIMES] for n in range(len(spans))]

    def _failures_in(self, spans: Sequence[models.Span]) -> list[int]:
        sums = {f"failed{n}": _within("$stt.error.at", span) for n, span in enumerate(spans)}
        stages: list[Document] = [{"$group": {"_id": None, **sums}}]
        rows = self._call(lambda: self._aggregate_failed(stages), seconds=None)
        return [(rows[0] if rows else {}).get(name, 0) for name in sums]

    def first_done_since(self, moment: datetime) -> datetime | None:
        """When the first chunk was transcribed that was so since then."""
        query = {**SPEECH, "transcribed_at": {"$gte": moment}}
        first = self._call(
            lambda: self._chunks.find_one(
                query,
                {"_id": 0, "transcribed_at": 1},
                sort=[("transcribed_at", 1)],
                hint="stt_done" if self._is_indexed("stt_done") else None,
            ),
            seconds=None,
        )
        return first["transcribed_at"] if first else None

    def last_done(self) -> datetime | None:
        """When a chunk was last transcribed or found empty; None also without our index."""
        if not self._is_indexed("stt_done"):
            return None
        query = {**SPEECH, "transcribed_at": {"$gte": datetime.min.replace(tzinfo=UTC)}}
        newest = [("transcribed_at", -1)]
        last = self._call(
            lambda: self._chunks.find_one(
                query, {"_id": 0, "transcribed_at": 1}, sort=newest, hint="stt_done"
            )
        )
        return last["transcribed_at"] if last else None

    def first_and_last_pending(self, limit: int) -> tuple[list[models.ChunkRef], ...]:
        """The first so many pending chunks in the order of work, and the last so many; both so."""
        first = self._call(lambda: self._some_pending(NEWEST_FIRST, limit), seconds=None)
        last = self._call(lambda: self._some_pending(_OLDEST_FIRST, limit), seconds=None)
        return first, last[::-1]

    def _some_pending(self, order: list[tuple[str, int]], limit: int) -> list[models.ChunkRef]:
        is_indexed = self._is_indexed("stt_pending")
        cursor = self._chunks.find(
            {} if is_indexed else WORKABLE,
            PLAN,
            sort=order,
            limit=limit,
            batch_size=limit,
            hint="stt_pending" if is_indexed else None,
            allow_disk_use=None if is_indexed else True,  # it would sort audio and all
        )
        return [mapping.chunk_ref(document) for document in cursor]

    # -- who is at work -----------------------------------------------------------------------

    def holders(self) -> list[models.Holder]:
        """The workers that hold claims now, those with most chunks first."""
        claims = self._call(self._claims, seconds=None)
        by_name: dict[str, list[Document]] = {}
        for claim in claims:
            worker = str(claim.get("by")).rpartition("/")[0] or str(claim.get("by"))
            by_name.setdefault(worker, []).append(claim)
        found = [mapping.holder(name, held) for name, held in by_name.items()]
        return sorted(found, key=lambda holder: (-holder.chunks, holder.worker))

    def _claims(self) -> list[Document]:
        now = self._hello()["localTime"]
        live: Document = {"stt.claim.until": {"$gt": now}}
        ids: list[Any] = []
        for index, states in (("stt_pending", WORKABLE), ("stt_failed", FAILED)):
            stages: list[Document] = [{"$match": live}, {"$project": {"_id": 1}}]
            if self._is_indexed(index):
                stages = [{"$sort": dict(NEWEST_FIRST)}, {"$limit": CLAIM_HORIZON}, *stages]
                found = self._chunks.aggregate(stages, hint=index)
            else:
                found = self._chunks.aggregate([{"$match": states}, *stages])
            ids += [document["_id"] for document in found]
        query = {"_id": {"$in": ids}, **PENDING, **live}
        return [nested(d, "stt.claim") for d in self._chunks.find(query, {"stt.claim": 1})]


def _within(path: str, span: models.Span) -> Document:
    """How many dates at this path lie in a span."""
    is_within = {"$and": [{"$gte": [path, span.since]}, {"$lt": [path, span.until]}]}
    return {"$sum": {"$cond": [is_within, 1, 0]}}

"""Claims: who works on which chunks, one small document for each sequence.

A claim is never a field on a chunk: a chunk carries its audio, and MongoDB would rewrite and
journal all of it. A unique index on `chunk_ids` makes a claim all or nothing. The document is the
mutex; the time in `until` only permits its deletion, which every planner does before it plans.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from pymongo import UpdateOne

from stt_lib.domain.models import ChunkSequence, Holder, identity
from stt_lib.store import mapping
from stt_lib.store.database import Database, Document, is_duplicate, unwaited
from stt_lib.store.group_commit import GroupCommit
from stt_lib.timing import Timing

CLOCK_ERROR_MS: Final = 60_000
"""Milliseconds. A claim that lasts longer than this and its lease comes from a wrong clock."""

_LEASE: Final[Document] = {"$cond": [{"$isNumber": "$lease_ms"}, "$lease_ms", 0]}
_HAS_EXPIRED: Final[Document] = {
    "$or": [
        {"$lte": ["$until", "$$NOW"]},
        {"$gt": ["$until", {"$add": ["$$NOW", _LEASE, CLOCK_ERROR_MS]}]},
    ]
}


class Claims:
    """Every claim on chunks, whoever holds it."""

    def __init__(self, database: Database, lease: float, timing: Timing) -> None:
        """`lease` in seconds: how long a claim lasts unless it is renewed."""
        self._db = database
        self._lease_ms = round(lease * 1000)
        self._acquiring: GroupCommit[UpdateOne, bool] = GroupCommit(self._upsert, timing)
        self._releasing: GroupCommit[str, None] = GroupCommit(self._delete, timing)

    def acquire(self, sequence: ChunkSequence, token: str, worker: str) -> bool:
        """Claim all chunks of a sequence; False when another claim holds one of them.

        It waits for a majority and its journal: a claim that a failover undoes lets the same
        audio be paid for twice.
        """
        facts = {
            "chunk_ids": [chunk.id for chunk in sequence.chunks],
            "original": sequence.original_id,
            "start": sequence.start,
            "end": sequence.newest.start,
            "worker": worker,
        }
        fields: Document = {name: {"$literal": value} for name, value in facts.items()}
        fields |= {"at": {"$ifNull": ["$at", "$$NOW"]}, **self._extended()}
        query, update = self._db.encoded({"_id": token}), self._db.encoded({"$set": fields})
        if self._acquiring.submit(UpdateOne(query, [update], upsert=True)):
            return True
        return self._db.has(self._db.claims, {"_id": token})  # its first try, without an answer

    def _upsert(self, upserts: Sequence[UpdateOne]) -> Sequence[bool | Exception]:
        return list(map(self._verdict, self._db.bulk(self._db.claims, upserts)))

    def _verdict(self, refusal: Document | None) -> bool | Exception:
        if refusal is None:
            return True
        return False if is_duplicate(refusal) else self._db.refused(refusal)

    def _extended(self) -> Document:
        return {"until": {"$add": ["$$NOW", self._lease_ms]}, "lease_ms": self._lease_ms}

    def renew(self, tokens: Collection[str]) -> frozenset[str]:
        """Extend claims by another lease, and never make one; returns those that are gone."""
        query = {"_id": {"$in": list(tokens)}}
        claims = unwaited(self._db.claims)
        extended = [{"$set": self._extended()}]
        matched = self._db.run(lambda: claims.update_many(query, extended)).matched_count
        if matched == len(tokens):
            return frozenset()
        found = self._db.find(claims, query, {"_id": 1})
        return frozenset(tokens).difference(document["_id"] for document in found)

    def release(self, token: str) -> None:
        """Give up a claim; call it after the last mark or failure record is acknowledged."""
        self._releasing.submit(token)

    def _delete(self, tokens: Sequence[str]) -> Sequence[None]:
        query = {"_id": {"$in": list(tokens)}}
        self._db.run(lambda: unwaited(self._db.claims).delete_many(query))
        return [None] * len(tokens)

    def delete_expired(self) -> int:
        """Delete the claims of workers that died or froze; returns how many."""
        # The delete checks its filter again on each document: a renewal meanwhile saves it.
        query = {"$expr": _HAS_EXPIRED}
        return self._db.run(lambda: self._db.claims.delete_many(query)).deleted_count

    def held(self, chunk_ids: Iterable[Any]) -> frozenset[Hashable]:
        """Which of these chunks (by `identity`) are under a claim."""
        ids = list(chunk_ids)
        found = self._db.find(self._db.claims, {"chunk_ids": {"$in": ids}}, {"chunk_ids": 1})
        claimed = {identity(i) for document in found for i in mapping.owned_ids(document)}
        return frozenset(claimed.intersection(map(identity, ids)))

    def is_behind(self, token: str, chunk_id: Any) -> bool:
        """Whether a chunk is held by another claim, older than this one and not expired."""
        query = {"$or": [{"_id": token}, {"chunk_ids": chunk_id}], "$expr": {"$not": _HAS_EXPIRED}}
        found = self._db.find(self._db.claims, query, {"at": 1}, sort=[("at", 1), ("_id", 1)])
        return bool(found) and found[0]["_id"] != token

    def on_chunk(self, chunk_id: Any) -> Document | None:
        """The claim on a chunk, if there is one."""
        return self._db.find_one(self._db.claims, {"chunk_ids": chunk_id})

    def live(self) -> dict[str, datetime]:
        """The token of every claim, and until when it lasts unless it is renewed."""
        return {str(claim["_id"]): claim["until"] for claim in self._all({"until": 1})}

    def holders(self) -> list[Holder]:
        """Who works on what since when: the workers with most chunks first."""
        by_worker: dict[str, list[Document]] = {}
        for claim in self._all({}):
            by_worker.setdefault(str(claim.get("worker")), []).append(claim)
        found = [mapping.holder(worker, claims) for worker, claims in by_worker.items()]
        return sorted(found, key=lambda holder: (-holder.chunks, holder.worker))

    def _all(self, fields: Document) -> list[Document]:
        return self._db.find(self._db.claims, {"until": {"$type": "date"}}, fields)

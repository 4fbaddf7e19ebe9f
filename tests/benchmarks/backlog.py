"""Databases full of pending chunks."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from bson import ObjectId
from pymongo.database import Database

from tests.benchmarks import audio

NEWEST = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)
BATCH = 1200
SMALL_BYTES = 200
LATELY_MS = 10 * 24 * 3600 * 1000

COMMANDS = (
    *("aggregate", "count", "delete", "find", "getMore", "insert"),
    *("killCursors", "listIndexes", "update"),
)

Document = dict[str, Any]


class Backlog:
    """So many pending sequences in a database of their own; the newest `full` with real sizes.

    The others have little audio, for a million chunks of 20 kB would fill a disk.
    """

    def __init__(self, uri: str, name: str, sequences: int, full: int | None = None) -> None:
        self.uri = uri
        self.name = name
        self.sequences = sequences
        self._full = sequences if full is None else full
        self._client: pymongo.MongoClient[Document] = pymongo.MongoClient(uri, tz_aware=True)
        self.db: Database[Document] = self._client[name]

    @property
    def chunks(self) -> int:
        return self.sequences * audio.CHUNKS

    def fill(self) -> None:
        self._client.drop_database(self.name)
        batch: list[Document] = []
        for document in self._documents():
            batch.append(document)
            if len(batch) == BATCH:
                self._insert(batch)
                batch = []
        if batch:
            self._insert(batch)
        self.settle()

    def _insert(self, batch: list[Document]) -> None:
        self.db["audio_chunks"].insert_many(batch, ordered=False)

    def _documents(self) -> Iterator[Document]:
        sounds = audio.sequence()
        small = [audio.chunk(number, SMALL_BYTES)[:SMALL_BYTES] for number in range(audio.CHUNKS)]
        moment = NEWEST
        for number in range(self.sequences):
            recording = ObjectId()
            data = sounds if number < self._full else small
            for index in reversed(range(audio.CHUNKS)):
                yield _chunk(recording, index, moment, data[index])
                moment -= timedelta(seconds=audio.CHUNK_SECONDS)

    def reset(self) -> None:
        """Make everything pending again."""
        self.db["audio_chunks"].update_many(
            {"transcribed_at": {"$ne": None}}, {"$set": {"transcribed_at": None}}
        )
        self.db["transcriptions"].delete_many({})
        self.settle()

    def transcribe_half(self) -> None:
        """Mark the chunks of every other hour, as if it had been done over the last days."""
        is_odd = {"$eq": [{"$mod": [{"$hour": "$start"}, 2]}, 1]}
        ago = {"$mod": [{"$toLong": "$start"}, LATELY_MS]}
        done = [{"$set": {"transcribed_at": {"$subtract": ["$$NOW", ago]}}}]
        self.db["audio_chunks"].update_many({"$expr": is_odd}, done)
        self.settle()

    def settle(self) -> None:
        """Write out what is to be written, so that it does not happen during a measurement."""
        self._client.admin.command("fsync")

    def transcripts(self) -> int:
        return self.db["transcriptions"].count_documents({})

    def traffic(self) -> Counter[str]:
        """Commands on collections and bytes so far, over all connections."""
        status: Document = self._client.admin.command("serverStatus")
        counted = status["metrics"]["commands"]
        commands = sum(counted[name]["total"] for name in COMMANDS)
        bytes_ = {way: status["network"][way] for way in ("bytesIn", "bytesOut")}
        return Counter(commands=commands, **bytes_)

    def close(self) -> None:
        self._client.drop_database(self.name)
        self._client.close()


def _chunk(recording: ObjectId, index: int, start: datetime, data: bytes) -> Document:
    return {
        "_id": ObjectId(),
        "original_id": recording,
        "index": index,
        "start": start,
        "data": data,
        "format": "opus",
        "ingested_at": NEWEST,
        "vad": {"ran_at": NEWEST, "prob": 0.9, "has_speech": True},
        "transcribed_at": None,
    }

"""What a test needs of the world: a database with chunks in it, and the command itself."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
from bson import ObjectId
from pymongo.collection import Collection

from tests.support.leaks import KEY, leaks
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
MOST_TEXTS = 500
START = datetime(2026, 3, 1, 8, 0, 0, tzinfo=UTC)


@dataclass
class World:
    """A database of its own on a running mongod, a log folder, and the worker as a process."""

    uri: str
    folder: Path
    server_url: str = "http://127.0.0.1:9"
    database: str = field(default_factory=lambda: f"test_{uuid.uuid4().hex[:12]}")
    extra_env: dict[str, str] = field(default_factory=dict)
    login: str = ""
    """What workers log in to MongoDB with, as USER:PASSWORD."""

    def __post_init__(self) -> None:
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            self.uri, tz_aware=True
        )
        self.db = self.client[self.database]

    def close(self) -> None:
        leaked = leaks(self.folder, self._texts())
        self.client.drop_database(self.database)
        self.client.close()
        assert leaked == []

    def _texts(self) -> Iterator[str]:
        """What was said, as far as the database knows."""
        for name in ("transcriptions", "transcriptions_history"):
            for document in self.db[name].find({}, {"segments.text": 1}).limit(MOST_TEXTS):
                segments = document.get("segments")
                found = segments if isinstance(segments, list) else []
                texts = (segment.get("text") for segment in found if isinstance(segment, dict))
                yield from (text for text in texts if isinstance(text, str))

    @property
    def chunks(self) -> Collection[dict[str, Any]]:
        return self.db["audio_chunks"]

    @property
    def transcriptions(self) -> Collection[dict[str, Any]]:
        return self.db["transcriptions"]

    @property
    def claims(self) -> Collection[dict[str, Any]]:
        return self.db["stt_claims"]

    def record(
        self,
        indexes: Iterable[int],
        *,
        original_id: Any = None,
        start: datetime = START,
        silent: Iterable[int] = (),
        **more: Any,
    ) -> Any:
        """Insert a recording's chunks, ten seconds apart; returns its original_id."""
        recording = ObjectId() if original_id is None else original_id
        quiet = set(silent)
        self.chunks.insert_many(
            [chunk(recording, i, start, has_speech=i not in quiet, **more) for i in indexes]
        )
        return recording

    @property
    def env(self) -> dict[str, str]:
        basics = ("PATH", "HOME", "LD_LIBRARY_PATH")
        return {
            **{name: os.environ[name] for name in basics if name in os.environ},
            "MONGODB_URI": self.uri.replace("://", f"://{self.login}@" if self.login else "://"),
            "STT_API_KEY": KEY,
            "MONGODB_DATABASE": self.database,
            "STT_SERVER_URL": self.server_url,
            "STT_LOG_FILE": str(self.log_file),
            "STT_DATA_DIR": str(self.folder / "data"),
            "STT_BACKOFF_BASE": "0.05",
            "STT_BACKOFF_MAX": "0.2",
            **self.extra_env,
        }

    @property
    def log_file(self) -> Path:
        return self.folder / "stt.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "stt.py"), *arguments],
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, seconds: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, env=env)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"still running after {seconds} s\n{out}\n{err}") from None
        with (self.folder / "stderr.console").open("a") as console:
            console.write(err)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    # -- the promises -------------------------------------------------------------------------

    def pending(self) -> list[dict[str, Any]]:
        query = {"vad.has_speech": True, "transcribed_at": None}
        return list(self.chunks.find(query, {"data": 0}))

    def owners(self) -> dict[Any, int]:
        """How many transcripts own each chunk."""
        counts: dict[Any, int] = {}
        for document in self.transcriptions.find({}, {"chunk_ids": 1}):
            for chunk_id in document["chunk_ids"]:
                counts[chunk_id] = counts.get(chunk_id, 0) + 1
        return counts

    def assert_all_done(self) -> None:
        """Every speech chunk is marked and in exactly one transcript; nobody holds a claim.

        The claim of a worker that was killed after its marks lasts until its lease has ended.
        """
        assert self.pending() == []
        speech = {d["_id"] for d in self.chunks.find({"vad.has_speech": True}, {"_id": 1})}
        owners = self.owners()
        assert set(owners) == speech
        assert set(owners.values()) <= {1}
        assert list(self.chunks.find({"stt": {"$exists": True}}, {"stt": 1})) == []
        live = {"$expr": {"$gt": ["$until", "$$NOW"]}}
        eventually(lambda: self.claims.count_documents(live) == 0, what="all claims expired")


def chunk(
    recording: Any,
    index: Any,
    start: datetime = START,
    *,
    has_speech: bool = True,
    seconds: float = 10.0,
    **more: Any,
) -> dict[str, Any]:
    """A chunk as an ingester writes it; its audio says which one it is."""
    began = start + timedelta(seconds=seconds * index)
    return {
        "_id": ObjectId(),
        "original_id": recording,
        "index": index,
        "start": began,
        "data": f"{recording}/{index}".encode(),
        "format": "opus",
        "ingested_at": START,
        "vad": {"ran_at": START, "prob": 0.9, "has_speech": has_speech},
        "transcribed_at": None,
        **more,
    }

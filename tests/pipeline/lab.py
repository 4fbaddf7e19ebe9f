"""A run in this process: a store in memory, and STT servers that are functions."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.models import ALL, ChunkSequence, Transcript
from stt_lib.pipeline.heartbeat import Heartbeat
from stt_lib.pipeline.runner import Report, Runner
from stt_lib.pipeline.sinks import ChunkSink, Sink
from stt_lib.pipeline.sources import PendingChunks, Source
from stt_lib.pipeline.worker import Result, Worker
from stt_lib.servers.pool import ServerPool
from stt_lib.servers.protocols import Options
from stt_lib.servers.transport import Reply, WhenSent
from stt_lib.telemetry.stats import Stats
from stt_lib.timing import Timing
from tests.support.manual_time import START, ManualTiming
from tests.support.memory_database import Database, Document
from tests.support.memory_store import MemoryStore, Network

Posted = tuple[str, ...]
"""What each chunk of a request says."""

Script = Callable[[Posted], Reply]


def answer(segments: Sequence[Mapping[str, Any]]) -> Reply:
    body = {"language": "en", "top_language_probs": [["en", 1.0]], "segments": list(segments)}
    return Reply(200, {"content-type": "application/json"}, json.dumps(body).encode())


def echo(posted: Posted) -> Reply:
    """Each chunk's text is a segment of its own, in the middle of its ten seconds."""
    return answer(
        [
            {"start": 10.0 * n + 1, "end": 10.0 * n + 9, "text": f" {text}", "no_speech_prob": 0.0}
            for n, text in enumerate(posted)
        ]
    )


def refuse(status: int) -> Reply:
    return Reply(status, {}, b'{"detail": "no"}')


class MemoryChannel:
    """Posts to a function."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab

    def post(
        self,
        url: str,
        parts: list[Any],
        headers: Mapping[str, str],
        *,
        server: str,
        seconds: float,
        when_sent: WhenSent = lambda: None,
    ) -> Reply:
        when_sent()
        audio = [content for _, (_, content, *_) in parts]
        if not audio[0].startswith(b"rec"):
            return self._lab.probe()
        posted = tuple(content.decode() for content in audio)
        self._lab.requests.append(posted)
        return self._lab.script(posted)

    def cut(self) -> None: ...

    def expire(self) -> None: ...

    def close(self) -> None: ...


class Lab:
    """A database with chunks in it, and everything that works on them."""

    def __init__(self, *, timing: Timing | None = None, database: Database | None = None) -> None:
        self.timing = timing or ManualTiming()
        self.database = database or Database(self.timing)
        self.database.guard = threading.RLock()
        self.requests: list[Posted] = []
        self.script: Script = echo
        self.probe: Callable[[], Reply] = lambda: answer([])
        self.stop = threading.Event()
        self.stats = Stats()

    def store(
        self, *, lease: float = 60.0, mongo_wait: float = 1.0, network: Network | None = None
    ) -> Any:
        """A connection to the database in memory, typed as loosely as the real one is not."""
        return MemoryStore(
            self.database,
            lease=lease,
            mongo_wait=mongo_wait,
            stop=self.stop,
            timing=self.timing,
            network=network,
        )

    def record(
        self,
        indexes: Iterable[int],
        name: str = "rec",
        *,
        start: datetime = START,
        **fields: Any,
    ) -> None:
        for index in indexes:
            self.database.chunks.insert(chunk(index, name, start=start, **fields))

    def settings(self, **options: Any) -> Settings:
        quick = {"backoff_base": 0.001, "backoff_max": 0.002, "server_wait": 1.0, "quiet": True}
        return load({"server_url": "http://memory", "filter": "off", **quick, **options}, {})

    def pool(self, settings: Settings) -> ServerPool:
        return ServerPool(
            settings.server_url,
            options=Options(),
            protocol=settings.protocol,
            max_in_flight=settings.max_workers,
            server_max=settings.server_max,
            timeout=settings.timeout,
            server_wait=settings.server_wait,
            stop=self.stop,
            stats=self.stats,
            channels=lambda: MemoryChannel(self),
            timing=self.timing,
        )

    def runner(
        self,
        store: Any = None,
        source: Source | None = None,
        sink: Sink | None = None,
        **options: Any,
    ) -> Runner:
        settings = self.settings(**options)
        store = store or self.store(lease=settings.lease)
        source = source or PendingChunks(store, ALL, only_failed=settings.retry_errors)
        return Runner(self.worker(store, settings, source, sink))

    def worker(
        self,
        store: Any,
        settings: Settings,
        source: Source | None = None,
        sink: Sink | None = None,
    ) -> Worker:
        return Worker(
            store,
            source or PendingChunks(store),
            sink or ChunkSink(store, settings.max_failures),
            self.pool(settings),
            settings,
            self.stop,
            stats=self.stats,
            timing=self.timing,
        )

    def run(self, **options: Any) -> Report:
        return self.runner(**options).run()

    def process(
        self,
        sequence: ChunkSequence,
        *,
        store: Any = None,
        source: Source | None = None,
        sink: Sink | None = None,
        heartbeat: Heartbeat | None = None,
        **options: Any,
    ) -> Result:
        """Process one sequence in this thread."""
        settings = self.settings(**options)
        worker = self.worker(store or self.store(), settings, source, sink)
        if heartbeat is not None:
            worker.heartbeat = heartbeat
        worker.pool.line_up(1)
        try:
            result = worker.process(sequence, 1)
            assert result is not None
            return result
        finally:
            if heartbeat is None:
                worker.heartbeat.stop()

    def planned(self, store: Any = None, **options: Any) -> list[ChunkSequence]:
        store = store or self.store()
        source = PendingChunks(store, **options)
        return list(source.sequences(run_started=store.now(), excluding=()))

    # -- what has come of it ------------------------------------------------------------------

    @property
    def transcripts(self) -> list[Transcript]:
        return list(self.store().transcripts.all())

    @property
    def text(self) -> list[str]:
        """Everything that was heard, oldest first."""
        return " ".join(transcript.text for transcript in self.transcripts).split()

    @property
    def pending(self) -> list[Document]:
        return [c for c in self.database.chunks if c["transcribed_at"] is None]

    def assert_all_done(self) -> None:
        """Every chunk is marked and in exactly one transcript; no claim is left."""
        assert self.pending == []
        owned = [i for t in self.database.transcripts for i in t["chunk_ids"]]
        assert sorted(owned) == sorted(c["_id"] for c in self.database.chunks)
        assert list(self.database.claims) == []


def chunk(index: int, name: str = "rec", *, start: datetime = START, **fields: Any) -> Document:
    """A pending chunk of ten seconds; its audio is its text."""
    return {
        "_id": f"{name}-{index}",
        "original_id": name,
        "index": index,
        "start": start + timedelta(seconds=10 * index),
        "data": f"{name}{index}".encode(),
        "format": "opus",
        "ingested_at": START,
        "vad": {"has_speech": True, "prob": 0.9},
        "transcribed_at": None,
        **fields,
    }

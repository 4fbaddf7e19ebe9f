"""The ways from a recording to its text; all of them through the same Whisper server.

Except for the whole recording, which is one request, all go through the real ingester, a real
MongoDB and the worker as a process. What is to be transcribed without its neighbours is stored as
a recording of its own: the worker cannot know that there is more.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import requests

from stt_lib.domain.models import NewChunk, Transcript
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.local.ingest import read_recording
from stt_lib.store import Store
from tests.benchmarks import processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.processes import Failed
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.scoring import Part
from tests.support.world import ROOT

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PARALLEL = 2
LIMIT_SECONDS = 3600.0
"""No way takes longer over all recordings."""

Cutting = Callable[[Sequence[NewChunk]], Iterator[Sequence[NewChunk]]]
Texts = dict[str, list[Part]]
"""Of each recording, by name."""


@dataclass(frozen=True)
class Bench:
    """Where MongoDB and the Whisper server are, and a folder for files."""

    mongodb_uri: str
    server_url: str
    folder: Path


def ingested(recordings: Sequence[Recording]) -> dict[str, list[NewChunk]]:
    """The chunks of each recording; a day lies between two of them."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        days = [START + timedelta(days=number) for number in range(len(recordings))]
        chunks = pool.map(read_recording, [r.path for r in recordings], days)
        return {r.name: made for r, made in zip(recordings, chunks, strict=True)}


# -- the whole recording ----------------------------------------------------------------------


def whole(recordings: Sequence[Recording], bench: Bench) -> Texts:
    """One request with the file itself: what the model makes of it, without our ingester."""
    files = {r.name: [r.path.read_bytes()] for r in recordings}
    return _at_once(files, bench)


def whole_as_stored(chunks: Mapping[str, Sequence[NewChunk]], bench: Bench) -> Texts:
    """One request with all chunks: the sound that the worker gets, which was coded once more."""
    return _at_once({name: [c.data for c in made] for name, made in chunks.items()}, bench)


def _at_once(files: Mapping[str, Sequence[bytes]], bench: Bench) -> Texts:
    with ThreadPoolExecutor(PARALLEL) as pool:
        texts = pool.map(lambda parts: _posted(parts, bench.server_url), files.values())
        return {name: [Part(0, 0, text)] for name, text in zip(files, texts, strict=True)}


def _posted(files: Sequence[bytes], url: str) -> str:
    parts = [("files", (f"{number}.opus", data)) for number, data in enumerate(files)]
    answer = requests.post(f"{url}/transcribe", files=parts, timeout=LIMIT_SECONDS)
    if not answer.ok:
        raise Failed(f"{answer.status_code} {answer.text[:200]}")
    return " ".join(segment["text"] for segment in answer.json()["segments"])


# -- through the worker -----------------------------------------------------------------------


def as_it_is(chunks: Sequence[NewChunk]) -> Iterator[Sequence[NewChunk]]:
    """One recording: the worker cuts it as it does."""
    yield chunks


def in_thirties(chunks: Sequence[NewChunk], size: int = MAX_CHUNKS) -> Iterator[Sequence[NewChunk]]:
    """Cut at the cap, counted from the newest chunk of each stretch of speech."""
    speech = [chunk for chunk in chunks if chunk.has_speech]
    for _, numbered in groupby(enumerate(speech), key=lambda pair: pair[1].index - pair[0]):
        stretch = [chunk for _, chunk in numbered]
        for end in range(len(stretch), 0, -size):
            yield stretch[max(0, end - size) : end]


def one_by_one(chunks: Sequence[NewChunk]) -> Iterator[Sequence[NewChunk]]:
    """Each chunk of speech alone."""
    return in_thirties(chunks, size=1)


def by_worker(
    name: str,
    chunks: Mapping[str, Sequence[NewChunk]],
    cutting: Cutting,
    bench: Bench,
    options: Sequence[str] = (),
) -> Texts:
    """What the worker saves of recordings that were cut like this, each part a recording.

    All of it happens in a database of this `name`.
    """
    with closing(Backlog(bench.mongodb_uri, f"quality_{name}", 0)) as backlog:
        with Store(backlog.uri, backlog.name) as store:
            for recording in chunks.values():
                for part in cutting(recording):
                    store.chunks.insert(_as_recording(part))
        _work(backlog, bench, options)
        with Store(backlog.uri, backlog.name) as store:
            return _texts(store.transcripts.all(), chunks)


def _as_recording(part: Sequence[NewChunk]) -> list[NewChunk]:
    recording = hashlib.sha256(part[0].id_bytes).digest()[:12]
    return [replace(chunk, original_id_bytes=recording) for chunk in part]


def _work(backlog: Backlog, bench: Bench, options: Sequence[str]) -> None:
    env = {
        "MONGODB_URI": backlog.uri,
        "MONGODB_DATABASE": backlog.name,
        "STT_SERVER_URL": bench.server_url,
        "STT_LOG_FILE": str(bench.folder / "stt.log"),
        # The machine may have other work: nothing is timed here.
        "STT_TIMEOUT_BASE": "600",
    }
    workers = ("--max-workers", str(PARALLEL))
    command = [sys.executable, str(ROOT / "stt.py"), *workers, *options]
    processes.run(command, bench.folder, env, limit=LIMIT_SECONDS)
    pending = {"vad.has_speech": True, "transcribed_at": None}
    if left := backlog.db["audio_chunks"].count_documents(pending):
        raise Failed(f"{left} chunks are still pending")


def _texts(transcripts: Sequence[Transcript], chunks: Mapping[str, Sequence[NewChunk]]) -> Texts:
    places = {c.id_bytes: (name, c.index) for name, made in chunks.items() for c in made}
    texts: Texts = defaultdict(list)
    for transcript in transcripts:
        owned = [places[chunk_id.binary] for chunk_id in transcript.chunk_ids]
        indexes = [index for _, index in owned]
        texts[owned[0][0]].append(Part(min(indexes), max(indexes), transcript.text))
    return {name: sorted(texts[name], key=lambda part: part.first) for name in chunks}

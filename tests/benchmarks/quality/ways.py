"""The ways from a recording to its text, all of them with the same model.

Except for the whole recording, which is one request or one call of faster-whisper, all go through
the real ingester, a real MongoDB and the worker as a process. What is to be transcribed without
its neighbours is stored as a recording of its own: the worker cannot know that there is more.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import groupby
from pathlib import Path

import requests
from faster_whisper import WhisperModel

from stt_lib.domain.models import NewChunk, Selection
from stt_lib.domain.sequences import MAX_CHUNKS
from stt_lib.domain.utterances import SpokenWord, Utterance
from stt_lib.export import subtitles
from stt_lib.export.scope import Scope, readable
from stt_lib.local.ingest import read_recording
from stt_lib.local.transcriber import BUNDLE, BUNDLED_MODEL
from stt_lib.store import Store
from tests.benchmarks import processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.processes import Failed
from tests.benchmarks.quality.recordings import Recording
from tests.benchmarks.quality.scoring import Part
from tests.benchmarks.quality.times import Shown
from tests.support.world import ROOT

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PARALLEL = 2
LIMIT_SECONDS = 3600.0
"""No way takes longer over all recordings."""

Cutting = Callable[[Sequence[NewChunk]], Iterator[Sequence[NewChunk]]]


@dataclass(frozen=True)
class Heard:
    """What became of a recording: its text, and when each word of it is said or shown.

    `dropped` are the segments that the filter took for no speech.
    """

    parts: tuple[Part, ...]
    words: tuple[Shown, ...] = ()
    subtitles: tuple[Shown, ...] = ()
    dropped: tuple[Shown, ...] = ()

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts).strip()


Texts = dict[str, Heard]
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
        return {name: Heard((Part(0, 0, text),)) for name, text in zip(files, texts, strict=True)}


def _posted(files: Sequence[bytes], url: str) -> str:
    parts = [("files", (f"{number}.opus", data)) for number, data in enumerate(files)]
    answer = requests.post(f"{url}/transcribe", files=parts, timeout=LIMIT_SECONDS)
    if not answer.ok:
        raise Failed(f"{answer.status_code} {answer.text[:200]}")
    return " ".join(segment["text"] for segment in answer.json()["segments"])


def by_library(recordings: Sequence[Recording], model: str) -> Texts:
    """What faster-whisper makes of the file by itself, with its own defaults."""
    place = import_module(BUNDLE).get_model_path() if model == BUNDLED_MODEL else model
    whisper = WhisperModel(str(place), device="cpu", compute_type="int8", cpu_threads=PARALLEL)
    texts: Texts = {}
    for recording in recordings:
        segments, _ = whisper.transcribe(str(recording.path))
        text = " ".join(segment.text for segment in segments)
        texts[recording.name] = Heard((Part(0, 0, text),))
    return texts


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
            return _texts(store, chunks)


def _as_recording(part: Sequence[NewChunk]) -> list[NewChunk]:
    return [replace(chunk, original_id_bytes=_recording_of(part)) for chunk in part]


def _recording_of(part: Sequence[NewChunk]) -> bytes:
    return hashlib.sha256(part[0].id_bytes).digest()[:12]


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


def _texts(store: Store, chunks: Mapping[str, Sequence[NewChunk]]) -> Texts:
    places = {c.id_bytes: (name, c.index) for name, made in chunks.items() for c in made}
    parts: dict[str, list[Part]] = defaultdict(list)
    for transcript in store.transcripts.all():
        owned = [places[chunk_id.binary] for chunk_id in transcript.chunk_ids]
        indexes = [index for _, index in owned]
        parts[owned[0][0]].append(Part(min(indexes), max(indexes), transcript.text))
    return {
        name: _heard(store, made, sorted(parts[name], key=lambda part: part.first))
        for name, made in chunks.items()
    }


def _heard(store: Store, chunks: Sequence[NewChunk], parts: Sequence[Part]) -> Heard:
    """What the store holds of a recording, in seconds from its start."""
    zero, recording = chunks[0].start, _recording_of(chunks).hex()
    stretches = list(readable(store.transcripts.stretches(Selection(recording=recording))))
    words = (word for stretch in stretches for said in stretch.utterances for word in _words(said))
    cues = subtitles.cues(stretches, Scope(recording, None, None, zero))
    dropped = (
        ((found.transcript.start - zero).total_seconds(), dropped.segment)
        for found in store.dropped.explained(recording)
        for dropped in found.transcript.dropped
    )
    return Heard(
        tuple(parts),
        tuple(
            Shown((w.start - zero).total_seconds(), (w.end - zero).total_seconds(), w.text)
            for w in words
        ),
        tuple(Shown(cue.start / 1000, cue.end / 1000, " ".join(cue.lines)) for cue in cues),
        tuple(Shown(at + part.start, at + part.end, part.text) for at, part in dropped),
    )


def _words(said: Utterance) -> Sequence[SpokenWord | Utterance]:
    """The words of an utterance if their times are known, else the whole of it."""
    return said.words or (said,)

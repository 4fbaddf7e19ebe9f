"""Cut a recording into 10 s Ogg Opus chunks and mark those that contain speech."""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stt_lib.audio.decoding import (
    WHISPER_RATE,
    Media,
    NotAudio,
    Samples,
    probe,
    regrouped,
    stream,
)
from stt_lib.domain.models import NewChunk
from stt_lib.errors import InputError, Stopped
from stt_lib.local import encoding, vad
from stt_lib.local.cores import on_all
from stt_lib.local.encoding import Piece
from stt_lib.timing import Event

CHUNK_SECONDS = 10
CHUNK_SAMPLES = CHUNK_SECONDS * WHISPER_RATE
SHORTEST = encoding.FRAME
"""Samples (20 ms). A shorter remainder at the end is left out, because it holds no word."""

PADDING = 0.3
"""Seconds of sound before and after speech that belong to it: the detector reacts late to soft
consonants. A chunk that holds any of it is marked as speech."""

ID_BYTES = 12

SAMPLES = tuple(
    Path(__file__).with_name("samples") / f"{name}.opus"
    for name in ("library", "phone", "birds", "tides")
)
"""The sample recordings that come with stt; the README in their folder describes them."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that was decoded once from end to end, so that it can be cut without surprises.

    `track` is the audio track that is cut, of `tracks`; `start` the time of its first sample.
    `speech` is the probability of speech in each window of the detector, `version` the size and
    the modification time that the file had.
    """

    path: Path
    content: bytes
    start: datetime
    track: int
    tracks: int
    speech: Samples
    version: tuple[int, int]

    @property
    def id_bytes(self) -> bytes:
        """The id of the recording in the database, made of its content."""
        return _id(self.content)

    @property
    def id_text(self) -> str:
        """The same id as people and `show` write it."""
        return self.id_bytes.hex()

    @property
    def first_chunk(self) -> bytes:
        """The id of its first chunk."""
        return self._chunk_id(0)

    def count_speech(self) -> int:
        """The number of chunks with speech, give or take one at the end of the file."""
        return sum(map(vad.has_speech, _verdicts(self.speech)))

    def chunks(self) -> Iterator[NewChunk]:
        """Yield the chunks in their order; holds only the sound of a few of them in memory.

        Raises:
            InputError: the file can no longer be read, or has changed; the last chunk is missing.
        """
        try:
            with self.path.open("rb") as source:
                yield from on_all(self._chunk, self._cut(source))
        except OSError as exc:
            raise _unreadable(self.path, exc) from exc

    def _cut(self, source: BinaryIO) -> Iterator[tuple[int, Piece, float]]:
        """Yield number, sound and probability of speech of each chunk."""
        verdicts = _verdicts(self.speech)
        self._check(_version(source) == self.version)
        sound = stream(source, str(self.path), WHISPER_RATE, track=self.track)
        pieces = (p for p in regrouped(sound, CHUNK_SAMPLES) if p.size >= SHORTEST)
        for index, piece in enumerate(_with_neighbours(pieces)):
            self._check(index < len(verdicts))
            yield index, piece, verdicts[index]
        self._check(_version(source) == self.version)

    def _check(self, is_unchanged: bool) -> None:
        if not is_unchanged:
            raise InputError(
                f"{self.path} changed while it was read: repeat the command once it is complete"
            )

    def _chunk(self, cut: tuple[int, Piece, float]) -> NewChunk:
        index, piece, prob = cut
        return NewChunk(
            id_bytes=self._chunk_id(index),
            original_id_bytes=self.id_bytes,
            index=index,
            start=self.start + timedelta(seconds=CHUNK_SECONDS * index),
            data=encoding.encode(piece),
            prob=prob,
            has_speech=vad.has_speech(prob),
            file=_utf8(self.path.name),
            is_last=not piece.after.size,
        )

    def _chunk_id(self, index: int) -> bytes:
        return _id(self.content + index.to_bytes(8, "big"))


def read_recording(path: Path, start: datetime | None = None) -> list[NewChunk]:
    """Return all chunks of a short file; raises as `survey` does."""
    return list(survey(path, start).chunks())


def samples(start: datetime) -> Iterator[tuple[Path, datetime]]:
    """Yield the file and the start time of each sample: the first at `start`, then hourly."""
    return ((path, start + timedelta(hours=hours)) for hours, path in enumerate(SAMPLES))


def recording_id(path: Path) -> str:
    """Return the id of the recording that a file is stored as.

    Raises:
        InputError: The file cannot be read; the message is one line.
    """
    try:
        with path.open("rb") as source:
            return _id(hashlib.file_digest(source, "sha256").digest()).hex()
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def survey(path: Path, start: datetime | None = None, *, stop: Event | None = None) -> Recording:
    """Decode an audio or video file and find the speech in it.

    Of several audio tracks the one with most speech is taken. By default the recording began at
    the creation time that the file contains, or at its modification time minus its duration.

    Raises:
        InputError: The file cannot be read, or not to its end; the message is one line.
        Stopped: `stop` was set before the file was read to its end.
    """
    try:
        with path.open("rb") as source:
            version = _version(source)
            content = hashlib.file_digest(source, "sha256").digest()
            source.seek(0)
            media = probe(source, str(path))
            track, speech = _most_speech(source, str(path), len(media.offsets), stop)
        began = start or media.created or _began(path, speech, media, track)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    first_sample = began + timedelta(seconds=media.offsets[track])
    return Recording(path, content, first_sample, track, len(media.offsets), speech, version)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror or error}")


def _version(source: BinaryIO) -> tuple[int, int]:
    found = os.fstat(source.fileno())
    return found.st_size, found.st_mtime_ns


def _most_speech(
    source: BinaryIO, name: str, tracks: int, stop: Event | None
) -> tuple[int, Samples]:
    """Return the audio track with most speech and the probabilities in it."""
    heard: dict[int, Samples] = {}
    problem: NotAudio | None = None
    for track in range(tracks):
        try:
            source.seek(0)
            blocks = stream(source, name, WHISPER_RATE, track=track)
            heard[track] = vad.probabilities(_until(stop, blocks))
        except NotAudio as exc:
            problem = problem or exc
    if not heard and problem is not None:
        raise problem
    return max(heard.items(), key=lambda item: float(item[1].sum()))


def _until(stop: Event | None, blocks: Iterable[Samples]) -> Iterator[Samples]:
    for block in blocks:
        if stop is not None and stop.is_set():
            raise Stopped
        yield block


def _began(path: Path, speech: Samples, media: Media, track: int) -> datetime:
    """Estimate the start of a file that does not contain it: it was last written at its end."""
    duration = media.offsets[track] + speech.size * vad.WINDOW / WHISPER_RATE
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) - timedelta(seconds=duration)


def _verdicts(speech: Samples) -> list[float]:
    """Return the probability of speech for each chunk.

    Spans of speech are found in the whole recording. A chunk has the probability of the spans that
    it holds any part of, so that a word on a border is in both chunks.
    """
    per_chunk = CHUNK_SECONDS * WHISPER_RATE / vad.WINDOW
    size = math.floor(speech.size / per_chunk) + 1
    windows = np.split(speech, [round(at * per_chunk) for at in range(1, size)])
    # Below the threshold where no span touches the chunk.
    below = math.nextafter(vad.THRESHOLD, 0)
    probs = [min(vad.speech_probability(window), below) for window in windows]
    for span in vad.spans(speech):
        first = max(0, math.floor((span.start - PADDING) / CHUNK_SECONDS))
        last = math.floor((span.end + PADDING) / CHUNK_SECONDS)
        for at in range(first, min(last, size - 1) + 1):
            probs[at] = max(probs[at], span.prob)
    return probs


def _with_neighbours(chunks: Iterable[Samples]) -> Iterator[Piece]:
    before = current = encoding.NOTHING
    for following in chain(chunks, [encoding.NOTHING]):
        if current.size:
            yield Piece(current, before, following[: encoding.FRAME])
        before, current = current[-encoding.PRE_ROLL :], following


def _utf8(name: str) -> str:
    """Replace what MongoDB cannot hold: a file name may be any bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def _id(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:ID_BYTES]

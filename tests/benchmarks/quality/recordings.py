"""Long recordings joined of real sentences, whose words and times are known.

Between the sentences are pauses of quiet room noise, some of them long. The same recording can be
built again with other noise, which nobody hears: then its text should be the same.
"""

import random
import re
import wave
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import WHISPER_RATE, Samples
from stt_lib.local.ingest import SAMPLES as FILES
from tests.benchmarks.material import Part, Spoken, Voice
from tests.benchmarks.quality.conditions import Condition

SAMPLES = FILES[0].parent

ROOM = 0.0005
"""Level (RMS, of 1) of the noise under everything: a pause is quiet, but never digital zero."""

LONGEST = 600.0
"""Seconds of speech in a recording: with its pauses it takes stt three or four requests."""


@dataclass(frozen=True)
class Sentence:
    """What is said from `start` to `end` after a pause; all in seconds."""

    start: float
    end: float
    text: str
    pause: float = 0.0


@dataclass(frozen=True)
class Recording:
    """An audio file and what is said in it."""

    name: str
    path: Path
    language: str
    sentences: tuple[Sentence, ...]

    @property
    def seconds(self) -> float:
        return self.sentences[-1].end

    @property
    def texts(self) -> list[str]:
        return [sentence.text for sentence in self.sentences]


def sample(name: str) -> Recording:
    """One of the recordings that come with stt, as a single sentence; its voices are synthetic."""
    text = re.sub(r"^[AB]: |^\[pause \d+\]$", "", _text_of(name), flags=re.MULTILINE)
    return Recording(name, SAMPLES / f"{name}.opus", "en", (Sentence(0.0, 0.0, text),))


def _text_of(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


def built(
    voice: Voice, part: Part, condition: Condition, build: int, minutes: float, folder: Path
) -> Iterator[Recording]:
    """Yield the recordings of a voice, at most so many minutes of speech in all.

    Words, pauses and audible noises do not depend on the number of the build.
    """
    for number, sentences in enumerate(_shares(voice.sentences, 60 * minutes)):
        name = f"{voice.name}-{number + 1}"
        joint, said = joined(sentences, condition, random.Random(name))
        treated = condition.treat(joint, part, name)
        path = saved(folder / f"{name}.wav", treated, f"{name} {build}")
        yield Recording(name, path, voice.language, said)


def _shares(sentences: Sequence[Spoken], limit: float) -> Iterator[list[Spoken]]:
    """Divide sentences by the length of a recording."""
    share: list[Spoken] = []
    seconds = total = 0.0
    for sentence in sentences:
        length = sentence.sound().size / WHISPER_RATE
        if total + length > limit:
            break
        if share and seconds + length > LONGEST:
            yield share
            share, seconds = [], 0.0
        share.append(sentence)
        seconds, total = seconds + length, total + length
    if share:
        yield share


def joined(
    sentences: Sequence[Spoken], condition: Condition, rng: random.Random
) -> tuple[Samples, tuple[Sentence, ...]]:
    """Return sentences in a row, with digital silence between them, and their times."""
    sounds: list[Samples] = []
    said: list[Sentence] = []
    size = 0
    for number, sentence in enumerate(_repeated(sentences, condition.most_times, rng)):
        pause, sound = condition.pause(number, rng), sentence.sound()
        quiet = round(pause * WHISPER_RATE)
        start = (size + quiet) / WHISPER_RATE
        sounds += [np.zeros(quiet, np.float32), sound]
        size += quiet + sound.size
        said.append(Sentence(start, size / WHISPER_RATE, sentence.text, pause))
    return np.concatenate(sounds), tuple(said)


def _repeated(sentences: Sequence[Spoken], most: int, rng: random.Random) -> Iterator[Spoken]:
    for sentence in sentences:
        for _ in range(rng.randint(1, most) if most > 1 else 1):
            yield sentence


def _room(size: int, seed: str) -> Samples:
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    return np.float32(ROOM) * rng.standard_normal(size, np.float32)


def saved(path: Path, sound: Samples, seed: str) -> Path:
    """Write a file with quiet room noise under the sound; the same seed makes the same noise."""
    return written(path, np.clip(sound + _room(sound.size, seed), -1, 1))


def written(path: Path, sound: Samples) -> Path:
    """Write mono sound at 16 kHz to a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(WHISPER_RATE)
        file.writeframes((32767 * sound).astype("<i2").tobytes())
    return path

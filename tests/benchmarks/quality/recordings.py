"""What is transcribed: the samples, and sentences joined to recordings of any length.

The sentences are read by a person: five from LibriVox' "Sense and Sensibility" (public domain), in
Debian's package pocketsphinx-testdata. They are repeated in a shuffled order with pauses between.
"""

import random
import re
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode
from stt_lib.local.ingest import SAMPLES as FILES

SAMPLES = FILES[0].parent
LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
MISSING = (
    "The sentences from LibriVox are missing, so only the samples were measured: "
    "apt-get install pocketsphinx-testdata"
)

CORRECTIONS = {"a more a amiable": "a more amiable"}
"""What the reader really says where Debian's transcription slips."""

ROOM = 0.0005
"""Level (RMS, of 1) of the noise under everything: a pause is quiet, but never digital zero."""

Pauses = Callable[[random.Random], float]


@dataclass(frozen=True)
class Recording:
    """An audio file and the words that are spoken in it."""

    name: str
    path: Path
    reference: str


@dataclass(frozen=True)
class Utterance:
    """Mono sound at 16 kHz, and its words."""

    sound: Samples
    text: str


def short(rng: random.Random) -> float:
    """Somebody reads without a break: a cut after 30 chunks falls into a sentence, mostly."""
    return rng.uniform(0.2, 0.9)


def thinking(rng: random.Random) -> float:
    """Now and then a pause so long that a chunk holds no speech."""
    return rng.uniform(9.0, 22.0) if rng.random() < 0.12 else short(rng)


def sample(name: str) -> Recording:
    return Recording(name, SAMPLES / f"{name}.opus", _spoken((SAMPLES / f"{name}.txt").read_text()))


def _spoken(text: str) -> str:
    """The text of a sample without the marks that its README explains."""
    return re.sub(r"^[AB]: |^\[pause \d+\]$", "", text, flags=re.MULTILINE)


def all_samples() -> list[Utterance]:
    made = [sample(file.stem) for file in FILES]
    return [Utterance(decode(r.path.read_bytes(), r.name), r.reference) for r in made]


def sentences(folder: Path = LIBRIVOX) -> list[Utterance]:
    """The sentences of LibriVox; none when the package is not installed."""
    transcription = folder / "transcription"
    if not transcription.exists():
        return []
    lines = re.findall(r"<s> (.*?) </s> \((\S+)\)", transcription.read_text())
    return [
        Utterance(decode((folder / f"{name}.wav").read_bytes(), name), _corrected(text))
        for text, name in lines
    ]


def _corrected(text: str) -> str:
    for slip, correction in CORRECTIONS.items():
        text = text.replace(slip, correction)
    return text


def joined(
    name: str, utterances: list[Utterance], minutes: float, pauses: Pauses, folder: Path
) -> Recording:
    """A recording of about so many minutes; the same name makes the same recording."""
    rng = random.Random(name)
    sounds: list[Samples] = []
    texts: list[str] = []
    left = minutes * 60
    for utterance in _shuffled(utterances, rng):
        pause = pauses(rng)
        left -= pause + utterance.sound.size / WHISPER_RATE
        if left < 0 and texts:
            break
        sounds += [np.zeros(round(pause * WHISPER_RATE), np.float32), utterance.sound]
        texts.append(utterance.text)
    path = folder / f"{name}.wav"
    _write(path, np.concatenate(sounds), rng)
    return Recording(name, path, " ".join(texts))


def _shuffled(utterances: list[Utterance], rng: random.Random) -> Iterator[Utterance]:
    """For ever, each as often as the others, none twice running."""
    last = None
    while True:
        order = rng.sample(utterances, len(utterances))
        if order[0] is last:
            order.reverse()
        yield from order
        last = order[-1]


def _write(path: Path, sound: Samples, rng: random.Random) -> None:
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(sound.size, np.float32)
    whole = np.clip(sound + ROOM * noise, -1, 1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(WHISPER_RATE)
        file.writeframes((32767 * whole).astype("<i2").tobytes())

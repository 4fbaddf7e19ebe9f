"""The set: sounds in chunks of ten seconds, and what is said in them and when.

Everything follows from the numbers here, so that the same programs make the same set.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import decode
from tests.benchmarks.phantoms.noises import NOISES, RATE, Sound, noise
from tests.benchmarks.phantoms.voices import VOICES, say
from tests.local.sounds import SAMPLES, sample

CHUNK_SECONDS = 10
ROOM = -62.0
"""dB: the faint noise that is under every recording."""

ANSWERS = (
    *("Yes.", "No.", "Okay.", "Thank you.", "Bye.", "You.", "Thanks.", "Sure.", "Oh.", "So?"),
    *("Oh my God.", "I'm sorry.", "Good night.", "Hello?", "Right.", "Thank you very much."),
    *("Bye-bye.", "Stop!", "Of course.", "Thank you, bye.", "Mm-hmm.", "Come in.", "I know."),
    "The end.",
)
SENTENCES = (
    "The delivery comes on Thursday, between nine and eleven in the morning.",
    "Could you hold the ladder while I look at the lamp above the door?",
    "We should leave before it gets dark, because the lights on my bicycle are broken.",
    "My sister found the keys in the garden, right beside the old apple tree.",
    "Do you want to walk to the station or shall we take the bus?",
    "The second train was late again, so I missed the start of the meeting.",
    "Please write down the number before you forget it.",
    "There is soup in the kitchen, and the bread is still warm.",
    "Did the doctor say when you may go back to work?",
    "I put the blue box on the shelf next to the window.",
)


@dataclass(frozen=True)
class Spoken:
    """Words that somebody says; times in seconds from the start of the case."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Case:
    """One request to the server: whole chunks of sound."""

    name: str
    group: str
    sound: Sound
    spoken: tuple[Spoken, ...]


class _Tape:
    """A recording in the making."""

    def __init__(self, seed: int) -> None:
        self.sound: list[Sound] = []
        self.spoken: list[Spoken] = []
        self._seed = seed

    @property
    def seconds(self) -> float:
        return sum(part.size for part in self.sound) / RATE

    def pause(self, seconds: float) -> None:
        self.sound.append(np.zeros(round(seconds * RATE), dtype=np.float32))

    def add(self, sound: Sound) -> None:
        self.sound.append(sound)

    def speak(self, voice: str, text: str, level: float) -> None:
        """Level in dB of the loudest sample."""
        start = self.seconds
        self.sound.append(say(voice, text) * np.float32(10 ** (level / 20)))
        self.spoken.append(Spoken(start, self.seconds, text))

    def case(self, name: str, group: str, under: tuple[str, float] = ("pink", ROOM)) -> Case:
        """Fill up to whole chunks, with a noise of that kind and level under everything."""
        self.pause(-self.seconds % CHUNK_SECONDS)
        sound = np.concatenate(self.sound)
        ground = noise(under[0], self._seed, sound.size / RATE, under[1])
        mixed = np.clip(sound + ground, -1, 1).astype(np.float32)
        return Case(name, group, mixed, tuple(self.spoken))


def all_cases() -> list[Case]:
    """In a fixed order; those at even places are for choosing, the others for reporting."""
    cases = [*_noises(), *_silences(), *_alone(), *_answered(), *_interrupted(), *_readings()]
    random.Random(5).shuffle(cases)
    return cases


def _noises() -> Iterator[Case]:
    """Every kind at two levels, for one and for three chunks."""
    for number, kind in enumerate(NOISES):
        for turn, level in enumerate((-20.0, -40.0)):
            for chunks in (1, 3):
                seed = 100 * number + 10 * turn + chunks
                sound = noise(kind, seed, chunks * CHUNK_SECONDS, level)
                yield Case(f"{kind} {level:.0f} dB {chunks}", "noise", sound, ())


def _silences() -> Iterator[Case]:
    for chunks in (1, 2, 3, 6):
        zeros = np.zeros(chunks * CHUNK_SECONDS * RATE, dtype=np.float32)
        yield Case(f"zeros {chunks}", "noise", zeros, ())
        for level in (-85.0, -65.0):
            sound = noise("white", chunks, chunks * CHUNK_SECONDS, level)
            yield Case(f"hiss {level:.0f} dB {chunks}", "noise", sound, ())


def _alone() -> Iterator[Case]:
    """A short answer and nothing else for ten seconds, in a quiet room and in a noisy one."""
    rng = random.Random(1)
    for number, text in enumerate(ANSWERS):
        for turn, level in enumerate((-8.0, -28.0, -12.0)):
            tape = _Tape(1000 + 10 * number + turn)
            tape.pause(rng.uniform(1, 6))
            tape.speak(VOICES[(number + turn) % len(VOICES)], text, level)
            under = ("pink", ROOM) if turn < 2 else (_kind(number), -40.0)
            yield tape.case(f"alone {text} {level:.0f} dB over {under[0]}", "alone", under)


def _answered() -> Iterator[Case]:
    """A question, a short answer, and what is said next."""
    rng = random.Random(2)
    for number, text in enumerate(ANSWERS + ANSWERS[:12]):
        tape = _Tape(2000 + number)
        tape.pause(rng.uniform(0.2, 2))
        level = rng.choice((-4.0, -14.0, -24.0))
        asks, answers = VOICES[number % len(VOICES)], VOICES[(number + 3) % len(VOICES)]
        tape.speak(asks, SENTENCES[number % len(SENTENCES)], level)
        tape.pause(rng.uniform(0.4, 3))
        tape.speak(answers, text, level)
        tape.pause(rng.uniform(0.4, 3))
        if number % 2:
            tape.speak(asks, SENTENCES[(number + 5) % len(SENTENCES)], level)
        yield tape.case(f"context {text} {number}", "context")


def _interrupted() -> Iterator[Case]:
    """Speech, then one or two chunks of noise, then sometimes speech again."""
    rng = random.Random(3)
    for number in range(48):
        tape = _Tape(3000 + number)
        voice = VOICES[number % len(VOICES)]
        tape.pause(rng.uniform(0.2, 1))
        tape.speak(voice, SENTENCES[number % len(SENTENCES)], -8.0)
        tape.pause(-tape.seconds % CHUNK_SECONDS)
        seconds = rng.choice((1, 2)) * CHUNK_SECONDS
        tape.add(noise(_kind(number), number, seconds, rng.choice((-24.0, -36.0, -60.0))))
        if number % 3 == 0:
            tape.speak(voice, SENTENCES[(number + 3) % len(SENTENCES)], -8.0)
        if number % 4 == 1:
            tape.pause(1)
            tape.speak(VOICES[(number + 2) % len(VOICES)], ANSWERS[number % len(ANSWERS)], -10.0)
        yield tape.case(f"interrupted {number}", "mixed")


def _kind(number: int) -> str:
    return tuple(NOISES)[number % len(NOISES)]


def _readings() -> Iterator[Case]:
    """The sample recordings, 40 s at a time, and sentences that a person reads."""
    for path in sorted(SAMPLES.glob("*.opus")):
        sound = decode(sample(path.stem), path.stem)
        for at in range(0, sound.size - 10 * RATE, 40 * RATE):
            part = _whole_chunks(sound[at : at + 40 * RATE])
            yield Case(f"{path.stem} {at // RATE} s", "speech", part, tuple(_loud(part)))
    for name, text in _librivox():
        read = decode((LIBRIVOX / f"{name}.wav").read_bytes(), name)
        for turn, (level, under) in enumerate(((0.0, ROOM), (-14.0, -42.0))):
            tape = _Tape(4000 + turn)
            tape.pause(0.5)
            start = tape.seconds
            tape.add(read * np.float32(10 ** (level / 20)))
            tape.spoken.append(Spoken(start, tape.seconds, text))
            yield tape.case(f"librivox {name[-4:]} {level:.0f} dB", "speech", ("pink", under))


LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
"""Of Debian's pocketsphinx-testdata; left out where it is not installed."""


def _librivox() -> Sequence[tuple[str, str]]:
    listed = LIBRIVOX / "transcription"
    if not listed.exists():
        return ()
    lines = re.findall(r"<s> (.*?) </s> \((.*?)\)", listed.read_text())
    return [(name, text) for text, name in lines]


def _loud(sound: Sound) -> Iterator[Spoken]:
    """Where somebody speaks in a recording without noise; pauses under a second do not count."""
    frames = sound[: sound.size - sound.size % (RATE // 10)].reshape(-1, RATE // 10)
    tenths = np.flatnonzero(np.sqrt(np.mean(frames**2, axis=1)) > 0.01)
    for run in np.split(tenths, np.flatnonzero(np.diff(tenths) > 10) + 1):
        if run.size:
            yield Spoken(run[0] / 10, (run[-1] + 1) / 10, "")


def _whole_chunks(sound: Sound) -> Sound:
    return np.pad(sound, (0, -sound.size % (CHUNK_SECONDS * RATE))).astype(np.float32)

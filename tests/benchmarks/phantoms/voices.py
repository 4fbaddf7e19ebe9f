"""What is speech: short texts from Debian's espeak-ng and flite, at Whisper's rate."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from stt_lib.audio.decoding import decode
from tests.benchmarks.phantoms.noises import RATE, Sound

VOICES = (
    "espeak-ng en-us 160",
    "flite rms",
    "espeak-ng en-gb+f2 150",
    "flite slt",
    "espeak-ng en-us+f3 170",
    "espeak-ng en-gb-scotland+m3 150",
    "flite awb",
)


@cache
def say(voice: str, text: str) -> Sound:
    """Speak a text; the silence around it is cut off, the loudest sample is 1."""
    program, name, *speed = voice.split()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        if program == "flite":
            command = ["flite", "-voice", name, "-t", text, "-o", str(file)]
        else:
            command = ["espeak-ng", "-v", name, "-s", *speed, "-w", str(file), text]
        subprocess.run(command, check=True)
        sound = decode(file.read_bytes(), "said.wav")
    sound = sound / np.max(np.abs(sound))
    loud = np.flatnonzero(np.abs(sound) > 0.02)
    return np.asarray(sound[loud[0] : loud[-1] + RATE // 50], dtype=np.float32)

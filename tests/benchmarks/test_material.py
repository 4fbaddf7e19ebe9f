"""Where the benchmarks' recordings come from: read from packages that the test makes up."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import material
from tests.benchmarks.material import Part

PROMPTS = """; a comment

activated: Activated.
vm-goodbye: See you again soon.
beep: [this is a beep]
dictate/help: Press one now, please.
gone: This prompt has no file.
"""

Touch = Callable[[str], Path]


@pytest.fixture
def touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Touch:
    """Make empty files in a folder of material; nothing else is there."""
    monkeypatch.setattr(material, "FOLDER", tmp_path)
    monkeypatch.setattr(material, "READER", tmp_path)

    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    return make


def test_without_material_everything_is_named_with_its_command(touch: Touch) -> None:
    lines = "\n".join(material.missing())
    for source in material.SOURCES:
        assert source.command in lines
    for part in Part:
        assert material.voices(part) == []
        assert material.clips(part) == []
        assert material.digits(part) == []
        assert material.crowd(part) == []


def test_prompts_have_words_and_a_file(touch: Touch) -> None:
    doc = touch(
        "asterisk-core-sounds-en/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    )
    doc.write_bytes(gzip.compress(PROMPTS.encode()))
    for name in ("activated", "vm-goodbye", "beep", "dictate/help"):
        touch(f"asterisk-core-sounds-en-wav/usr/share/asterisk/sounds/en_US_f_A/{name}.wav")
    [voice] = material.voices(Part.HELD_OUT)
    assert [s.text for s in voice.sentences] == ["See you again soon.", "Press one now, please."]
    assert voice.words == 8


def test_descriptions_are_read_in_french_but_letters_are_left_out(touch: Touch) -> None:
    stamps = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    for name in ("animals/owl", "symbols/alphabets/a"):
        touch(f"{stamps}/{name}_desc_fr.ogg")
        touch(f"{stamps}/{name}.txt").write_text("An owl.\nfr.utf8=Une grande chouette.\n")
    [voice] = material.voices(Part.HELD_OUT)
    assert [s.text for s in voice.sentences] == ["Une grande chouette."]


def test_no_clip_is_in_both_parts_and_none_has_a_voice(touch: Touch) -> None:
    samples = "supersonic-scsynth-samples/package/samples"
    for name in ("ambi_choir", "mehackit_robot1", *(f"drum_{n}" for n in range(30))):
        touch(f"{samples}/{name}.flac")
    chosen, held = ({c.name for c in material.clips(part)} for part in Part)
    assert 5 <= len(chosen) <= 15
    assert chosen | held == {f"drum_{n}.flac" for n in range(30)}
    assert not chosen & held


def test_silence_around_a_clip_is_cut_off() -> None:
    loud = np.full(8000, 0.5, np.float32)
    assert 8000 <= material.trimmed(np.pad(loud, 4000)).size <= 8640
    assert material.trimmed(np.zeros(100, np.float32)).size == 100

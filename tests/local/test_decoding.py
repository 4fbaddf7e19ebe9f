import io
import random
import wave
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stt_lib.audio.decoding import (
    WHISPER_RATE,
    NotAudio,
    Samples,
    TooLong,
    _plausible,
    decode,
    stream,
)
from stt_lib.errors import InputError
from tests.local.sounds import SAMPLES, encoded, sample, silent_video, sweep, tone


def seconds(data: bytes) -> float:
    return decode(data, "x").size / WHISPER_RATE


@pytest.mark.parametrize(
    ("container", "codec", "layout"),
    [
        ("wav", "pcm_s16le", "stereo"),
        ("flac", "flac", "mono"),
        ("mp3", "libmp3lame", "stereo"),
        ("mp4", "aac", "mono"),
        ("webm", "libopus", "stereo"),
        ("matroska", "pcm_s24le", "5.1"),
    ],
)
def test_reads_whatever_pyav_reads(container: str, codec: str, layout: str) -> None:
    data = encoded(tone(2, rate=48_000), container, codec, layout=layout)
    assert seconds(data) == pytest.approx(2, abs=0.05)


def test_returns_mono_float32_at_whispers_rate() -> None:
    sound = decode(encoded(tone(1, rate=48_000), "wav", "pcm_s16le"), "x")
    assert sound.dtype == np.float32
    assert sound == pytest.approx(tone(1), abs=0.02)


def test_a_sound_in_one_channel_of_two_is_heard() -> None:
    assert np.abs(
        decode(encoded(tone(1, rate=48_000), "wav", "pcm_s16le", layout="5.1"), "x")
    ).max()


@pytest.mark.parametrize("louder", [0, 1])
def test_channels_that_cancel_each_other_are_heard(louder: int) -> None:
    left, right = tone(2), -0.9 * tone(2)
    channels = np.stack([right, left] if louder else [left, right]).astype(np.float32)
    sound = decode(interleaved(channels), "x")
    assert np.abs(sound).max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("count", [9, 16, 18, 32, 64])
def test_many_channels_are_averaged(count: int) -> None:
    sound = decode(interleaved(np.stack([tone(1)] * count)), "x")
    assert sound == pytest.approx(tone(1), abs=0.02)


def test_other_channels_are_averaged() -> None:
    sound = decode(interleaved(np.stack([tone(2), np.zeros(32_000, np.float32)])), "x")
    assert np.abs(sound).max() == pytest.approx(0.15, abs=0.02)


def interleaved(channels: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setparams((len(channels), 2, WHISPER_RATE, 0, "NONE", ""))
        output.writeframes((channels.T * 32767).astype("<i2").tobytes())
    return file.getvalue()


def test_reads_every_link_of_a_chained_ogg_file() -> None:
    one, two = sample("library"), sample("phone")
    assert seconds(one + two + one) == pytest.approx(2 * seconds(one) + seconds(two), abs=0.001)


def test_the_channels_may_change_on_the_way() -> None:
    parts = [
        encoded(sweep(1, 48_000), "mp3", "libmp3lame", layout=layout)
        for layout in ("mono", "stereo", "mono")
    ]
    assert seconds(b"".join(parts)) == pytest.approx(3, abs=0.1)


def test_what_ffmpeg_cannot_do_is_not_taken_for_the_end() -> None:
    parts = [
        encoded(sweep(1, 48_000), "ogg", "libopus", layout=layout) for layout in ("mono", "stereo")
    ]
    with pytest.raises(NotAudio, match="cannot be decoded: "):
        decode(b"".join(parts), "x")


def test_a_damaged_stretch_in_the_middle_costs_only_itself() -> None:
    data = bytearray(sample("library"))
    data[30_000:40_000] = random.Random(1).randbytes(10_000)
    assert seconds(bytes(data)) > 25


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"this is a text, not a sound\n" * 50, "is not audio"),
        (random.Random(1).randbytes(20_000), "is not audio"),
        (b"OggS" + random.Random(1).randbytes(500), "is not audio"),
        (sample("library")[:150], "is not audio"),
        (encoded(tone(1, rate=48_000), "wav", "pcm_s16le")[:44], "is not audio"),
        (silent_video(), "contains no audio"),
    ],
    ids=["empty", "text", "random", "broken ogg", "header only", "wav header", "silent film"],
)
def test_says_which_file_is_not_audio(data: bytes, reason: str) -> None:
    with pytest.raises(NotAudio) as caught:
        decode(data, "chunk_3.opus")
    expected = (f"chunk_3.opus {reason}", "chunk_3.opus contains no sound")
    assert str(caught.value) in expected
    assert isinstance(caught.value, InputError)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), st.binary(max_size=64), st.integers(0, 3000))
def test_no_damage_raises_anything_else(end: int, noise: bytes, position: int) -> None:
    data = sample("library")[: 3000 + end]
    data = data[:position] + noise + data[position + len(noise) :]
    with suppress(NotAudio):
        decode(data, "x")


def test_a_rate_beyond_that_of_any_recorder_is_refused() -> None:
    data = bytearray(interleaved(tone(0.1)[np.newaxis]))
    data[27] = 33
    with pytest.raises(NotAudio, match="samples a second"):
        decode(bytes(data), "x")


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.integers(20, 43), st.integers(0, 255), min_size=1, max_size=3))
@example({22: 9})
@example({22: 255, 23: 255})
@example({24: 0, 25: 0, 26: 0, 27: 0})
def test_no_damage_of_a_wav_header_raises_anything_else(damage: dict[int, int]) -> None:
    data = bytearray(interleaved(tone(0.1)[np.newaxis]))
    for position, byte in damage.items():
        data[position] = byte
    with suppress(NotAudio, TooLong):
        decode(bytes(data), "x", limit=10)


def test_a_playlist_cannot_make_us_open_other_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(SAMPLES)
    assert Path("library.opus").exists()
    with pytest.raises(NotAudio):
        decode(b"ffconcat version 1.0\nfile library.opus\n", "list.txt")


def test_refuses_more_sound_than_it_may_hold() -> None:
    silence = encoded(np.zeros(48_000 * 60, np.float32), "flac", "flac")
    assert len(silence) < 100_000
    with pytest.raises(TooLong, match="more than 30 s"):
        decode(silence, "long.flac", limit=30)
    assert decode(silence, "long.flac", limit=60).size == 60 * WHISPER_RATE


def test_streams_without_reading_the_whole_file() -> None:
    source = io.BytesIO(encoded(tone(120, rate=48_000), "wav", "pcm_s16le"))
    blocks = stream(source, "x", 48_000)
    next(blocks)
    assert source.tell() < len(source.getvalue()) / 20
    blocks.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "written", ["9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+05:00"]
)
def test_a_creation_time_at_an_end_of_the_calendar_is_not_plausible(written: str) -> None:
    assert _plausible(written) is None

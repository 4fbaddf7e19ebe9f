import io
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest

from stt_lib.audio.decoding import WHISPER_RATE, Samples, decode, stream
from stt_lib.domain.models import NewChunk
from stt_lib.errors import InputError, Stopped
from stt_lib.local import cores
from stt_lib.local.ingest import read_recording, survey
from tests.local.sounds import SAMPLES, encoded, noise, sample, silent_video, speech, sweep, tone

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def write(path: Path, sound: Samples) -> Path:
    path.write_bytes(encoded(sound, "wav", "pcm_s16le"))
    return path


def sound_of(chunk: NewChunk) -> Samples:
    return np.concatenate(list(stream(io.BytesIO(chunk.data), "x", WHISPER_RATE)))


@pytest.fixture(scope="module")
def birds() -> list[NewChunk]:
    """A recording with silences inside."""
    return read_recording(SAMPLES / "birds.opus", START)


def test_every_chunk_lasts_ten_seconds_and_the_last_the_rest(birds: list[NewChunk]) -> None:
    total = sum(b.size for b in stream(io.BytesIO(sample("birds")), "x", WHISPER_RATE))
    sizes = [sound_of(chunk).size for chunk in birds]
    assert set(sizes[:-1]) == {10 * WHISPER_RATE}
    assert 0 < sizes[-1] <= 10 * WHISPER_RATE
    assert sum(sizes) == total


def test_the_chunks_follow_each_other(birds: list[NewChunk]) -> None:
    assert [chunk.index for chunk in birds] == list(range(len(birds)))
    assert [chunk.start for chunk in birds] == [
        START + timedelta(seconds=10 * i) for i in range(len(birds))
    ]
    assert {chunk.format for chunk in birds} == {"opus"}
    assert len({chunk.id_bytes for chunk in birds}) == len(birds)
    assert {len(chunk.id_bytes) for chunk in birds} == {12}
    assert len({chunk.original_id_bytes for chunk in birds}) == 1
    assert len(birds[0].original_id_bytes) == 12


def test_silences_are_not_marked_as_speech(birds: list[NewChunk]) -> None:
    verdicts = {chunk.has_speech for chunk in birds}
    assert verdicts == {True, False}
    assert all(chunk.has_speech == (chunk.prob >= 0.5) for chunk in birds)


def test_the_same_file_makes_the_same_chunks(tmp_path: Path, birds: list[NewChunk]) -> None:
    copy = tmp_path / "other name.opus"
    copy.write_bytes(sample("birds"))
    again = read_recording(copy, START + timedelta(days=1))
    assert [c.id_bytes for c in again] == [c.id_bytes for c in birds]
    assert again[0].original_id_bytes == birds[0].original_id_bytes


def test_another_file_makes_other_chunks(tmp_path: Path) -> None:
    one = read_recording(write(tmp_path / "a.wav", tone(1, rate=48_000)), START)
    two = read_recording(write(tmp_path / "b.wav", tone(1.1, rate=48_000)), START)
    assert one[0].id_bytes != two[0].id_bytes
    assert one[0].original_id_bytes != two[0].original_id_bytes


def test_without_a_start_the_file_was_finished_when_it_was_last_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(3, rate=48_000))
    os.utime(path, (START.timestamp(), START.timestamp()))
    (chunk,) = read_recording(path)
    assert abs(chunk.start - START + timedelta(seconds=3)) < timedelta(seconds=0.05)
    assert chunk.start.tzinfo is UTC


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-03-01T09:00:00+01:00", True),
        ("2026-03-01 08:00:00", True),
        ("1904-01-01", False),
        ("?", False),
    ],
)
def test_the_creation_time_in_the_file_counts(tmp_path: Path, written: str, expected: bool) -> None:
    path = tmp_path / "a.mkv"
    film(path, [tone(3, rate=48_000)], created=written)
    (chunk,) = read_recording(path)
    assert (chunk.start == START) is expected
    (again,) = read_recording(path, START + timedelta(days=1))
    assert again.start == START + timedelta(days=1)


def test_sound_that_begins_after_the_picture_is_later(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    film(path, [tone(3, rate=48_000)], begins=2.5)
    (chunk,) = read_recording(path, START)
    assert abs(chunk.start - START - timedelta(seconds=2.5)) < timedelta(seconds=0.05)


def test_of_several_tracks_the_one_with_speech_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    talk = np.repeat(speech(5), 3)
    film(path, [tone(5, rate=48_000), talk, 0.001 * tone(5, rate=48_000)])
    recording = survey(path, START)
    assert (recording.track, recording.tracks) == (1, 3)
    (chunk,) = recording.chunks()
    assert chunk.has_speech


def film(path: Path, tracks: list[Samples], *, begins: float = 0.0, created: str = "") -> None:
    """Write a film with a second of black pictures and these audio tracks at 48 kHz."""
    with av.open(str(path), mode="w", format="matroska") as output:
        if created:
            output.metadata["creation_time"] = created
        picture = output.add_stream("mpeg4", rate=25)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        sounds = [output.add_stream("pcm_s16le", rate=48_000, layout="mono") for _ in tracks]
        black = np.zeros((64, 64, 3), dtype=np.uint8)
        for _ in range(25):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
        output.mux(picture.encode(None))
        for track, samples in zip(sounds, tracks, strict=True):
            pcm = (samples * 32767).astype(np.int16)[np.newaxis]
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate = 48_000
            frame.pts = round(begins * 48_000)
            output.mux([*track.encode(frame), *track.encode(None)])


@pytest.mark.parametrize("offset", np.arange(-0.25, 0.26, 0.1))
def test_a_word_on_a_border_is_in_both_chunks(tmp_path: Path, offset: float) -> None:
    sound = noise(30, 0.0005)
    middle = round((10 + offset) * 16_000)
    word = speech(10)[20_000:26_400]
    sound[middle - 3200 : middle + 3200] += word
    path = tmp_path / "word.wav"
    path.write_bytes(encoded(sound, "wav", "pcm_s16le", rate=16_000))
    chunks = read_recording(path, START)
    assert [chunk.has_speech for chunk in chunks] == [True, True, False]
    assert chunks[0].prob == chunks[1].prob >= 0.5


def test_the_name_of_the_file_is_kept(birds: list[NewChunk]) -> None:
    assert {chunk.file for chunk in birds} == {"birds.opus"}


def test_chunks_play_on_from_one_another_without_a_click() -> None:
    original = np.concatenate(list(stream(io.BytesIO(sample("library")), "x", WHISPER_RATE)))
    chunks = read_recording(SAMPLES / "library.opus", START)
    played = np.concatenate([sound_of(chunk) for chunk in chunks])
    assert played.size == original.size
    leaps = np.abs(np.diff(played - original))
    for border in (10 * WHISPER_RATE, 20 * WHISPER_RATE, 30 * WHISPER_RATE):
        assert leaps[border - 5 : border + 5].max() < np.quantile(leaps, 0.999)
    assert np.corrcoef(played, original)[0, 1] > 0.8


def test_a_chain_of_chunks_is_the_recording(birds: list[NewChunk]) -> None:
    chain = decode(b"".join(chunk.data for chunk in birds), "chain")
    assert chain.size == pytest.approx(sum(sound_of(c).size for c in birds), abs=2)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(10, [10.0]), (10.01, [10.0]), (20.5, [10.0, 10.0, 0.5]), (0.05, [0.05])],
)
def test_lengths_at_the_border(tmp_path: Path, seconds: float, expected: list[float]) -> None:
    chunks = read_recording(write(tmp_path / "a.wav", sweep(seconds, 48_000)), START)
    assert [sound_of(c).size / WHISPER_RATE for c in chunks] == pytest.approx(expected, abs=0.0001)


def test_marks_speech_and_only_speech_within_a_recording(tmp_path: Path) -> None:
    parts = [speech(9), noise(11, 0.001), np.zeros(160_000, np.float32), speech(5)]
    path = tmp_path / "mixed.wav"
    path.write_bytes(encoded(np.concatenate(parts), "wav", "pcm_s16le", rate=16_000))
    assert [c.has_speech for c in read_recording(path)] == [True, False, False, True]


def test_reading_a_file_can_be_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        survey(SAMPLES / "birds.opus", START, stop=stop)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes()[-960_000:])


def shrink(path: Path) -> None:
    os.truncate(path, 200_000)


CHANGED = "changed while it was read: repeat the command once it is complete"


@pytest.mark.parametrize(
    ("change", "is_early", "problem"),
    [
        (grow, True, CHANGED),
        (grow, False, CHANGED),
        (shrink, True, CHANGED),
        (shrink, False, CHANGED),
        (Path.unlink, True, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_changes_between_the_two_readings_is_not_taken_for_whole(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    problem: str,
    *,
    is_early: bool,
) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 1)
    path = write(tmp_path / "a.wav", sweep(45, 48_000))
    recording = survey(path, START)
    chunks = recording.chunks()
    if not is_early:
        next(chunks)
    change(path)
    with pytest.raises(InputError) as caught:
        assert not any(chunk.is_last for chunk in chunks)
    assert str(caught.value) == f"{path} {problem}"


def test_more_sound_than_was_surveyed_is_a_change(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", sweep(25, 48_000))
    recording = replace(survey(path, START), speech=np.zeros(1, np.float32))
    with pytest.raises(InputError, match="changed while it was read"):
        list(recording.chunks())


@pytest.mark.parametrize("name", ["empty.mp3", "text.txt", "film.mkv", "missing.wav", "folder"])
def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.txt").write_text("not a sound\n" * 100)
    (tmp_path / "film.mkv").write_bytes(silent_video())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError) as caught:
        read_recording(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)

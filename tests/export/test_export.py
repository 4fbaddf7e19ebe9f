"""`export` on a real MongoDB: what is found, in which form, and where it goes."""

import csv
import html
import json
import os
import re
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, ObjectId

from stt_lib.domain.models import Selection
from stt_lib.errors import Stopped
from stt_lib.export import WRITERS, deliver
from stt_lib.export.scope import Scope, readable
from stt_lib.store import Store
from stt_lib.store.ids import possible_ids
from stt_lib.telemetry.formatters import shown_id
from tests.support.ports import free_port
from tests.support.whisper import FakeWhisper, transcription
from tests.support.world import ROOT, START, World

LATER = START + timedelta(minutes=10)


def save(
    world: World, recording: Any, start: Any, *texts: str, seconds: float = 2.0, **more: Any
) -> None:
    """A transcript as an older program saved it: the first line of the contract, no more."""
    segments = [
        {"start": at * seconds, "end": (at + 1) * seconds, "text": f" {text}"}
        for at, text in enumerate(texts)
    ]
    world.transcriptions.insert_one(
        {"original": recording, "start": start, "segments": segments, "language": "en", **more}
    )


def exported(world: World, *arguments: str, zone: str = "UTC") -> str:
    done = world.run("export", *arguments, env={"TZ": zone})
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- what is found ----------------------------------------------------------------------------


def test_a_recording_is_one_text_though_it_was_cut(world: World) -> None:
    save(world, "walk", START, "The sea was calm and", "we went")
    save(world, "walk", START + timedelta(seconds=4), "down to the shore.", "It rained.")
    save(world, "other", START, "not this")
    save(world, "walk", START + timedelta(minutes=5), "Home again.")
    assert exported(world, "walk", zone="Asia/Kolkata") == (
        "2026-03-01 · recording walk · IST (UTC+05:30)\n"
        "  13:30:00  The sea was calm and we went down to the shore. It rained.\n"
        "\n            — 4 min 52 s without speech —\n\n"
        "  13:35:00  Home again.\n"
    )


def test_a_day_of_several_recordings_has_a_heading_for_each(world: World) -> None:
    save(world, ObjectId("65f000000000000000000001"), START, "Good morning.")
    save(world, 7, LATER, "The phone.")
    save(world, ObjectId("65f000000000000000000001"), START + timedelta(hours=20), "Good night.")
    assert exported(world, "--since", "2026-03-01", "--until", "2026-03-02").splitlines() == [
        "2026-03-01 · recording 65f000000000000000000001 · UTC",
        "  08:00:00  Good morning.",
        "",
        "2026-03-01 · recording 7 · UTC",
        "  08:10:00  The phone.",
    ]


def test_a_recording_is_known_by_the_name_of_its_file(world: World, store: Store) -> None:
    name = "Ann & Bob's talk, 3rd draft.mp3"
    store.indexes.ensure()
    world.record(range(2), original_id="talk", file=name)
    save(world, "talk", START, "Good morning.")
    save(world, "nameless", LATER, "The phone.")
    text = exported(world, "--since", "2026-03-01").splitlines()
    assert text[0] == f"2026-03-01 · {name} · recording talk · UTC"
    assert text[3] == "2026-03-01 · recording nameless · UTC"

    table = exported(world, "--since", "2026-03-01", "--format", "tsv").splitlines()
    assert [row.split("\t")[6] for row in table] == ["name", name, ""]
    document = json.loads(exported(world, "--since", "2026-03-01", "--format", "json"))
    assert [segment.get("name") for segment in document["segments"]] == [name, None]

    subtitles = exported(world, "--since", "2026-03-01", "--format", "srt")
    assert "[Ann & Bob's talk, 3rd d…]" in subtitles
    assert "[nameless]" in subtitles
    note = exported(world, "talk", "--format", "vtt").splitlines()[3]
    assert note.startswith("Transcript of Ann &amp; Bob's talk, 3rd draft.mp3 · recording talk;")
    page = html.unescape(exported(world, "talk", "--format", "html"))
    assert page.count(f"{name} · recording talk") == 1
    assert f"<bdi>{name}</bdi> · recording <bdi>talk</bdi>" in page


def test_of_a_span_only_what_begins_in_it_is_there(world: World) -> None:
    save(world, "r", START, *"abcdef", seconds=10)
    times = [(START + timedelta(seconds=s)).isoformat() for s in (20, 40)]
    table = exported(world, "--since", times[0], "--until", times[1], "--format", "tsv")
    assert [row.split("\t")[3] for row in table.splitlines()[1:]] == ["c", "d"]


@pytest.mark.parametrize(
    "identity",
    [
        ObjectId("507f1f77bcf86cd799439011"),
        "a b/c",
        42,
        -3.5,
        Binary(uuid.UUID(int=5).bytes, 4),
        Binary(b"\x00\x01", 0),
        {"day": 1, "room": "x"},
        START,
        None,
    ],
    ids=repr,
)
def test_an_id_can_be_typed_as_it_is_shown(world: World, store: Store, identity: Any) -> None:
    save(world, identity, START, "here")
    [found] = store.transcripts.stretches(Selection(recording=shown_id(identity)))
    assert found.utterances[0].recording == shown_id(identity)
    assert list(store.transcripts.stretches(Selection(recording="another"))) == []


def test_an_id_that_is_no_number_of_mongodbs_is_just_not_found(store: Store) -> None:
    for text in ("9" * 30, "{", '{"$oid": 1}', "{}" * 5, "٣", ""):
        assert text in possible_ids(text)
        assert list(store.transcripts.stretches(Selection(recording=text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "\udcff",
        '{"$gt": 1}',
        '{"$numberDecimal": "x"}',
        '{"a": 99999999999999999999}',
        '{"$numberLong": "99999999999999999999"}',
    ],
)
def test_what_can_be_no_id_is_just_not_found(store: Store, text: str) -> None:
    assert list(store.transcripts.stretches(Selection(recording=text))) == []


def test_transcripts_that_are_not_what_we_hope_cost_only_themselves(
    world: World, store: Store
) -> None:
    save(world, "r", "yesterday", "no date")
    save(world, "r", START, "\x00 \ufeff", "good", "\n")
    odd: list[Any] = [
        None,
        "segment",
        {"text": 3},
        {"text": "no times"},
        {"text": "nan", "start": float("nan"), "end": float("inf")},
        {"text": "backwards", "start": 5.0, "end": 3.0},
        {"text": "true", "start": True, "end": "x"},
        {"text": "words", "start": 1, "end": 2, "words": [{"word": "other"}, 3]},
    ]
    for segments in (odd, None, {"a": 1}):
        world.transcriptions.insert_one({"original": "r", "start": LATER, "segments": segments})
    world.transcriptions.insert_one({"original": "r", "start": LATER})
    table = exported(world, "r", "--format", "tsv").splitlines()[1:]
    texts = [row.split("\t")[3] for row in table]
    assert sorted(texts) == sorted(["good", "no times", "nan", "backwards", "true", "words"])


def test_absolute_times_and_words_are_used_where_they_are_stored(world: World) -> None:
    shifted = START + timedelta(hours=1)
    segment = {
        "text": " Hello you.",
        "start": 1.0,
        "end": 3.0,
        "start_at": shifted,
        "end_at": shifted + timedelta(seconds=2),
        "words": [
            {"word": " Hello", "start": 1.0, "end": 1.5, "start_at": shifted, "end_at": shifted},
            {"text": "you.", "start": 2.0, "end": 3.0},
        ],
    }
    world.transcriptions.insert_one({"original": "r", "start": START, "segments": [segment]})
    [found] = json.loads(exported(world, "r", "--format", "json"))["segments"]
    assert found["start"] == "2026-03-01T09:00:00.000Z"
    assert [word["text"] for word in found["words"]] == ["Hello", "you."]
    assert found["words"][1]["start"] == "2026-03-01T08:00:02.000Z"


def test_nothing_found_is_one_line(world: World) -> None:
    save(world, "r", START, "words")
    for arguments in (("other",), ("--since", "2030-01-01"), ("r", "--until", "2000-01-01")):
        done = world.run("export", *arguments, "-o", str(world.folder / "out.txt"))
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert "there is no transcript" in line
        assert "--local" not in line
    assert list(world.folder.glob("*out*")) == []


def test_whoever_forgets_local_is_reminded(world: World) -> None:
    stack = {"STT_DATA_DIR": str(world.folder)}
    done = world.run("export", "unknown", env=stack)
    assert "(add --local for the embedded stack)" in done.stderr
    away = {**stack, "MONGODB_URI": f"mongodb://127.0.0.1:{free_port()}", "STT_MONGO_WAIT": "0"}
    done = world.run("export", "unknown", env=away)
    assert done.returncode == 3
    assert "(add --local for the embedded stack)" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_time_that_is_none_is_refused(world: World) -> None:
    done = world.run("export", "--since", "noon")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


# -- how it is read ---------------------------------------------------------------------------


def test_paging_gives_each_transcript_once_in_time(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_lib.store.transcripts._PAGE", 3)
    starts = [START + timedelta(seconds=s) for s in (5, 5, 5, 5, 5, 1, 2, 3, 5, 9, 9)]
    for number, start in enumerate(starts):
        save(world, number % 2, start, str(number))
    found = [s.utterances[0] for s in store.transcripts.stretches()]
    assert len({u.text for u in found}) == len(starts)
    assert [u.start for u in found] == sorted(starts)


def test_indexes_serve_every_reading_without_a_sort(world: World, store: Store) -> None:
    for number in range(300):
        save(world, number % 20, START + timedelta(minutes=number), "words")
    world.db.command("profile", 2)
    assert len(list(store.transcripts.stretches(Selection(recording="7")))) == 15
    period = Selection(LATER, LATER + timedelta(minutes=5))
    assert len(list(store.transcripts.stretches(period))) == 5
    world.db.command("profile", 0)
    queries = list(world.db["system.profile"].find({"command.find": "transcriptions"}))
    assert queries
    for query in queries:
        assert query["planSummary"].startswith("IXSCAN")
        assert not query.get("hasSortStage")
        assert query["docsExamined"] <= 75, "a span begins an hour early"


def test_an_index_of_the_users_own_is_not_made_twice(world: World) -> None:
    world.transcriptions.create_index([("start", 1)], name="timeline")
    with Store(world.uri, world.database) as store:
        store.indexes.ensure()
    names = set(world.transcriptions.index_information())
    assert names == {"_id_", "timeline", "stt_by_recording", "stt_owner"}


def test_subtitles_of_a_recording_count_from_its_first_chunk(world: World, store: Store) -> None:
    """The silence before the first words has no transcript, but the file has it."""
    world.record(range(6), original_id="r", silent=range(4))
    save(world, "r", START + timedelta(seconds=40), "Hello.")
    assert "00:00:40,000 --> 00:00:42,000\nHello." in exported(world, "r", "--format", "srt")
    world.chunks.delete_many({})
    assert "00:00:00,000 --> 00:00:02,000" in exported(world, "r", "--format", "srt")


def test_subtitles_of_a_span_show_the_time_of_the_day(world: World) -> None:
    save(world, "r", START, "Hello.")
    text = exported(world, "--since", "2026-03-01", "--format", "vtt", zone="Europe/Vienna")
    assert "\n09:00:00.000 --> 09:00:02.000\n[r] Hello.\n" in text
    assert "00:00:00.000 is 2026-02-28T23:00:00.000Z" in text


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), ["01:30:00", "03:00:00"]),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), ["02:30:00", "04:00:00"]),
    ],
)
def test_subtitles_go_on_by_the_clock_at_the_beginning_when_clocks_change(
    world: World, first: datetime, shown: list[str]
) -> None:
    save(world, "r", first, "Early.")
    save(world, "r", first + timedelta(minutes=90), "Late.")
    text = exported(world, "--format", "srt", zone="Europe/Berlin")
    assert re.findall(r"^([\d:]{8}),000 -->", text, re.MULTILINE) == shown


# -- the forms --------------------------------------------------------------------------------


def test_json_and_tsv_hold_what_was_said_whatever_it_was(world: World) -> None:
    texts = ['"quoted" \\ back\\tslash', "tab\there\nline", "</script>", "日本語 \U0001f600"]
    save(world, "a\tb", START, *texts, model="tiny")
    document = json.loads(exported(world, "a\tb", "--format", "json"))
    assert document["recording"] == "a\tb"
    said = [s["text"] for s in document["segments"]]
    assert said == [t.replace("\t", " ").replace("\n", " ") for t in texts]
    assert document["segments"][0]["end"] == "2026-03-01T08:00:02.000Z"
    lines = exported(world, "a\tb", "--format", "tsv").splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["text"].replace("\\\\", "\\") for row in rows] == said
    assert {row["recording"] for row in rows} == {"a\\tb"}


def test_each_segment_has_the_language_that_the_server_heard(
    world: World, whisper: FakeWhisper
) -> None:
    heard = [("Good evening.", "en"), ("Bonsoir.", "fr"), ("Hm.", None)]
    segments = [
        {"start": at, "end": at + 1, "text": text} | ({"language": spoken} if spoken else {})
        for at, (text, spoken) in enumerate(heard)
    ]
    whisper.script = lambda _: transcription(segments, language="en")
    world.record(range(1), original_id="r")
    assert world.run().returncode == 0
    [stored] = world.transcriptions.find()
    assert [segment.get("language") for segment in stored["segments"]] == ["en", "fr", None]
    document = json.loads(exported(world, "r", "--format", "json"))
    assert [segment["language"] for segment in document["segments"]] == ["en", "fr", "en"]


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "html"])
def test_nothing_that_is_written_steers_a_terminal(world: World, name: str) -> None:
    evil = "\x1b]0;gone\x07\x9b2J\x7f\r\b"
    save(world, f"id{evil}", START, f"said{evil} this", model=evil, language=evil)
    text = exported(world, "--format", name)
    assert "said" in text
    assert {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160} <= {"\n", "\t"}


def test_recordings_at_the_same_time_are_joined_in_time(world: World) -> None:
    save(world, "a", START, *"135", seconds=2)
    save(world, "b", START + timedelta(seconds=1), *"246", seconds=2)
    document = json.loads(exported(world, "--format", "json"))
    assert [s["text"] for s in document["segments"]] == list("123456")


# -- where it goes ----------------------------------------------------------------------------


def test_the_name_of_the_file_says_the_format_and_the_file_is_replaced_whole(world: World) -> None:
    save(world, "r", START, "words")
    file = world.folder / "day.json"
    file.write_text("yesterday's")
    file.chmod(0o640)
    assert exported(world, "r", "-o", str(file)) == ""
    assert json.loads(file.read_text())["segments"][0]["text"] == "words"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    link = world.folder / "link.txt"
    link.symlink_to(file)
    exported(world, "r", "-o", str(link), "--format", "txt")
    assert link.is_symlink()
    assert file.read_text().endswith("words\n")
    assert exported(world, "r", "-o", "-") == file.read_text()
    assert list(world.folder.glob(".*")) == [], "nothing unfinished"


def test_a_device_is_written_to_and_not_replaced(world: World) -> None:
    save(world, "r", START, "words")
    assert exported(world, "r", "-o", "/dev/null") == ""
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("name", ["day.pdf", "day.docx", "2026.11"])
def test_an_unknown_ending_is_refused(world: World, name: str) -> None:
    save(world, "r", START, "words")
    done = world.run("export", "r", "-o", str(world.folder / name))
    assert done.returncode == 2
    assert "txt, srt, vtt, json, tsv, html" in done.stderr
    assert not (world.folder / name).exists()
    assert exported(world, "r", "-o", str(world.folder / name), "--format", "txt") == ""
    assert (world.folder / name).read_text().endswith("words\n")


def test_output_that_cannot_be_written_is_one_line(world: World) -> None:
    save(world, "r", START, "words")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, str(ROOT / "stt.py"), "export", "r"],
            env=world.env,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "stt: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("place", ["missing/day.txt", ".", f"{'x' * 300}.txt"])
def test_a_place_that_cannot_be_written_is_one_line(world: World, place: str) -> None:
    save(world, "r", START, "words")
    done = world.run("export", "r", "-o", str(world.folder / place))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be written" in done.stderr


def test_a_reader_that_has_seen_enough_ends_it_quietly(world: World) -> None:
    save(world, "r", START, *("many words " * 50 for _ in range(400)))
    with world.start("export", "r") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0


def test_stopped_in_the_middle_it_leaves_no_half_file(world: World) -> None:
    for number in range(300):
        save(world, "r", START + timedelta(seconds=number), "words " * 200)
    file, pipe = world.folder / "day.txt", world.folder / "pipe"
    file.symlink_to(pipe)  # whoever reads the pipe waits, and so does the export
    os.mkfifo(pipe)
    with world.start("export", "r", "-o", str(file)) as process, pipe.open("rb") as reader:
        reader.read(10)
        process.send_signal(signal.SIGTERM)
        reader.read()
        assert process.wait(30) == 143


def test_what_fails_in_the_middle_leaves_the_file_of_yesterday(tmp_path: Path) -> None:
    def parts() -> Iterator[str]:
        yield "half"
        raise Stopped

    file = tmp_path / "day.txt"
    file.write_text("yesterday's")
    with pytest.raises(Stopped):
        deliver(parts(), file)
    assert file.read_text() == "yesterday's"
    assert list(tmp_path.iterdir()) == [file]


def test_output_is_utf_8_whatever_the_locale(world: World) -> None:
    save(world, "r", START, "日本語")
    done = subprocess.run(
        [sys.executable, str(ROOT / "stt.py"), "export", "r"],
        env={**world.env, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert "日本語" in done.stdout.decode()


def test_dates_at_the_ends_of_the_calendar_do_no_harm(world: World, store: Store) -> None:
    for year in (1, 9999):
        save(world, "r", datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=364), "odd")
    for hours in (-12, 13):
        scope = Scope("r", None, None, START, zone=timezone(timedelta(hours=hours)))
        for name, write in WRITERS.items():
            text = "".join(
                write(readable(store.transcripts.stretches(Selection(recording="r"))), scope)
            )
            assert text.count("odd") == 2, name


@pytest.mark.parametrize("name", ["html", "vtt"])
@pytest.mark.parametrize(
    ("date", "zone"),
    [
        (datetime(9999, 12, 31, 23, tzinfo=UTC), "Asia/Tokyo"),
        (datetime(1, 1, 1, tzinfo=UTC), "America/New_York"),
        (datetime(1, 1, 1, tzinfo=UTC), "Asia/Tokyo"),
    ],
)
def test_dates_that_are_beyond_the_calendar_in_the_local_zone_do_no_harm(
    world: World, date: datetime, zone: str, name: str
) -> None:
    save(world, "r", date, "odd")
    assert "odd" in exported(world, "--format", name, zone=zone)

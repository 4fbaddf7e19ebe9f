"""Filters: the part of the backlog that a person names, found in the index alone."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Binary, ObjectId

from stt_lib.config import parsers
from stt_lib.config.loader import load
from stt_lib.domain.models import Selection
from stt_lib.domain.sequences import group
from stt_lib.errors import ConfigurationError
from stt_lib.store import Store
from tests.support.whisper import FakeWhisper, echo, status
from tests.support.world import START, World

HOUR = timedelta(hours=1)


# -- times as people write them ---------------------------------------------------------------


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[datetime]:
    """The present in a zone that changes its offset: 10:30 on the second day of summer time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield datetime(2026, 3, 30, 8, 30, tzinfo=UTC).astimezone()
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-03-01", "2026-02-28T23:00"),
        ("2026-03-01T08:00", "2026-03-01T07:00"),
        ("2026-03-01 08:00:30", "2026-03-01T07:00:30"),
        ("2026-07-01T08:00", "2026-07-01T06:00"),
        ("2026-03-01T08:00Z", "2026-03-01T08:00"),
        ("2026-03-01t08:00+05:30", "2026-03-01T02:30"),
        ("now", "2026-03-30T08:30"),
        ("today", "2026-03-29T22:00"),
        ("yesterday", "2026-03-28T23:00"),
        ("Yesterday 18:00", "2026-03-29T16:00"),
        ("08:15", "2026-03-30T06:15"),
        ("7d", "2026-03-23T08:30"),
        ("1w", "2026-03-23T08:30"),
        ("12h", "2026-03-29T20:30"),
        ("1d12h", "2026-03-28T20:30"),
        ("90m", "2026-03-30T07:00"),
    ],
)
def test_moments_are_read_as_people_write_them(berlin: datetime, text: str, utc: str) -> None:
    assert parsers.moment(text, berlin) == datetime.fromisoformat(utc).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "soon", "7x", "2026-13-01", "1.3.2026", "yesterday noon", "99999999999d", "d"]
)
def test_what_is_no_moment_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a time: give it as 2026-03-01"):
        parsers.moment(text, datetime.now().astimezone())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("3600", 3600), ("1.5", 1.5), ("45s", 45)],
)
def test_spans_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parsers.seconds(text) == seconds


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STT_SINCE": "soon"}, "STT_SINCE is not a time: give it as 2026-03-01"),
        ({"STT_SINCE": "1d", "STT_UNTIL": "2d"}, "--until must be later than --since"),
        ({"STT_SINCE": "0001-01-01T00:00+10:00"}, "STT_SINCE is not a time"),
    ],
)
def test_senseless_periods_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load({}, environment)


# -- what is selected -------------------------------------------------------------------------


def found(store: Store, only: Selection, **more: Any) -> set[tuple[Any, int | None]]:
    sequences = group(store.chunks.pending(run_started=store.now(), selection=only, **more))
    return {(chunk.original_id, chunk.index) for s in sequences for chunk in s.chunks}


def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(
    world: World, store: Store
) -> None:
    world.record(range(6), original_id="r")  # ten seconds apart
    ten = timedelta(seconds=10)
    period = Selection(since=START + ten, until=START + 4 * ten)
    assert found(store, period) == {("r", 1), ("r", 2), ("r", 3)}
    assert store.chunks.count_pending(period) == 3
    assert store.chunks.count_pending(Selection(since=START + 4 * ten)) == 2


@pytest.mark.parametrize(
    ("original_id", "typed"),
    [
        ("talk", "talk"),
        ("12", "12"),
        (12, "12"),
        (12.0, "12"),
        (1.5, "1.5"),
        (-3, "-3"),
        (ObjectId("507f1f77bcf86cd799439011"), "507f1f77bcf86cd799439011"),
        (Binary.from_uuid(uuid.UUID(int=7)), "00000000-0000-0000-0000-000000000007"),
        (START, '{"$date": "2026-03-01T08:00:00Z"}'),
        ({"day": 1}, '{"day": 1}'),
    ],
    ids=str,
)
def test_a_recording_is_found_by_any_id(
    world: World, store: Store, original_id: Any, typed: str
) -> None:
    world.record([0], original_id=original_id)
    world.record([0], original_id="another")
    assert store.chunks.count_pending(Selection(recording=typed)) == 1


@pytest.mark.parametrize("typed", ["none", "--5", "99999999999999999999", "{", '{"$regex": "."}'])
def test_an_id_that_nothing_has_selects_nothing(world: World, store: Store, typed: str) -> None:
    world.record([0], original_id="talk")
    assert found(store, Selection(recording=typed)) == set()


@pytest.mark.parametrize("only_failed", [False, True])
def test_selecting_reads_the_index_and_no_document(
    world: World, store: Store, only_failed: bool
) -> None:
    for number in range(20):
        failed = {"error": {"at": START, "kind": "x"}}
        world.record(range(50), original_id=number, start=START + number * HOUR, stt=failed)
    world.chunks.update_many({"original_id": {"$lt": 3}}, {"$set": {"priority": 5}})
    few = Selection(since=START + 2 * HOUR, until=START + 4 * HOUR)
    one = Selection(recording="7")
    world.db.command("profile", 2)
    assert len(found(store, few, only_failed=only_failed)) == 100
    assert store.chunks.count_pending(few, only_failed=only_failed) == 100
    assert len(found(store, one, only_failed=only_failed)) == 50
    assert store.chunks.count_pending(one, only_failed=only_failed) == 50
    world.db.command("profile", 0)
    reads = list(
        world.db["system.profile"].find(
            {"ns": f"{world.database}.audio_chunks", "command.aggregate": {"$exists": True}}
        )
    )
    assert len(reads) == 4
    for read in reads:
        assert read["docsExamined"] == 0, read
        assert not read.get("hasSortStage", False)


# -- in a run ---------------------------------------------------------------------------------


def test_a_run_does_what_is_selected_and_says_how_much_that_is(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(4):
        world.record(range(3), original_id=number, start=START + number * HOUR)
    done = world.run("--since", "2026-03-01T09:00Z", "--until", "2026-03-01T11:00Z")
    assert done.returncode == 0
    assert "Total pending chunks: 6" in done.stderr
    assert {d["original"] for d in world.transcriptions.find()} == {1, 2}
    assert world.run(env={"STT_RECORDING": "3"}).returncode == 0
    assert {d["original"] for d in world.transcriptions.find()} == {1, 2, 3}


def test_retry_errors_keeps_to_what_is_selected(world: World, whisper: FakeWhisper) -> None:
    for number in range(2):
        world.record([0], original_id=number, start=START + number * HOUR)
    whisper.script = lambda r: echo(r) if r.is_probe else status(400)
    assert world.run("--max-failures", "1").returncode == 1
    whisper.script = echo
    done = world.run("--retry-errors", "--recording", "1")
    assert "Total pending chunks: 1" in done.stderr
    assert [d["original"] for d in world.transcriptions.find()] == [1]

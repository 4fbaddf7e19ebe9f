"""`status`: the right numbers and verdict, read from indexes alone, written nowhere."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from bson import ObjectId

from stt_lib.cli.status import lines
from stt_lib.domain import models
from stt_lib.domain.sequences import group
from stt_lib.domain.units import about
from stt_lib.errors import FailureKind
from stt_lib.local.mongod import Mongod
from stt_lib.reports.status import Backlog, Status, Trend, look
from stt_lib.store import Store
from tests.support.terminal import on_a_terminal
from tests.support.world import World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
NOTHING = models.Activity(0, 0, 0)
HOUR_OF_AUDIO = 360  # chunks


def status(pending: int = 0, oldest: timedelta = 3 * DAY, **more: Any) -> Status:
    plain = Status(
        now=NOW,
        backlog=Backlog(pending, pending, False, 10.0, NOW, NOW - oldest),
        holders=(),
        failed=(),
        hour=NOTHING,
        day=NOTHING,
        week=NOTHING,
        days=((date(2026, 3, 4), NOTHING),),
        working_since=None,
        is_quick=True,
    )
    return replace(plain, **more)


def hours(recorded: float, transcribed: float) -> models.Activity:
    return models.Activity(int(recorded * HOUR_OF_AUDIO), int(transcribed * HOUR_OF_AUDIO), 0)


def failed(waiting: int) -> models.FailedKind:
    return models.FailedKind("invalid_audio", waiting, 0, waiting, NOW + HOUR, NOW, NOW)


# -- the verdict ------------------------------------------------------------------------------

HOLDER = models.Holder("host/1", 1, 30, None, None)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (status(), Trend.UP_TO_DATE),
        (status(5), Trend.STANDING_STILL),
        (status(5, week=hours(0, 50)), Trend.STANDING_STILL),
        (status(5, holders=(HOLDER,)), Trend.FALLING_BEHIND),
        (status(5, oldest=2 * HOUR, day=hours(9, 8)), Trend.KEEPING_UP),
        (status(5, day=hours(8, 9)), Trend.CATCHING_UP),
        (status(5, day=hours(9, 8)), Trend.FALLING_BEHIND),
        (status(5, day=hours(8, 9), failed=(failed(waiting=5),)), Trend.WAITING),
        (status(5, failed=(failed(waiting=5),)), Trend.WAITING),
        (status(5, day=hours(8, 9), failed=(failed(waiting=4),)), Trend.CATCHING_UP),
        (
            status(5, hour=hours(1, 3), day=hours(24, 3), working_since=NOW - HOUR),
            Trend.CATCHING_UP,
        ),
    ],
)
def test_the_verdict_weighs_what_comes_against_what_is_done(found: Status, verdict: Trend) -> None:
    assert found.verdict is verdict


def test_speed_is_of_the_time_at_work_and_the_end_allows_for_what_arrives() -> None:
    at_work = status(
        90 * HOUR_OF_AUDIO,
        hour=hours(0.25, 2),
        day=hours(24, 2),
        working_since=NOW - timedelta(minutes=12),
    )
    assert at_work.speed == pytest.approx(10)  # two hours of audio in a fifth of an hour
    assert at_work.inflow == pytest.approx(1)
    assert at_work.done_in == timedelta(hours=10)  # 90 / (10 - 1)
    at_rest = replace(at_work, hour=NOTHING, day=hours(6, 12), working_since=None)
    assert at_rest.speed == pytest.approx(0.5)
    assert at_rest.speed_of == "last day"
    assert replace(at_rest, day=hours(12, 12)).done_in is None
    assert replace(at_rest, day=NOTHING, week=hours(0, 16.8)).speed == pytest.approx(0.1)


# -- the numbers ------------------------------------------------------------------------------


@pytest.fixture
def lively(world: World, store: Store) -> World:
    """Work of every sort: done, pending, claimed, failed, parked; some of it long ago."""
    now = store.now()
    for number, ago in enumerate((HOUR / 2, 5 * HOUR, 3 * DAY, 40 * DAY)):
        done(world, f"done {number}", 6, start=now - ago - HOUR / 4, saved=now - ago)
    world.record(range(40), original_id="long", start=now - 50 * HOUR)
    world.record(range(3), original_id="new", start=now - HOUR / 2)
    world.record(range(9), original_id="silent", silent=range(9), start=now)
    world.record([1], original_id="bad", start=now - 2 * HOUR)
    sequences = {s.original_id: s for s in group(store.chunks.pending(run_started=now))}
    assert store.claims.acquire(sequences["new"], "abc", "night/77")
    failure = models.Failure(FailureKind.INVALID_AUDIO, "no audio")
    store.failures.record(
        [sequences["bad"].newest.id],
        failure,
        attempt="def",
        audio_at_fault=True,
        due_in=60,
        max_failures=1,
    )
    return world


def done(world: World, recording: str, chunks: int, *, start: datetime, saved: datetime) -> None:
    """A transcript as it was saved at that time."""
    world.record(range(chunks), original_id=recording, start=start, transcribed_at=saved)
    ids = [c["_id"] for c in world.chunks.find({"original_id": recording})]
    seconds = ObjectId.from_datetime(saved).binary[:4]
    world.transcriptions.insert_one(
        {
            "_id": ObjectId(seconds + ObjectId().binary[4:]),
            "original": recording,
            "start": start,
            "chunk_ids": ids,
            "segments": [],
        }
    )


def test_everything_is_counted(lively: World) -> None:
    found = json.loads(lively.run("status", "--json").stdout)
    assert found["verdict"] == "catching up"
    pending = found["pending"]
    assert (pending["chunks"], pending["sequences"], pending["is_estimate"]) == (43, 3, False)
    assert pending["chunk_seconds"] == 10
    assert pending["hours"] == pytest.approx(430 / 3600)
    assert found["last"] == {
        "hour": {"recorded": 9, "transcribed": 6, "failed": 1},
        "day": {"recorded": 16, "transcribed": 12, "failed": 1},
        "week": {"recorded": 62, "transcribed": 18, "failed": 1},
    }
    assert sum(day["transcribed"] for day in found["days"]) == 18
    assert len(found["days"]) == 8
    [holder] = found["holders"]
    assert (holder["worker"], holder["claims"], holder["chunks"]) == ("night/77", 1, 3)
    [kind] = found["failed"]
    assert (kind["kind"], kind["parked"]) == ("invalid_audio", 1)
    age = datetime.fromisoformat(found["now"]) - datetime.fromisoformat(pending["oldest"])
    assert age == pytest.approx(50 * HOUR, abs=timedelta(minutes=1))
    assert found["speed"] == pytest.approx(6 * 10 / 1800, rel=0.1)


def test_a_person_sees_it_at_a_glance(lively: World) -> None:
    text = lively.run("status", env={"COLUMNS": "80"}).stdout
    first = text.splitlines()[0]
    assert re.match(r"Catching up: all done in about \d", first)
    for line in (
        r"Pending  43 chunks · 3 sequences · 7 min of audio",
        r" +the newest (30|29) min old, the oldest 2 days 2 h",
        r"At work  night/77: 3 chunks in 1 sequence",
        r" +new, [-0-9]+ [:0-9]+: 3 chunks, for less than a minute",
        r"Failed   invalid_audio  1 chunk parked",
        r"Transcribed +1 min +2 min +3 min",
        r"\w{3} +\d+ \w{3} .*[█░]",
    ):
        assert re.search(f"^{line}", text, re.MULTILINE), f"{line}\n{text}"
    assert max(map(len, text.splitlines())) <= 80
    assert "Slow" not in text
    narrow = lively.run("status", env={"COLUMNS": "50"}).stdout
    assert "█" not in narrow


@pytest.mark.parametrize("pending", [1, 43, 123_456, 1_234_567])
@pytest.mark.parametrize("done", [0, 1, 400, 200_000])
@pytest.mark.parametrize("arrived", [0, 1, 399, 199_000])
def test_every_line_fits_into_80_columns_whatever_the_figures(
    pending: int, done: int, arrived: int
) -> None:
    holder = models.Holder("stt-worker-6d8f7c9b54-x7k2p.cluster/4711", 1234, 37_020, NOW, NOW)
    plenty = status(
        pending,
        oldest=3000 * DAY,
        holders=(replace(holder, since=NOW - timedelta(days=2, hours=23)),),
        hour=models.Activity(arrived, done, done),
        day=models.Activity(arrived, done, done),
        week=models.Activity(arrived, done, done),
        working_since=NOW - HOUR / 3 if done else None,
        is_quick=False,
    )
    waiting = models.FailedKind("duplicate_index", pending, 1234, pending // 2, NOW, NOW, NOW)
    for found in (
        plenty,
        replace(plenty, holders=()),
        replace(plenty, working_since=None),
        replace(plenty, failed=(waiting,)),
        replace(plenty, failed=(replace(failed(pending), next_due=NOW + 300 * DAY),)),
        replace(plenty, now=NOW + 3000 * DAY),
    ):
        for line in lines(found, 80):
            assert len(click.unstyle(line)) <= 80, line


def test_colours_are_for_terminals_without_no_color(lively: World) -> None:
    assert "\x1b[" in on_a_terminal(lively, "status")
    lively.extra_env = {"NO_COLOR": "1"}
    assert "\x1b[" not in on_a_terminal(lively, "status")
    lively.extra_env = {}
    assert "\x1b[" not in lively.run("status").stdout


def test_an_empty_database_is_up_to_date(world: World) -> None:
    looked = world.run("status")
    assert looked.returncode == 0
    assert looked.stdout.startswith("Up to date: nothing is pending")
    assert {"Pending  nothing", "At work  no worker"} <= set(looked.stdout.splitlines())
    assert world.db.list_collection_names() == [], "it only looks"


def test_a_long_backlog_is_estimated_and_only_indexes_are_read(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = store.now()
    for number in range(100):
        world.record(range(7), original_id=number, start=now - number * HOUR, ingested_at=now)
    monkeypatch.setattr("stt_lib.reports.status.SAMPLE", 70)
    world.db.command("profile", 2)
    found = look(store)
    world.db.command("profile", 0)
    assert found.backlog.chunks == 700
    assert found.backlog.is_estimate
    assert found.backlog.sequences == pytest.approx(100, abs=3)
    assert found.backlog.oldest == pytest.approx(now - 99 * HOUR, abs=timedelta(seconds=1))
    reads = list(world.db["system.profile"].find({"ns": f"{world.database}.audio_chunks"}))
    assert len(reads) >= 6
    for read in reads:
        assert read["op"] in ("query", "command"), read
        assert read.get("docsExamined", 0) == 0, read
        assert "COLLSCAN" not in read.get("planSummary", ""), read


# -- rights -----------------------------------------------------------------------------------


@pytest.fixture
def guarded(auth_mongod: Mongod, tmp_path: Path) -> Iterator[World]:
    world = World(f"mongodb://root:r00t-pw@127.0.0.1:{auth_mongod.port}/", tmp_path)
    world.client[world.database].command("createUser", "eye", pwd="look-only", roles=["read"])
    yield world
    world.close()


def test_the_right_to_read_is_enough_and_missing_indexes_are_named(
    guarded: World, auth_mongod: Mongod
) -> None:
    now = datetime.now(UTC)
    guarded.record(range(4), start=now - HOUR / 2)
    done(guarded, "done", 1, start=now - HOUR / 2, saved=now - HOUR / 4)
    eye = f"mongodb://eye:look-only@127.0.0.1:{auth_mongod.port}/{guarded.database}"
    looked = guarded.run("status", "--json", env={"MONGODB_URI": eye})
    assert looked.returncode == 0, looked.stderr
    found = json.loads(looked.stdout)
    assert (found["pending"]["chunks"], found["pending"]["sequences"]) == (4, 1)
    assert found["last"]["hour"] == {"recorded": 5, "transcribed": 1, "failed": 0}
    assert "Slow: indexes are missing" in guarded.run("status", env={"MONGODB_URI": eye}).stdout
    assert set(guarded.chunks.index_information()) == {"_id_"}


def test_an_estimate_reads_like_one() -> None:
    assert about(timedelta(seconds=20)) == "less than a minute"
    assert about(timedelta(minutes=67)) == "about 1 h 7 min"


def test_a_backlog_may_be_done_while_it_is_counted(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.record(range(2))
    count = store.chunks.count_pending

    def counted_and_done() -> int:
        number = count()
        world.chunks.update_many({}, {"$set": {"transcribed_at": NOW}})
        return number

    monkeypatch.setattr(store.chunks, "count_pending", counted_and_done)
    found = look(store)
    assert (found.backlog.chunks, found.verdict) == (0, Trend.UP_TO_DATE)

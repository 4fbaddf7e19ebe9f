"""A run as a person sees it: logs, the bar, exit codes, order and limits, and never a secret."""

import logging
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stt_lib.cli.run import on_its_own
from stt_lib.config.loader import load
from stt_lib.telemetry import logs
from tests.support.terminal import on_a_terminal
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import START, World

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


# -- exit codes -------------------------------------------------------------------------------


def test_mongodb_out_of_reach_exits_3_with_one_line_within_its_time(world: World) -> None:
    done = world.run(env={"MONGODB_URI": "mongodb://u:hunter2@127.0.0.1:9/x"}, seconds=9)
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert "MongoDB at 127.0.0.1:9 is not available" in line
    assert "hunter2" not in line
    assert "is not available" in world.log, "cron's mail may go nowhere"


def test_no_watch_overrides_the_environment(world: World) -> None:
    assert world.run("--no-watch", env={"STT_WATCH": "5"}).returncode == 0


def test_an_unknown_variable_is_a_warning_in_the_log(world: World) -> None:
    done = world.run("--quiet", env={"STT_MAX_WORKER": "3"})
    assert done.returncode == 0
    assert done.stderr.count("STT_MAX_WORKER is not a setting and has no effect") == 1
    assert "did you mean STT_MAX_WORKERS?" in world.log
    done = world.run("errors", env={"STT_MAX_WORKER": "3"})
    assert done.stderr.startswith("stt: warning: STT_MAX_WORKER is not a setting")
    assert done.stdout == "Nothing has failed.\n"


def test_an_unknown_language_is_refused_before_any_request(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(1))
    done = world.run("--language", "klingon")
    assert done.returncode == 2
    assert "--language must be a language that Whisper knows" in done.stderr
    assert whisper.requests == []


# -- the log ----------------------------------------------------------------------------------


def test_log_lines_have_exactly_the_described_formats(world: World, whisper: FakeWhisper) -> None:
    recording = world.record(range(5))
    world.record(range(3), original_id="bad", start=START - timedelta(hours=1))
    whisper.script = lambda r: Reply(raw=b"") if r.audio[0].startswith(b"bad") else echo(r)
    done = world.run("--max-workers", "3", "--retries", "0", env={"TZ": "UTC"})
    log = world.log
    for line in (
        "INFO - Total pending chunks: 8",
        "INFO - Using 3 parallel worker(s)",
        f"INFO - Processing sequence: 2026-03-01 08:00:00 | 5 chunks | ID: {recording}",
        r"INFO - Completed sequence: 2026-03-01 08:00:00 | 5 chunks | \d+.\d\ds | transcribed",
        r"ERROR - Error processing sequence at 2026-03-01 07:00:00 after \d+.\d\ds: the connection",
        r"INFO - Finished: 2 sequences in \d+.\ds | transcribed=1 empty=0 errors=1 skipped=0",
    ):
        pattern = (
            re.escape(line)
            .replace(r"\\d\+\.\\d\\d", r"\d+\.\d\d")
            .replace(r"\\d\+\.\\ds", r"\d+\.\ds")
        )
        assert re.search(f"^{STAMP} - {pattern}", log, re.MULTILINE), line
    assert log.rstrip().splitlines()[-1].split(" - ", 2)[2].startswith("Finished: ")
    assert "Traceback (most recent call last)" in log, "the file has the stack trace"
    assert "Traceback" not in done.stderr, "the console has one line"


def test_log_times_are_those_of_the_wall_clock(world: World, whisper: FakeWhisper) -> None:
    world.record(range(1))
    world.run(env={"TZ": "Asia/Tokyo"})
    assert "Processing sequence: 2026-03-01 17:00:00 | 1 chunks" in world.log


def test_a_log_folder_that_cannot_be_written_is_a_warning_not_an_end(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(2))
    blocker = world.folder / "blocker"
    blocker.write_text("a file where the folder should be")
    done = world.run("--log-file", str(blocker / "logs" / "stt.log"))
    assert done.returncode == 0
    assert "WARNING - No log file" in done.stderr
    world.assert_all_done()


def test_the_log_rotates_at_10_mb_and_keeps_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (logs.MAX_BYTES, logs.BACKUPS) == (10_000_000, 5)
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    logs.set_up(tmp_path / "logs" / "stt.log")
    for number in range(600):
        logs.log.info("line %d", number)
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == [
        "stt.log",
        *(f"stt.log.{n}" for n in range(1, 6)),
    ]


def test_known_secrets_are_blotted_out_whoever_logs_them(tmp_path: Path) -> None:
    logs.set_up(tmp_path / "stt.log", ["s3cret"])
    try:
        raise ValueError("s3cret in a library's error")
    except ValueError:
        logging.getLogger("stt").exception("mongodb://u:s3cret@h")
    text = (tmp_path / "stt.log").read_text()
    assert "s3cret" not in text
    assert text.count("***") >= 2


def test_neither_keys_nor_passwords_nor_transcript_text_are_shown(
    world: World, whisper: FakeWhisper
) -> None:
    world.record(range(3), data=b"what somebody said")
    world.record(range(3), data=b"what somebody else said", start=START + timedelta(hours=1))

    def sometimes(request: Request) -> Reply:
        return status(400) if b"else" in request.audio[0] else echo(request)

    whisper.script = sometimes
    secret = world.uri.replace("mongodb://", "mongodb://") + "/?appName=x"
    url = whisper.url.replace("http://", "http://joe:hunter2@")
    done = world.run(env={"STT_API_KEY": "k3y-k3y", "STT_SERVER_URL": url, "MONGODB_URI": secret})
    everything = done.stdout + done.stderr + world.log + str(world.pending())
    for planted in ("k3y-k3y", "hunter2", "what somebody"):
        assert planted not in everything
    assert whisper.requests[0].headers["x-api-key"] == "k3y-k3y"
    [document] = world.transcriptions.find()
    assert "hunter2" not in document["server"]


# -- the bar ----------------------------------------------------------------------------------


def test_the_bar_counts_sequences_and_log_lines_do_not_tear_it(
    world: World, whisper: FakeWhisper
) -> None:
    for number in range(7):
        world.record(range(6), original_id=number, silent=[3])
    screen = on_a_terminal(world, "--max-workers", "2")
    bars = re.findall(r"\r(Processing sequences: [^\r\n]*)", screen)
    assert bars
    assert re.search(
        r"Processing sequences: 100%\|█+\| 14/14 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(seq/s|s/seq)\] "
        r"transcribed=14 empty=0 errors=0",
        bars[-1],
    )
    for line in screen.replace("\r\n", "\n").split("\n"):
        visible = line.rsplit("\r", 1)[-1].strip()
        if " - INFO - " in visible:
            assert re.match(STAMP, visible), f"torn: {visible!r}"


def test_the_bar_weighs_sequences_by_their_audio(world: World, whisper: FakeWhisper) -> None:
    world.record(range(30), original_id="long", start=START + timedelta(hours=1))
    world.record(range(1), original_id="short")

    def slowly(request: Request) -> Reply:
        time.sleep(1.0 if request.audio[0].startswith(b"short") else 0.0)
        return echo(request)

    whisper.script = slowly
    screen = on_a_terminal(world)
    bars = re.findall(r"\r(Processing sequences: [^\r\n]*)", screen)
    assert any(re.search(r" 97%\|.*\| 1/2 \[00:0\d<00:00, .*errors=0", b) for b in bars)
    assert re.search(r"100%.* 2/2 ", bars[-1])


def test_there_is_no_bar_when_the_output_is_no_terminal(world: World, whisper: FakeWhisper) -> None:
    world.record(range(2))
    done = world.run()
    assert "Processing sequences:" not in done.stdout + done.stderr
    assert "\r" not in done.stderr


# -- order, limits, workers -------------------------------------------------------------------


def test_sequences_start_newest_first(world: World, whisper: FakeWhisper) -> None:
    for number in range(40):
        world.record(range(2), original_id=number, start=START + timedelta(hours=number))
    assert world.run("--max-workers", "1").returncode == 0
    order = [int(r.audio[0].split(b"/")[0]) for r in whisper.requests]
    assert order == list(range(39, -1, -1))


@pytest.mark.parametrize("workers", [1, 3])
def test_max_workers_is_the_number_of_requests_in_flight(
    world: World, whisper: FakeWhisper, workers: int
) -> None:
    for number in range(9):
        world.record(range(2), original_id=number)
    open_: list[Request] = []

    def together(request: Request) -> Reply:
        """Answer only when as many as possible are here, or nobody else comes."""
        with whisper.changed:
            open_.append(request)
            whisper.changed.notify_all()
            whisper.changed.wait_for(lambda: len(open_) % workers == 0, 5)
        return echo(request)

    whisper.script = together
    assert world.run("--max-workers", str(workers)).returncode == 0
    assert whisper.max_in_flight == workers
    world.assert_all_done()


def test_limit_is_the_number_of_sequences_attempted(world: World, whisper: FakeWhisper) -> None:
    for number in range(10):
        world.record(range(2), original_id=number)
    done = world.run("--limit", "4", "--max-workers", "3")
    assert done.returncode == 0
    assert len(whisper.requests) == 4
    assert "Finished: 4 sequences" in done.stderr


def test_a_slow_sequence_holds_nobody_up(world: World, whisper: FakeWhisper) -> None:
    """Not even when the batch that it belongs to is long over."""
    world.record(range(2), original_id="slow", start=START + timedelta(hours=1))
    world.chunks.insert_many(
        [
            {
                "original_id": n,
                "index": 0,
                "start": START - timedelta(seconds=n),
                "vad": {"has_speech": True, "prob": 1.0},
                "data": b"x",
                "format": "opus",
            }
            for n in range(1100)
        ]
    )

    def script(request: Request) -> Reply:
        if b"slow" in request.audio[0]:
            with whisper.changed:
                assert whisper.changed.wait_for(lambda: len(whisper.requests) >= 1101, 100)
        return echo(request)

    whisper.script = script
    done = world.run("--max-workers", "2", "--timeout-base", "100", seconds=110)
    assert done.returncode == 0, done.stderr
    world.assert_all_done()


def test_connections_are_kept_alive(world: World, whisper: FakeWhisper) -> None:
    ports: set[int] = set()
    inner = whisper._server.process_request

    def count(request: Any, address: Any) -> None:
        ports.add(address[1])
        inner(request, address)

    whisper._server.process_request = count  # type: ignore[method-assign, assignment]
    for number in range(20):
        world.record(range(2), original_id=number)
    world.run("--max-workers", "2")
    assert len(whisper.requests) == 20
    assert len(ports) <= 2


def test_commands_on_their_own_do_not_wait_as_long_as_a_worker_that_watches() -> None:
    settings = on_its_own(load({}, {"STT_WATCH": "5"}))
    assert settings.watch is None
    assert (settings.server_wait, settings.mongo_wait) == (60, 60)
    environment = {"STT_WATCH": "5", "STT_SERVER_WAIT": "7", "STT_MONGO_WAIT": "8"}
    settings = on_its_own(load({}, environment))
    assert (settings.server_wait, settings.mongo_wait) == (7, 8)

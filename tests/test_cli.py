"""What a person sees: help, logs, the bar, exit codes, and never a secret."""

import json
import logging
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stt_lib import __version__
from stt_lib.cli.options import settings_options
from stt_lib.cli.run import OPTION_GROUPS, OPTIONS
from stt_lib.config.settings import Settings, flag, variable
from stt_lib.errors import FailureKind
from stt_lib.telemetry import logs
from tests.support.terminal import on_a_terminal
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import START, World

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


# -- usage ------------------------------------------------------------------------------------


def test_help_names_every_option_with_its_variable_and_default(world: World) -> None:
    text = " ".join(world.run("--help").stdout.split())
    for name in OPTIONS:
        default = Settings.model_fields[name].default
        assert flag(name) in text
        assert variable(name) in text
        if type(default) in (int, float) and default:
            assert f"[{variable(name)}; default: {default:g}]" in text
    for name in ("MONGODB_URI", "MONGODB_DATABASE", "STT_SERVER_URL", "STT_API_KEY"):
        assert name in text


def test_help_fits_a_narrow_terminal_and_cuts_nothing_short(world: World) -> None:
    text = world.run("--help", env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.removeprefix("Usage: stt.py [OPTIONS] [COMMAND] [ARGS]...")
    headings = re.findall(r"^(\w.*):$", text, re.MULTILINE)
    assert headings[:3] == ["Examples", "Commands", "Options that matter first"]
    assert set(OPTION_GROUPS) < set(headings)
    assert re.search(r"^  --limit N {2,}\w", text, re.MULTILINE), "the text is beside the option"


def test_the_version_is_told(world: World) -> None:
    assert world.run("--version").stdout == f"stt, version {__version__}\n"


def test_every_setting_of_a_run_has_a_flag() -> None:
    of_serve = {"host", "port", "api_key"}
    without_flag = {"mongodb_uri", "mongodb_database"}
    assert set(OPTIONS) == set(Settings.model_fields) - of_serve - without_flag
    assert settings_options(*OPTIONS)(lambda: None) is not None


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--limit", "0"], {}, "--limit must be at least 1"),
        (["--limit", "-1"], {}, "--limit must be at least 1"),
        (["--limit", "many"], {}, "--limit must be a whole number"),
        (["--max-workers", "0"], {}, "--max-workers must be at least 1"),
        (["--max-workers", "-2"], {}, "--max-workers must be at least 1"),
        (["--max-workers", "two"], {}, "--max-workers must be a whole number"),
        (["--limit"], {}, "requires an argument"),
        (["--colour"], {}, "No such option"),
        (["transcribe"], {}, "No such command"),
        (["--limit", "3", "errors"], {}, "--limit goes behind errors"),
        (["status", "--limit", "3"], {}, "see python stt.py status --help"),
        (["errors", "show"], {}, "see python stt.py errors show --help"),
        (["prioritize", "ID", "--level", "high"], {}, "see python stt.py prioritize --help"),
        ([], {"STT_SERVER_URL": "localhost"}, "STT_SERVER_URL is not a URL"),
        ([], {"MONGODB_URI": "mongodb://"}, "MONGODB_URI has no host"),
        ([], {"MONGODB_URI": "mongodb://h:99999"}, "MONGODB_URI cannot be used"),
        ([], {"STT_LEASE": "0.1"}, "STT_LEASE must be at least 3"),
    ],
)
def test_nonsense_exits_2_with_one_line(
    world: World, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = world.run(*arguments, env=environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_mongodb_out_of_reach_exits_3_with_one_line_within_its_time(world: World) -> None:
    done = world.run(env={"MONGODB_URI": "mongodb://u:hunter2@127.0.0.1:9/x"}, seconds=9)
    assert done.returncode == 3
    [line] = done.stderr.splitlines()
    assert "MongoDB at 127.0.0.1:9 is not available" in line
    assert "hunter2" not in line
    assert "is not available" in world.log, "cron's mail may go nowhere"


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
    assert any(
        re.search(r" 97%\|.*\| 1/2 \[00:0\d<00:00, .*errors=0 \| [\d.]+x real", b) for b in bars
    )
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


# -- errors -----------------------------------------------------------------------------------


def test_errors_shows_what_failed_and_brings_it_back(world: World, whisper: FakeWhisper) -> None:
    assert "Nothing has failed" in world.run("errors").stdout
    world.record([0], original_id="bad")
    world.record([0], original_id="gone", data=None)
    whisper.script = lambda _: status(400) if _.audio[0].startswith(b"bad") else echo(_)
    assert world.run("--max-failures", "1").returncode == 1

    rows = {kind["kind"]: kind for kind in json.loads(world.run("errors", "--json").stdout)}
    assert set(rows) == {"invalid_audio", "invalid_chunk"}
    assert rows["invalid_audio"]["chunks"] == rows["invalid_audio"]["parked"] == 1
    assert rows["invalid_audio"]["due"] == 0
    table = world.run("errors").stdout
    assert re.search(r"invalid_audio +1 +0 +0 +1 ", table)

    story = world.run("errors", "show", "bad").stdout
    assert "parked since" in story
    assert "invalid_audio: " in story
    [bad] = world.chunks.find({"original_id": "bad"})
    assert world.run("errors", "show", str(bad["_id"])).stdout == story
    told = json.loads(world.run("errors", "show", "bad", "--json").stdout)
    assert told[0]["history"][0]["kind"] == "invalid_audio"

    done = world.run("errors", "retry", "--kind", "invalid_audio")
    assert done.stdout.splitlines()[0] == "1 failed chunk(s) will be due now …"
    whisper.script = echo
    assert world.run().returncode == 0
    assert [d["original"] for d in world.transcriptions.find()] == ["bad"]
    assert "transcribed" in world.run("errors", "show", str(bad["_id"])).stdout


def test_errors_retry_can_be_narrowed_to_one_chunk_or_recording(world: World) -> None:
    for name in ("a", "b"):
        world.record(range(2), original_id=name, data=None)
    assert world.run().returncode == 1
    [one] = world.chunks.find({"original_id": "a", "index": 0})
    assert "1 failed chunk(s)" in world.run("errors", "retry", str(one["_id"])).stdout
    assert "2 failed chunk(s)" in world.run("errors", "retry", "b").stdout
    assert "4 failed chunk(s)" in world.run("errors", "retry").stdout


def test_an_unknown_id_or_kind_is_told(world: World) -> None:
    done = world.run("errors", "show", "nobody")
    assert done.returncode == 1
    assert "no chunk has the id nobody" in done.stderr
    done = world.run("errors", "retry", "nobody")
    assert done.returncode == 1
    assert "no failed chunk has the id nobody" in done.stderr
    done = world.run("errors", "retry", "--kind", "bad luck")
    assert done.returncode == 2
    assert all(str(kind) in done.stderr for kind in FailureKind)

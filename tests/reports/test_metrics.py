"""The metrics: what is exported is right, and dashboard and alerts ask for nothing else."""

import json
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from unittest.mock import MagicMock, Mock, patch

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from stt_lib import __version__
from stt_lib.config.installation import ROOT
from stt_lib.config.loader import load
from stt_lib.config.settings import Settings
from stt_lib.domain.models import FailedKind
from stt_lib.errors import FailureKind
from stt_lib.local.mongod import Mongod
from stt_lib.reports import metrics
from stt_lib.reports.metrics import MOST_CLIENTS, Exporter
from stt_lib.telemetry.stats import Stats
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.whisper import FakeWhisper, Reply, Request, echo, status
from tests.support.world import START, World

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "stt.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "stt.json"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sometimes(request: Request) -> Reply:
    return status(400) if request.audio[0].startswith(b"bad") else echo(request)


def test_the_file_holds_what_a_run_did_and_what_is_left(world: World, whisper: FakeWhisper) -> None:
    world.record(range(30), original_id="good")
    world.record([7], original_id="bad")
    whisper.script = sometimes
    file = world.folder / "stt.prom"
    url = whisper.url.replace("http://", "http://user:planted@")
    more = {"STT_MAX_FAILURES": "1", "STT_SERVER_URL": url}
    assert world.run("--metrics-file", str(file), env=more).returncode == 1

    assert "planted" not in file.read_text()
    samples = read(file.read_text())
    server = ("server", whisper.url)
    expected: Samples = {
        ("stt_sequences_total", (("outcome", "transcribed"),)): 1,
        ("stt_sequences_total", (("outcome", "error"),)): 1,
        ("stt_chunks_total", (("outcome", "transcribed"),)): 30,
        ("stt_chunks_total", (("outcome", "error"),)): 1,
        ("stt_audio_seconds_total", (("outcome", "transcribed"),)): 300,
        ("stt_requests_total", (("result", "answered"), server)): 1,
        ("stt_request_duration_seconds_count", (server,)): 1,
        ("stt_request_realtime_ratio_bucket", (("le", "+Inf"), server)): 1,
        ("stt_request_realtime_ratio_bucket", (("le", "1.0"), server)): 1,
        ("stt_requests_in_flight", (server,)): 0,
        ("stt_server_breaker_open", (server,)): 0,
        ("stt_save_duration_seconds_count", ()): 1,
        ("stt_pending_chunks", ()): 0,
        ("stt_parked_chunks", ()): 1,
        ("stt_failed_chunks", (("kind", "invalid_audio"),)): 1,
        ("stt_mongodb_up", ()): 1,
        ("stt_build_info", (("version", __version__),)): 1,
    }
    assert {key: samples.get(key) for key in expected} == expected
    failed = samples["stt_request_errors_total", (("kind", "invalid_audio"), server)]
    assert failed == samples["stt_requests_total", (("result", "failed"), server)] >= 1
    done_ago = time.time() - samples["stt_last_transcribed_timestamp_seconds", ()]
    assert 0 <= done_ago < 60
    assert [path.name for path in world.folder.glob("*stt.prom*")] == ["stt.prom"]


def test_the_file_is_written_at_the_end_by_sigterm_too(world: World, whisper: FakeWhisper) -> None:
    world.record(range(1), start=START + timedelta(hours=1))
    world.record(range(2))
    file = world.folder / "stt.prom"
    whisper.script = lambda r: echo(r) if len(whisper.requests) == 1 else status(503)
    process = world.start("--metrics-file", str(file))
    wait_until(lambda: len(whisper.requests) >= 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    samples = read(file.read_text())
    assert samples["stt_sequences_total", (("outcome", "transcribed"),)] == 1
    assert samples["stt_pending_chunks", ()] == 2
    assert samples["stt_oldest_pending_timestamp_seconds", ()] == START.timestamp()


def wait_until(is_true: object) -> None:
    deadline = time.monotonic() + 30
    while not is_true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_port_tells_of_the_run_while_it_runs(world: World, whisper: FakeWhisper) -> None:
    world.record(range(3))
    seen: list[str] = []

    def scraping(request: Request) -> Reply:
        [address] = re.findall(r"Metrics at (http://127\.0\.0\.1:\d+/metrics)", world.log)
        with urllib.request.urlopen(address, timeout=10) as answer:
            seen.append(answer.read().decode())
        return echo(request)

    whisper.script = scraping
    assert world.run("--metrics-port", "0").returncode == 0
    samples = read(seen[0])
    server = (("server", whisper.url),)
    assert samples["stt_requests_in_flight", server] == 1
    assert samples["stt_server_limit", server] == 1
    assert samples["stt_sequences_total", (("outcome", "transcribed"),)] == 0


def test_an_outage_of_mongodb_is_shown_and_fresh_figures_follow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(metrics, "LARGEST_SHARE", 1.0)
    monkeypatch.setattr("stt_lib.store.database.CONNECT_SECONDS", 0.3)
    mongod, file = Mongod(tmp_path), tmp_path / "stt.prom"

    def shows(name: str, value: float) -> bool:
        return file.exists() and read(file.read_text()).get((name, ())) == value

    mongod.start()
    try:
        world = World(mongod.uri, tmp_path)
        settings = load({"watch": "5", "metrics_file": str(file)}, world.env)
        assert settings.mongo_wait == math.inf
        with Exporter(settings, Mock(stats=Stats(), servers=[])):
            eventually(lambda: shows("stt_mongodb_up", 1))
            mongod.kill()
            eventually(lambda: shows("stt_mongodb_up", 0))
            mongod.start()
            world.record(range(3))
            eventually(lambda: shows("stt_pending_chunks", 3))
            assert shows("stt_mongodb_up", 1)
        world.close()
    finally:
        mongod.kill()


def test_a_run_may_begin_its_metrics_while_mongodb_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_lib.store.database.CONNECT_SECONDS", 0.1)
    file = tmp_path / "stt.prom"
    away = {"MONGODB_URI": f"mongodb://127.0.0.1:{free_port()}"}
    settings = load({"metrics_file": str(file)}, away)
    with Exporter(settings, Mock(stats=Stats(), servers=[])):
        pass
    assert read(file.read_text())["stt_mongodb_up", ()] == 0


def test_the_pause_after_a_failed_query_does_not_grow_with_the_time_it_took() -> None:
    exporter = Exporter(Settings(), Mock())
    pauses: list[float] = []

    def refresh() -> None:
        exporter._is_mongodb_up = len(pauses) == 2
        clock.monotonic.return_value += 600

    def wait(pause: float) -> bool:
        pauses.append(pause)
        return len(pauses) > 2

    clock = Mock(monotonic=Mock(return_value=0.0))
    with (
        patch.object(metrics, "time", clock),
        patch.object(exporter, "refresh", refresh),
        patch.object(exporter, "_over", Mock(wait=wait)),
    ):
        exporter._keep()
    assert pauses == [0, metrics.INTERVAL_SECONDS, 600 / metrics.LARGEST_SHARE]


def test_slow_clients_have_few_threads_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CLIENT_SECONDS", 0.5)
    server = metrics._listen(CollectorRegistry(), "127.0.0.1", 0)
    others = threading.active_count()
    with ExitStack() as clients:
        slow = []
        for _ in range(5 * MOST_CLIENTS):
            address = ("127.0.0.1", server.server_port)
            client = clients.enter_context(socket.create_connection(address))
            client.sendall(b"GET /met")
            slow.append(client)
            assert threading.active_count() - others <= MOST_CLIENTS
        eventually(lambda: threading.active_count() <= others, what="no thread is left")
        assert all(is_closed(client) for client in slow)
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        assert urllib.request.urlopen(url, timeout=10).status == 200
    server.shutdown()
    server.server_close()


def is_closed(client: socket.socket) -> bool:
    """Whether the server has ended a connection, on which more may have been sent than it read."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_port_that_is_taken_is_told_before_any_work(world: World) -> None:
    world.record(range(1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = world.run("--metrics-port", str(port))
    assert done.returncode == 2
    assert f"--metrics-port: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(world.pending()) == 1


def test_a_file_that_can_never_be_written_is_told_before_any_work(world: World) -> None:
    done = world.run("--metrics-file", str(world.folder / "nowhere" / "stt.prom"))
    assert done.returncode == 2
    assert "does not exist or is not writable" in done.stderr


def test_without_metrics_nothing_of_them_is_loaded() -> None:
    code = "import sys, stt_lib.cli; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# -- dashboard and alerts ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported() -> set[str]:
    """Every name that there can be, from a run that has seen it all."""
    stats = Stats()
    stats.answered("server", seconds=1, audio=10)
    stats.failed("server", FailureKind.TIMEOUT)
    server = Mock(in_flight=1, limit=Mock(value=2), is_out=False)
    server.name = "server"
    store = MagicMock()
    store.__enter__.return_value = store
    store.failures.kinds.return_value = [FailedKind("timeout", 1, 1, 0, None, START, START)]
    store.chunks.count_pending.return_value = 5
    store.chunks.first_and_last_pending.return_value = [], [Mock(start=START)]
    store.statistics.last_done.return_value = START
    exporter = Exporter(Settings(), Mock(stats=stats, servers=[server]))
    with patch.object(metrics, "Store", return_value=store):
        exporter.refresh()
    return {sample.name for family in exporter.collect() for sample in family.samples}


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bstt_[a-z_]+", text))


def test_the_alerts_ask_for_what_is_exported(exported: set[str]) -> None:
    asked = names_in(re.sub(r"summary:.*|description:[^\n]*(\n {12}.*)*", "", RULES.read_text()))
    assert len(asked) >= 6
    assert asked <= exported


def test_the_dashboard_asks_for_what_is_exported(exported: set[str]) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set().union(*map(names_in, queries))
    assert asked <= exported
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    not_shown = {"stt_chunks_total", "stt_requests_total", "stt_mongodb_up"}
    assert families - shown == not_shown | {"stt_run_start_timestamp_seconds"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_documentation_explains_every_metric(exported: set[str]) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}
    monitoring = (ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(stt_[a-z_]+)", monitoring, re.MULTILINE)
    assert set(rows) == families


def promtool(*arguments: str, stdin: str | None = None, folder: Path = PROMETHEUS) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, input=stdin, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_alerts_fire_when_they_should() -> None:
    promtool("check", "rules", "--lint-fatal", RULES.name)
    promtool("test", "rules", "stt.rules.test.yml")


@needs_promtool
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    (tmp_path / "queries.yml").write_text(
        json.dumps({"groups": [{"name": "dashboard", "rules": rules}]})
    )
    promtool("check", "rules", "queries.yml", folder=tmp_path)


@needs_promtool
def test_names_and_units_follow_the_conventions(world: World, whisper: FakeWhisper) -> None:
    world.record(range(1))
    file = world.folder / "stt.prom"
    assert world.run("--metrics-file", str(file)).returncode == 0
    promtool("check", "metrics", stdin=file.read_text())

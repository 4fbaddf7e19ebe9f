"""A worker feeds replicas of Ray Serve, and a node of the cluster dies in the middle."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from stt_lib.local.mongod import Mongod
from tests.local.sounds import SAMPLES
from tests.soak.conftest import Figures, Size, Worlds
from tests.support import ray_cluster
from tests.support.crew import Crew, Hand, eventually
from tests.support.ports import free_port
from tests.support.processes import cpu_seconds, is_healthy, private_bytes
from tests.support.promises import assert_kept, fill
from tests.support.ray_cluster import Cluster
from tests.support.world import ROOT, World

REPLICAS = 8
SEQUENCES = 500
MODELS = 2
BACK_WITHIN_SECONDS = 90.0
RETRIES = {"STT_BACKOFF_BASE": "1", "STT_BACKOFF_MAX": "10"}
"""As by default or nearly so: the tests' own back-off is over before a node is missed."""


@pytest.fixture
def cluster(
    size: Size, figures: Figures, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    if not size.is_long:
        pytest.skip("a Ray cluster takes a minute and 2 GB: run it with --soak")
    if not (ray_cluster.BIN / "ray").exists():
        pytest.skip("Ray is not installed: `make soak` installs it into .venv-ray")
    began = time.monotonic()
    with Cluster(tmp_path_factory.mktemp("ray"), cpus=2) as running:
        figures.add(f"two nodes are up after {time.monotonic() - began:.1f} s")
        yield running


def _rate(done: Callable[[], int], seconds: float) -> float:
    """Sequences per second, over a span of time from now on."""
    before = done()
    time.sleep(seconds)
    return (done() - before) / seconds


def _seconds_until_as_fast_as(rate: float, done: Callable[[], int], worker: Hand) -> float:
    began = time.monotonic()
    while _rate(done, 5.0) < 0.9 * rate:
        assert worker.runs, "the backlog ended before the throughput was back"
        assert time.monotonic() - began < BACK_WITHIN_SECONDS
    return time.monotonic() - began


@pytest.mark.timeout(600)
def test_a_node_that_dies_loses_nothing(
    cluster: Cluster,
    mongod: Mongod,
    crew: Crew,
    worlds: Worlds,
    rng: random.Random,
    figures: Figures,
) -> None:
    began = time.monotonic()
    cluster.deploy(
        "tests.support.ray_stub:app", cpus=0.5, min_replicas=REPLICAS, max_replicas=REPLICAS
    )
    figures.add(f"{REPLICAS} stub replicas answer after {time.monotonic() - began:.1f} s more")
    world = worlds(mongod.uri, cluster.url)
    fill(world, SEQUENCES, rng)

    def done() -> int:
        return world.transcriptions.count_documents({})

    worker = crew.start(world, "--max-workers", str(REPLICAS), env=RETRIES)
    eventually(lambda: done() > 60, 90, "the first transcripts")
    before = _rate(done, 10.0)
    killed = cluster.kill_second()
    died = time.monotonic()
    while_away = _rate(done, 5.0)
    cluster.start_second()
    back = time.monotonic() - died
    took = back + _seconds_until_as_fast_as(before, done, worker)
    figures.add(
        f"{before:.1f} sequences/s; {killed} processes killed: {while_away:.1f}/s; node back after "
        f"{back:.0f} s, throughput after {took:.0f} s"
    )
    assert took < BACK_WITHIN_SECONDS
    code = worker.end(300)
    failed = len(world.pending())
    if failed:
        crew.run_until_done(world, "--retry-errors", "--max-workers", str(REPLICAS))
    assert_kept(world)
    figures.add(f"exit code {code}, {failed} chunks left to another run")


@contextmanager
def _plain_servers(number: int) -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """Run `stt.py serve` on a core of its own, as often as asked."""
    started = []
    for core in range(number):
        port = free_port()
        command = (sys.executable, str(ROOT / "stt.py"), "serve", "--port", str(port))
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # as the nodes: the kernel shares a busy CPU among sessions
        )
        started.append((f"http://127.0.0.1:{port}", process))
    try:
        yield started
    finally:
        for _, process in started:
            process.kill()
            process.wait()


def _transcribe_speech(world: World, crew: Crew, servers: Callable[[], Iterable[int]]) -> str:
    """Transcribe the sample recordings; return what that took of the servers' processes."""
    samples = map(str, sorted(SAMPLES.glob("*.opus")))
    assert world.run("ingest", *samples, seconds=300).returncode == 0
    began, cpu = time.monotonic(), sum(map(cpu_seconds, servers()))
    code, worker = crew.run(world, "--max-workers", str(MODELS), seconds=300)
    assert code == 0, worker.console
    world.assert_all_done()
    took, used = time.monotonic() - began, sum(map(cpu_seconds, servers())) - cpu
    memory = sum(map(private_bytes, servers()))
    return f"done in {took:.1f} s with {used:.1f} s of CPU and {memory / 1e6:.0f} MB of memory"


@pytest.mark.timeout(600)
def test_the_model_on_two_nodes_and_without_ray(
    cluster: Cluster, mongod: Mongod, crew: Crew, worlds: Worlds, figures: Figures
) -> None:
    began = time.monotonic()
    cluster.deploy("deploy.ray.whisper:app", min_replicas=MODELS, max_replicas=MODELS)
    ready = time.monotonic() - began
    took = _transcribe_speech(worlds(mongod.uri, cluster.url), crew, cluster.processes)
    figures.add(f"Ray: {MODELS} replicas ready after {ready:.1f} s, {took}")
    cluster.close()

    began = time.monotonic()
    with _plain_servers(MODELS) as servers:
        urls = [url for url, _ in servers]
        eventually(lambda: all(map(is_healthy, urls)), 60, "servers that are ready")
        ready = time.monotonic() - began
        world = worlds(mongod.uri, ",".join(urls))
        took = _transcribe_speech(world, crew, lambda: [one.pid for _, one in servers])
    figures.add(f"serve: {MODELS} processes ready after {ready:.1f} s, {took}")

"""Measurement 7: a real model behind the worker, and called directly."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from stt_lib.local.ingest import read_recording, samples
from stt_lib.local.transcriber import BUNDLED_MODEL
from stt_lib.store import Store
from tests.benchmarks import direct, processes
from tests.benchmarks.backlog import Backlog
from tests.benchmarks.lab import Goal, Lab, Row, Table, middle
from tests.benchmarks.processes import Failed
from tests.support.world import ROOT

WORKERS = 2
READY_SECONDS = 120.0
_READY = re.compile(r"^Whisper server ready on (http://\S+)$", re.MULTILINE)


def real_model(lab: Lab) -> Table:
    """7. The samples through worker and server against faster-whisper called directly."""
    rounds: list[Row] = []
    with closing(Backlog(lab.mongod.uri, "bench_samples", 0)) as backlog:
        _ingest(backlog)
        with whisper_server(lab.folder) as (url, pid):
            for _ in range(lab.sizes.rounds):
                rounds.append(_round(lab, backlog, url, pid))
                backlog.reset()
    ratio = middle(row["ratio"] for row in rounds)
    return Table(
        "7. Real model: wall-clock of worker and server against faster-whisper called directly",
        rounds,
        [Goal("wall-clock, of the direct call's", 1.05, ratio, at_least=False)],
        (
            "Both with tiny.en, int8, two threads of one core each; the model is loaded before "
            "either clock starts. The worker's clock is that of its whole process; in run is "
            "from its first to its last line of log. CPU is that of worker and server together; "
            "its ratio holds on a machine that has other work, too.",
        ),
    )


def _round(lab: Lab, backlog: Backlog, url: str, pid: int) -> Row:
    command = [sys.executable, "-m", "tests.benchmarks.direct", "--parallel", str(WORKERS)]
    called = json.loads(processes.run(command, lab.folder).output)
    cpu = processes.cpu_seconds(pid)
    run = lab.stt(backlog, [url], "--max-workers", str(WORKERS))
    cpu = processes.cpu_seconds(pid) - cpu + run.cpu_seconds
    saved = backlog.transcripts()
    if not 0 < saved <= called["sequences"]:
        raise Failed(f"{saved} transcripts instead of {called['sequences']}")
    return {
        "audio s": round(called["audio_seconds"], 1),
        "sequences": called["sequences"],
        "worker s": round(run.seconds, 2),
        "in run s": _run_seconds(lab.folder / "stt.log"),
        "direct s": round(called["wall"], 2),
        "ratio": round(run.seconds / called["wall"], 3),
        "CPU s": round(cpu, 1),
        "direct CPU s": round(called["cpu_seconds"], 1),
        "CPU ratio": round(cpu / called["cpu_seconds"], 3),
    }


def _run_seconds(log: Path) -> float:
    return float(re.findall(r"Finished: \d+ sequences? in ([\d.]+)s", log.read_text())[-1])


def _ingest(backlog: Backlog) -> None:
    with Store(backlog.uri, backlog.name) as store:
        for path, start in samples(direct.START):
            store.chunks.insert(read_recording(path, start))


@contextmanager
def whisper_server(folder: Path, model: str = BUNDLED_MODEL) -> Iterator[tuple[str, int]]:
    """Yields its address and process id; `model` is a name or a folder."""
    output = folder / "whisper.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "stt.py"), "serve", "--port", "0", "--model", model],
            env=processes.environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _address(output, process), process.pid
    finally:
        process.terminate()
        process.wait()


def _address(output: Path, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready := _READY.search(output.read_text(errors="replace")):
            return ready.group(1)
        time.sleep(0.05)
    raise Failed(f"the Whisper server did not start:\n{output.read_text(errors='replace')[-2000:]}")

"""A Ray cluster of two nodes on this machine: started, deployed to, killed in part, and ended.

Every process of a node inherits a mark in its environment. A node is ended by killing what carries
its mark, so that nothing is left behind and nothing else is touched.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.crew import eventually
from tests.support.ports import free_port
from tests.support.processes import is_healthy
from tests.support.world import ROOT

BIN = ROOT / ".venv-ray" / "bin"
"""Ray has an environment of its own: it needs hundreds of megabytes and pins of its own."""

MARK = "STT_TEST_RAY_NODE"
START_SECONDS = 120.0
COUNT_CPUS = """
import ray
ray.init(log_to_driver=False)
print(ray.cluster_resources().get("CPU", 0))
"""


class Node:
    """One node of the cluster, with all of its processes."""

    def __init__(self, name: str, console: Path, env: Mapping[str, str], *arguments: str) -> None:
        self._mark = f"{MARK}={name}-{secrets.token_hex(8)}"
        with console.open("ab") as file:
            self._process = subprocess.Popen(
                [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *arguments],
                env={**env, MARK: self._mark.partition("=")[2]},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> int:
        """SIGKILL to every process of the node; return their number."""
        killed = 0
        while found := list(self.processes()):
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            killed += len(found)
            time.sleep(0.05)
        self._process.wait()
        return killed

    def processes(self) -> Iterator[int]:
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and self._owns(folder):
                yield int(folder.name)

    def _owns(self, folder: Path) -> bool:
        try:
            return self._mark.encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            return False


class Cluster:
    """A head and one more node, each with the given number of logical CPUs."""

    def __init__(self, folder: Path, cpus: int) -> None:
        self._folder = folder
        self._cpus = cpus
        # The paths of Ray's sockets have to be short.
        self._temporary = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self._address = f"127.0.0.1:{free_port()}"
        self._port = free_port()
        self._env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self._temporary),
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._nodes: list[Node] = []

    def __enter__(self) -> Self:
        port = self._address.rpartition(":")[2]
        place = ("--port", port, "--temp-dir", str(self._temporary), "--include-dashboard=false")
        self._start("head", "--head", "--node-ip-address=127.0.0.1", *place)
        eventually(self._is_up, START_SECONDS, "the head of a Ray cluster")
        self.start_second()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill all nodes; a second call does nothing."""
        while self._nodes:
            self._nodes.pop().kill()
        shutil.rmtree(self._temporary, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def processes(self) -> list[int]:
        """Return the ids of all processes of all nodes."""
        return [pid for node in self._nodes for pid in node.processes()]

    def start_second(self) -> Node:
        """Start the node without the head, and wait until the cluster has both."""
        node = self._start("second", "--address", self._address)
        eventually(lambda: self._cpus_there() == 2 * self._cpus, START_SECONDS, "a second node")
        return node

    def kill_second(self) -> int:
        return self._nodes.pop().kill()

    def deploy(self, application: str, **options: Any) -> None:
        """Run `serve run` with a config file, and wait until the application answers."""
        config = {
            # Both nodes have one address here, so that only one of them can listen.
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self._port},
            "applications": [
                {"name": "whisper", "import_path": application, "args": options},
            ],
        }
        file = self._folder / "serve.yaml"
        file.write_text(json.dumps(config))
        self._run("serve", "run", "--non-blocking", "--address", self._address, str(file))
        eventually(lambda: is_healthy(self.url), START_SECONDS, "an application that answers")

    def _start(self, name: str, *arguments: str) -> Node:
        console = self._folder / f"{name}.console"
        node = Node(name, console, self._env, f"--num-cpus={self._cpus}", *arguments)
        self._nodes.append(node)
        return node

    def _is_up(self) -> bool:
        return _listens(int(self._address.rpartition(":")[2])) and self._cpus_there() > 0

    def _cpus_there(self) -> int:
        done = self._run("python", "-c", COUNT_CPUS, check=False)
        return int(float(done.splitlines()[-1])) if done else 0

    def _run(self, program: str, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [str(BIN / program), *arguments],
            env={**self._env, "RAY_ADDRESS": self._address},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

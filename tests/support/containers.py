"""Container images without a daemon, a registry or a runtime: buildah on a Debian of debootstrap.

A container is run the way the manifests ask for: as process 1 of its own, as the image's user, with
a read-only root and a tmpfs on /tmp. It shares the network of the host.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.world import ROOT

PROGRAMS = ("buildah", "debootstrap", "unshare", "chroot")
BASE = "docker.io/library/python:3.11-slim"
CERTIFICATES = Path("/etc/ssl/certs")
BASE_FILE = """
FROM scratch
ADD rootfs /
RUN ln -s python3 /usr/bin/python
ENV PIP_BREAK_SYSTEM_PACKAGES=1
"""
STORAGE = """
[storage]
driver = "{driver}"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""

START = """
root=$1 user=$2 folder=$3
shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"""


def missing() -> list[str]:
    """What has to be installed before images can be built here."""
    root = [] if os.geteuid() == 0 else ["root"]
    return root + [name for name in PROGRAMS if shutil.which(name) is None]


class Container:
    """A running container; its console is a file, so that nothing blocks on a full pipe."""

    def __init__(
        self,
        root: Path,
        config: Mapping[str, Any],
        arguments: Iterable[str],
        env: Mapping[str, str],
        console: Path,
    ) -> None:
        command = [*config.get("Entrypoint", ()), *(list(arguments) or config["Cmd"])]
        place = (str(root), config["User"], config["WorkingDir"])
        isolated = ("unshare", "--mount", "--pid", "--fork")
        self._console = console
        with console.open("wb") as file:
            self._process = subprocess.Popen(
                [*isolated, "sh", "-euc", START, "sh", *place, *command],
                env=dict(pair.split("=", 1) for pair in config["Env"]) | dict(env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def console(self) -> str:
        return self._console.read_text()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to process 1 of the container."""
        outer = self._process.pid
        [first] = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        os.kill(int(first), number)

    def end(self, seconds: float = 120.0) -> int:
        """Wait for the end; return the exit code."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """Kill process 1, and with it all others of the container."""
        # Killing `unshare` alone would leave the container running.
        if self.runs:
            self.signal(signal.SIGKILL)
        self._process.wait()


class Builder:
    """Builds the project's images into a store of its own, and runs them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Container] = []
        self._context = folder / "base"
        self._context.mkdir()
        storage = folder / "storage.conf"
        storage.write_text(STORAGE.format(driver=_driver(), folder=folder))
        self._env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
            "TOOL": "buildah",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for container in self._started:
            container.kill()
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")

    def build(self) -> dict[str, float]:
        """Build everything as `make images` does; return the seconds that each step took."""
        took = {}
        for step in (self._bootstrap, self._base, self._images):
            began = time.monotonic()
            step()
            took[step.__name__.strip("_")] = time.monotonic() - began
        return took

    def sizes(self) -> dict[str, str]:
        """Return the size of each image, as buildah shows it."""
        lines = self._buildah("images", "--format", "{{.Name}} {{.Size}}").splitlines()
        return {
            name: size.strip()
            for name, _, size in (line.partition(" ") for line in lines)
            if "/stt" in name
        }

    def start(self, image: str, *arguments: str, env: Mapping[str, str] | None = None) -> Container:
        """Run an image by its name without a registry or a tag."""
        container = self._buildah("from", "--pull-never", f"localhost/{image}").strip()
        root = Path(self._buildah("mount", container).strip())
        config = json.loads(self._buildah("inspect", container))["OCIv1"]["config"]
        console = self._folder / f"{container}.console"
        self._started.append(Container(root, config, arguments, env or {}, console))
        return self._started[-1]

    def _bootstrap(self) -> None:
        packages = "python3,python3-pip,ca-certificates"
        target = str(self._context / "rootfs")
        self._run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", target)

    def _base(self) -> None:
        (self._context / "Dockerfile").write_text(BASE_FILE)
        self._buildah("bud", "--pull-never", "--tag", BASE, str(self._context))
        shutil.rmtree(self._context)

    def _images(self) -> None:
        volume = f"{CERTIFICATES}:{CERTIFICATES}:ro"
        self._run(str(ROOT / "deploy/docker/build.sh"), "--pull-never", "--volume", volume)

    def _buildah(self, *arguments: str) -> str:
        return self._run("buildah", *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, env=self._env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout


def _driver() -> str:
    """Overlay where the kernel has it: vfs copies the whole image for each container."""
    return "overlay" if "\toverlay\n" in Path("/proc/filesystems").read_text() else "vfs"

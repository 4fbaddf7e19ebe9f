"""Dockerfile, build script and compose file: the specification's own parser reads the latter."""

import json
import os
import re
import subprocess
from pathlib import Path

import pymongo
import pytest
import yaml  # type: ignore[import-untyped]
from compose_spec import PyCompose

from stt_lib import __version__
from stt_lib.config.settings import Settings
from tests.deploy.reading import (
    DEPLOY,
    LONGEST_REQUEST_SECONDS,
    accepted,
    understood,
)
from tests.support.world import ROOT

DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()
COMPOSE_TEXT = (DEPLOY / "docker" / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
WORKER, WHISPER = COMPOSE["services"]["stt"], COMPOSE["services"]["whisper"]


def test_every_default_command_is_understood() -> None:
    stages = [stage for stage in DOCKERFILE.split("FROM ") if "ENTRYPOINT []" not in stage]
    lines = re.findall(r"^CMD (.*)$", "".join(stages), re.MULTILINE)
    commands = [json.loads(line) for line in lines]
    assert len(commands) == 2
    for command in [*commands, WORKER["command"], WHISPER["command"]]:
        understood(command)


def test_every_variable_exists_and_its_value_is_valid(tmp_path: Path) -> None:
    accepted(dict(re.findall(r"\b(STT_\w+)=(\S*)", DOCKERFILE)), tmp_path)
    accepted(WORKER["environment"], tmp_path)


def test_the_images_get_what_they_copy() -> None:
    copied = set(re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE))
    ignored = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    for name in copied:
        assert (ROOT / name).exists()


def test_the_images_run_as_an_ordinary_user() -> None:
    for stage in DOCKERFILE.split("FROM ")[1:]:
        assert re.findall(r"^USER (.*)$", stage, re.MULTILINE)[-1] == "65534:65534"


def test_only_the_embedded_mongodb_and_its_libcurl_are_left_out_of_the_server_image() -> None:
    lines = (ROOT / "requirements-local.txt").read_text().splitlines()
    [pattern] = re.findall(r"grep -Ev '(.*)' requirements-local.txt", DOCKERFILE)
    left_out = [line for line in lines if re.search(pattern, line)]
    assert [re.split("[-=]", line)[0] for line in left_out] == ["fiftyone", "pycurl"]


def test_the_compose_file_follows_the_specification() -> None:
    PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).validate()


def test_an_ingester_outside_is_not_sent_to_the_name_that_only_containers_resolve() -> None:
    [uri] = re.findall(r"^# .*(mongodb://\S+)", COMPOSE_TEXT, re.MULTILINE)
    host, _, port = COMPOSE["services"]["mongodb"]["ports"][0].rpartition(":")[0].partition(":")
    with pymongo.MongoClient[dict[str, int]](uri, connect=False) as client:
        assert client.topology_description.topology_type_name == "Single"
        assert list(client.topology_description.server_descriptions()) == [(host, int(port))]


def test_the_containers_can_write_nothing_but_a_tmpfs() -> None:
    for service in (WORKER, WHISPER):
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_waits_long_enough_when_it_stops() -> None:
    assert int(WORKER["stop_grace_period"].removesuffix("s")) > Settings().grace + 10
    assert int(WHISPER["stop_grace_period"].removesuffix("s")) > LONGEST_REQUEST_SECONDS


STUB = """#!/bin/sh
echo "{tool} $*" >> "$CALLS"
case "$1 $*" in
    info*) exit {daemon} ;;
    inspect*RepoDigests* | inspect*FromImageDigest*) echo "{digest}" ;;
esac
"""


def _builds(
    folder: Path,
    digest: str = "",
    daemon: int = 0,
    env: dict[str, str] | None = None,
    **tools: bool,
) -> list[str]:
    """Run build.sh with stubs for these tools; return the builds that it started."""
    stubs = folder / "bin"
    stubs.mkdir()
    for tool in tools:
        stub = stubs / tool
        stub.write_text(STUB.format(tool=tool, digest=digest, daemon=daemon))
        stub.chmod(0o755)
    for tool in ("sh", "sed", "dirname", "cat"):
        (stubs / tool).symlink_to(f"/usr/bin/{tool}")
    calls = folder / "calls"
    done = subprocess.run(
        [str(DEPLOY / "docker" / "build.sh"), "--pull-never"],
        env={"PATH": str(stubs), "CALLS": str(calls), **(env or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in calls.read_text().splitlines() if " --target " in line]


def test_both_images_are_built_with_their_versions(tmp_path: Path) -> None:
    worker, server = _builds(tmp_path, docker=True)
    assert worker.startswith("docker build --pull-never ")
    assert f"--target worker --tag stt:{__version__} " in worker
    assert f"--target server --tag stt-server:{__version__} " in server


def test_the_images_have_the_names_that_the_manifests_use(tmp_path: Path) -> None:
    targets = {"TARGETS": "worker server server-cuda ray"}
    tags = [
        re.findall(r"--tag (\S+)", line) for line in _builds(tmp_path, env=targets, docker=True)
    ]
    folders = DEPLOY / "kubernetes", DEPLOY / "ray"
    manifests = "\n".join(path.read_text() for one in folders for path in one.glob("*.yaml"))
    assert {tag for [tag] in tags} == set(re.findall(r"\bimage: (\S+)", manifests))


def test_docker_without_a_daemon_is_passed_over(tmp_path: Path) -> None:
    worker, _ = _builds(tmp_path, daemon=1, docker=True, buildah=True)
    assert worker.startswith("buildah bud --format docker ")


@pytest.mark.parametrize("digest", ["python@sha256:12ab", "sha256:12ab"])
def test_the_base_is_pinned_by_its_digest(tmp_path: Path, digest: str) -> None:
    worker, _ = _builds(tmp_path, digest, podman=True)
    assert "--build-arg BASE=docker.io/library/python@sha256:12ab " in worker


@pytest.mark.parametrize("tag", ["", ":3.11-slim"])
def test_the_port_of_a_registry_is_not_taken_for_a_tag(tmp_path: Path, tag: str) -> None:
    base = {"BASE": f"localhost:5000/python{tag}"}
    worker, _ = _builds(tmp_path, "sha256:12ab", env=base, podman=True)
    assert "--build-arg BASE=localhost:5000/python@sha256:12ab " in worker


def test_a_base_without_a_digest_goes_by_its_name(tmp_path: Path) -> None:
    worker, _ = _builds(tmp_path, podman=True)
    assert "--build-arg BASE=docker.io/library/python:3.11-slim " in worker


def test_without_a_tool_the_script_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    (tmp_path / "sed").symlink_to("/usr/bin/sed")
    done = subprocess.run(
        ["/bin/sh", str(DEPLOY / "docker" / "build.sh")],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "install docker, podman or buildah" in done.stderr

"""The manifests: valid by the schemas of Kubernetes and KEDA, and in agreement with the program."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from cloudcoil.models.keda import v1alpha1 as keda

from stt_lib import __version__
from stt_lib.config.settings import Settings
from stt_lib.store.indexes import WORKABLE
from tests.deploy.reading import (
    DEPLOY,
    LONGEST_REQUEST_SECONDS,
    accepted,
    documents,
    understood,
)

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION = documents(FOLDER / "kustomization.yaml")[0]
MANIFESTS = [
    pytest.param(manifest, id=f"{path.stem}-{manifest['kind']}-{manifest['metadata']['name']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.stem != "kustomization"
    for manifest in documents(path)
]
ALL: list[dict[str, Any]] = [parameter.values[0] for parameter in MANIFESTS]  # type: ignore[misc]
CHUNKS_PER_HOUR = 360


def _of_kind(kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in ALL if manifest["kind"] == kind]


def _named(kind: str, name: str) -> dict[str, Any]:
    [found] = [one for one in _of_kind(kind) if one["metadata"]["name"] == name]
    return found


def _templates() -> Iterator[dict[str, Any]]:
    """Pod templates of everything that runs."""
    for manifest in ALL:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield spec["template"]


def _pods(app: str) -> list[dict[str, Any]]:
    label = "app.kubernetes.io/name"
    return [one["spec"] for one in _templates() if one["metadata"]["labels"][label] == app]


WORKERS, SERVERS = _pods("stt-worker"), _pods("whisper")


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_follows_its_schema(manifest: dict[str, Any]) -> None:
    if manifest["apiVersion"].startswith("keda.sh"):
        getattr(keda, manifest["kind"]).model_validate(manifest, extra="forbid")
    else:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_everything_is_in_the_namespace(manifest: dict[str, Any]) -> None:
    [namespace] = [one["metadata"]["name"] for one in _of_kind("Namespace")]
    assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == namespace


def test_kustomize_lists_files_that_exist_and_images_that_are_used() -> None:
    used = {one["image"] for pod in WORKERS + SERVERS for one in pod["containers"]}
    assert all((FOLDER / name).exists() for name in KUSTOMIZATION["resources"])
    assert {one["name"] for one in KUSTOMIZATION["images"]} == {
        image.split(":")[0] for image in used
    }
    assert {image.split(":")[1] for image in used} == {__version__}
    assert {one["newTag"] for one in KUSTOMIZATION["images"]} == {__version__}


def test_kustomize_which_goes_by_names_can_tell_the_images_apart() -> None:
    ray = (DEPLOY / "ray" / "rayservice.yaml").read_text()
    lines = [ray, *(path.read_text() for path in FOLDER.glob("*.yaml"))]
    used = set(re.findall(r"^\s*(?:- )?image: (\S+)", "\n".join(lines), re.MULTILINE))
    assert len({image.partition(":")[0] for image in used}) == len(used) == 4


def test_every_command_line_is_understood() -> None:
    lines = [one["args"] for pod in WORKERS + SERVERS for one in pod["containers"]]
    assert len(lines) == 4
    for line in lines:
        understood(line)


def test_every_variable_exists_and_its_value_is_valid(tmp_path: Path) -> None:
    shared = _named("ConfigMap", "stt")["data"]
    for pod in WORKERS:
        own = {one["name"]: one["value"] for one in pod["containers"][0].get("env", [])}
        accepted({**shared, **own}, tmp_path)


def test_secrets_are_files_and_never_variables() -> None:
    secret = _named("Secret", "stt")["stringData"]
    named = {one for one in _named("ConfigMap", "stt")["data"].values() if one.startswith("/etc/")}
    assert named == {f"/etc/stt/{key}" for key in secret}
    for pod in WORKERS:
        [container] = pod["containers"]
        assert [one["mountPath"] for one in container["volumeMounts"]] == ["/etc/stt"]
        assert all("secretRef" not in one for one in container["envFrom"])


def test_pods_have_the_time_that_they_need_to_stop() -> None:
    for pod in WORKERS:
        assert pod["terminationGracePeriodSeconds"] > Settings().grace + 10
    for pod in SERVERS:
        drained = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert drained > 15, "workers resolve the name every 15 s"
        assert pod["terminationGracePeriodSeconds"] >= drained + LONGEST_REQUEST_SECONDS


def test_keda_counts_what_is_pending() -> None:
    scaled = _of_kind("ScaledObject")
    assert {one["spec"]["scaleTargetRef"]["name"] for one in scaled} == {"stt-worker", "whisper"}
    for one in scaled:
        [trigger] = one["spec"]["triggers"]
        assert json.loads(trigger["metadata"]["query"]) == WORKABLE
        assert trigger["metadata"]["collection"] == "audio_chunks"
        assert _named("Deployment", one["spec"]["scaleTargetRef"]["name"])
    assert _named("ScaledObject", "whisper")["spec"]["triggers"][0]["metadata"][
        "queryValue"
    ] == str(2 * CHUNKS_PER_HOUR)


def test_workers_are_sent_to_a_headless_service_of_ready_pods() -> None:
    service = _named("Service", "whisper")
    assert service["spec"]["clusterIP"] == "None"
    port = service["spec"]["ports"][0]["port"]
    assert _named("ConfigMap", "stt")["data"]["STT_SERVER_URL"] == f"dns+http://whisper:{port}"
    for pod in SERVERS:
        [container] = pod["containers"]
        assert [one["containerPort"] for one in container["ports"]] == [port]
        assert understood(container["args"]).port == port
        assert container["readinessProbe"]["httpGet"]["path"] == "/health"


def test_a_server_on_a_gpu_asks_for_one() -> None:
    [gpu] = [pod for pod in SERVERS if "nvidia.com/gpu" in str(pod["containers"])]
    resources = gpu["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"


def test_network_policies_close_what_they_do_not_open() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in _of_kind("NetworkPolicy")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "egress" not in policies["whisper"]
    opened = {port["port"] for rule in policies["stt-worker"]["egress"] for port in rule["ports"]}
    assert opened == {53, 8081, 27017}

"""deploy/ray as far as it can be checked without Ray; tests/soak/test_ray.py runs it."""

import ast
import re
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from stt_lib import __version__
from tests.deploy.reading import DEPLOY, LONGEST_REQUEST_SECONDS, documents
from tests.support.world import ROOT

FOLDER = DEPLOY / "ray"
SERVE = documents(FOLDER / "serve.yaml")[0]
RAY_SERVICE, *POLICIES = documents(FOLDER / "rayservice.yaml")
CLUSTER: dict[str, Any] = RAY_SERVICE["spec"]["rayClusterConfig"]
PODS = [
    group["template"]["spec"] for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"])
]


def _options() -> set[str]:
    """Names of the options, read from the source: Ray is not installed where tests run."""
    tree = ast.parse((FOLDER / "whisper.py").read_text())
    [options] = [one for one in ast.walk(tree) if isinstance(one, ast.ClassDef) and one.bases]
    fields = [one.target for one in options.body if isinstance(one, ast.AnnAssign)]
    return {field.id for field in fields if isinstance(field, ast.Name)}


def test_kuberay_gets_the_same_configuration_as_serve() -> None:
    assert yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"]) == SERVE


def test_the_configuration_names_what_exists() -> None:
    [application] = SERVE["applications"]
    module, function = application["import_path"].split(":")
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert f"def {function}(" in source.read_text()
    assert set(application["args"]) <= _options()


def test_the_readme_explains_every_option() -> None:
    readme = (FOLDER / "README.md").read_text()
    assert [name for name in sorted(_options()) if f"`{name}`" not in readme] == []


def test_the_cluster_runs_the_version_that_is_installed() -> None:
    pinned = re.findall(r"^ray\[serve\]==(.*)$", (ROOT / "requirements-ray.txt").read_text(), re.M)
    assert [CLUSTER["rayVersion"]] == pinned
    images = {one["image"] for pod in PODS for one in pod["containers"]}
    assert images == {f"stt-ray:{__version__}"}


def test_the_pods_obey_the_rules_of_the_namespace() -> None:
    [namespace] = documents(DEPLOY / "kubernetes" / "namespace.yaml")
    assert RAY_SERVICE["metadata"]["namespace"] == namespace["metadata"]["name"]
    confined = [CLUSTER["autoscalerOptions"], *(one for pod in PODS for one in pod["containers"])]
    for container in confined:
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in PODS)


def test_a_replica_has_the_time_to_finish_its_longest_request() -> None:
    source = (FOLDER / "whisper.py").read_text()
    assert f"LONGEST_REQUEST_SECONDS = {LONGEST_REQUEST_SECONDS}\n" in source
    assert PODS[-1]["terminationGracePeriodSeconds"] >= LONGEST_REQUEST_SECONDS


@pytest.mark.parametrize("policy", POLICIES, ids=lambda one: one["metadata"]["name"])
def test_a_network_policy_follows_its_schema(policy: dict[str, Any]) -> None:
    kubernetes_validate.validate(policy, "1.37", strict=True)

"""Manifests as `kubectl apply -k` would send them, and what a container gets from them."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = ROOT / "deploy" / "kserve"

Manifest = dict[str, Any]


@cache
def kustomize(folder: Path) -> tuple[Manifest, ...]:
    """The objects that a folder with a kustomization renders to; skips the test where there is no
    Kustomize.
    """
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build"]
    else:
        pytest.skip("needs kubectl or kustomize in PATH (https://kubernetes.io/docs/tasks/tools/)")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    """The objects of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    """The one object of a kind."""
    (found,) = of_kind(manifests, kind)
    return found


def pod_of(manifests: tuple[Manifest, ...]) -> Manifest:
    """The pod that the Deployment makes."""
    pod: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return pod


def container_of(manifests: tuple[Manifest, ...], name: str = "seqserve") -> Manifest:
    """The pod's container of that name."""
    (container,) = [one for one in pod_of(manifests)["containers"] if one["name"] == name]
    assert isinstance(container, dict)
    return container


def environment(manifests: tuple[Manifest, ...]) -> dict[str, str]:
    """What the container's environment gets from ConfigMaps and from the container itself."""
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind(manifests, "ConfigMap")}
    container = container_of(manifests)
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    return found | {variable["name"]: variable["value"] for variable in container.get("env", [])}


def secret_mounts(manifests: tuple[Manifest, ...]) -> dict[str, str]:
    """Names of mounted Secrets by the folder that each is mounted at."""
    secrets = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in pod_of(manifests).get("volumes", [])
        if "secret" in volume
    }
    return {
        mount["mountPath"]: secrets[mount["name"]]
        for mount in container_of(manifests).get("volumeMounts", [])
        if mount["name"] in secrets
    }


def number_of(quantity: str) -> float:
    """A Kubernetes quantity as a number."""
    units = {"m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
    for unit, factor in units.items():
        if quantity.endswith(unit):
            return float(quantity.removesuffix(unit)) * factor
    return float(quantity)

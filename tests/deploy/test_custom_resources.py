"""Objects of the Prometheus operator and of KServe against the definitions that those publish, where a folder
holds them (docs/kubernetes.md).
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.render import KSERVE, Manifest, kustomize, of_kind
from tests.deploy.test_manifests import KEY, write_own

VARIABLE = "CRD_FOLDER"
WHY_NOT = (
    f"needs {VARIABLE}, a folder with the definitions "
    "of prometheus-operator and KServe (docs/kubernetes.md, How to verify)"
)
Schema = dict[str, Any]


@cache
def definitions() -> dict[tuple[str, str], Schema]:
    """Schemas by apiVersion and kind, as published."""
    found = {}
    for path in sorted(Path(os.environ[VARIABLE]).rglob("*.yaml")):
        for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if isinstance(document, dict) and document.get("kind") == "CustomResourceDefinition":
                spec = document["spec"]
                for version in spec["versions"]:
                    key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    found[key] = version["schema"]["openAPIV3Schema"]
    return found


def strict(schema: Schema) -> Schema:
    """The schema with what an API server does beside it: unknown fields are refused, and numbers may stand
    for texts where it says so.
    """
    result: Schema = {}
    for name, value in schema.items():
        match name:
            case "properties":
                result[name] = {field: strict(one) for field, one in value.items()}
            case "items" | "additionalProperties" | "not":
                result[name] = strict(value) if isinstance(value, dict) else value
            case "format" | "description":
                pass
            case _:
                result[name] = value
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def check(manifest: Manifest) -> None:
    key = (manifest["apiVersion"], manifest["kind"])
    assert key in definitions(), f"{VARIABLE} has no definition of {' '.join(key)}"
    # The server's own checks see to metadata.
    jsonschema.Draft4Validator(strict(definitions()[key])).validate(manifest | {"metadata": {}})


def test_unknown_fields_and_wrong_types_are_refused() -> None:
    schema = {
        "type": "object",
        "properties": {"port": {"x-kubernetes-int-or-string": True}, "free": {"type": "object"}},
    }
    valid = jsonschema.Draft4Validator(strict(schema)).is_valid
    assert valid({"port": "http", "free": {"any": 1}})
    assert valid({"port": 1})
    assert not valid({"port": 1.5})
    assert not valid({"porz": 1})


@pytest.mark.skipif(VARIABLE not in os.environ, reason=WHY_NOT)
def test_monitoring_fits_the_operators_definitions(tmp_path: Path) -> None:
    manifests = kustomize(write_own(tmp_path, KEY))
    found = [*of_kind(manifests, "ServiceMonitor"), *of_kind(manifests, "PrometheusRule")]
    assert len(found) == 2
    for manifest in found:
        check(manifest)


@pytest.mark.skipif(VARIABLE not in os.environ, reason=WHY_NOT)
def test_kserve_objects_fit_kserves_definitions() -> None:
    manifests = kustomize(KSERVE)
    assert {manifest["kind"] for manifest in manifests} == {"ServingRuntime", "InferenceService"}
    for manifest in manifests:
        check(manifest)

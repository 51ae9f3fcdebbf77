"""deploy/kserve: the runtime and an InferenceService that uses it, held against the settings, the server and
what KServe asks for.
"""

from pathlib import Path

import kubernetes_validate
import pytest

from service.server import OPEN_INFERENCE_SERVICE
from service.settings import PREFIX, Settings, read_settings
from tests.deploy.render import (
    KSERVE,
    KUBERNETES,
    Manifest,
    container_of,
    environment,
    kustomize,
    number_of,
    only,
    pod_of,
)
from tests.deploy.test_manifests import KUBERNETES_VERSION, SERVER_BYTES, SPARE_SECONDS, port_of
from tests.deploy.test_started import live_through, settings_of
from tests.integration.process import ServerProcess
from tests.tiny import export_generator

MOUNT = "/mnt/models"


@pytest.fixture(scope="module")
def runtime() -> Manifest:
    spec: Manifest = only(kustomize(KSERVE), "ServingRuntime")["spec"]
    return spec


@pytest.fixture(scope="module")
def predictor() -> Manifest:
    spec: Manifest = only(kustomize(KSERVE), "InferenceService")["spec"]["predictor"]
    return spec


@pytest.fixture(scope="module")
def container(runtime: Manifest) -> Manifest:
    (found,) = runtime["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def settings(container: Manifest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    return read_settings([])


def test_service_is_served_by_the_runtime(runtime: Manifest, predictor: Manifest) -> None:
    model = predictor["model"]
    assert model["runtime"] == only(kustomize(KSERVE), "ServingRuntime")["metadata"]["name"]
    assert model["modelFormat"] in [
        {name: one[name] for name in ("name", "version")} for one in runtime["supportedModelFormats"]
    ]
    assert [model["protocolVersion"]] == runtime["protocolVersions"] == ["grpc-v2"]
    assert OPEN_INFERENCE_SERVICE == "inference.GRPCInferenceService"


def test_container_fits_the_schema_of_pods(container: Manifest, predictor: Manifest) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)
    # The name that KServe puts the model into.
    assert container["name"] == "kserve-container"
    # The ServingRuntime has no place for this, and a Service might be called seqserve-something.
    assert predictor["enableServiceLinks"] is False


def test_models_are_where_kserve_puts_them(settings: Settings) -> None:
    assert settings.repository == Path(MOUNT)


def test_first_port_is_grpc_in_the_clear(container: Manifest, runtime: Manifest, settings: Settings) -> None:
    assert container["ports"] == [
        {"name": "h2c", "containerPort": port_of(settings.grpc_address), "protocol": "TCP"}
    ]
    assert settings.allow_plaintext
    assert runtime["annotations"] == {
        "prometheus.kserve.io/port": str(port_of(settings.http_address)),
        "prometheus.kserve.io/path": "/metrics",
    }


def test_pod_has_time_and_memory(container: Manifest, predictor: Manifest, settings: Settings) -> None:
    assert (
        predictor["terminationGracePeriodSeconds"]
        >= settings.grace_seconds + settings.drain_seconds + SPARE_SECONDS
    )
    needed = SERVER_BYTES + settings.prompt_cache_bytes + settings.admission_bytes
    assert number_of(container["resources"]["limits"]["memory"]) >= needed


def test_runtime_is_as_the_deployment_is(container: Manifest, predictor: Manifest) -> None:
    manifests = kustomize(KUBERNETES / "overlays" / "cpu")
    theirs = container_of(manifests)
    assert all(
        container[name] == theirs[name]
        for name in ("image", "imagePullPolicy", "resources", "startupProbe", "readinessProbe")
    )
    assert container["livenessProbe"] == theirs["livenessProbe"] | {
        "httpGet": {"path": "/livez", "port": 8080}
    }
    assert theirs["securityContext"].items() <= container["securityContext"].items()
    assert {variable["name"]: variable["value"] for variable in container["env"]} == environment(
        manifests
    ) | {f"{PREFIX}REPOSITORY": MOUNT}
    assert predictor["terminationGracePeriodSeconds"] == pod_of(manifests)["terminationGracePeriodSeconds"]


async def test_probes_pass_at_a_server_of_a_mounted_folder(container: Manifest, tmp_path: Path) -> None:
    export_generator(tmp_path, "letters")
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    await live_through(container, ServerProcess(tmp_path, settings_of(variables, {MOUNT: tmp_path})))


def test_rest_is_the_same_at_the_http_port(runtime: Manifest, settings: Settings) -> None:
    manifests = kustomize(KSERVE.with_name("kserve-rest"))
    rest = only(manifests, "ServingRuntime")["spec"]
    (container,) = rest["containers"]
    (plain,) = runtime["containers"]
    assert rest["protocolVersions"] == ["v2"]
    assert only(manifests, "InferenceService")["spec"]["predictor"]["model"]["protocolVersion"] == "v2"
    assert container["ports"] == [
        {"name": "http1", "containerPort": port_of(settings.http_address), "protocol": "TCP"}
    ]
    assert container["env"] == [*plain["env"], {"name": f"{PREFIX}HTTP_API", "value": "true"}]
    others = plain.keys() - {"ports", "env"}
    assert {name: container[name] for name in others} == {name: plain[name] for name in others}

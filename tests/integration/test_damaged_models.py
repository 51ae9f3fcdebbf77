"""Version folders that were damaged, or made to do harm: each is refused by name, in bounded time, and a
server that serves goes on.
"""

import json
import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from prometheus_client import CollectorRegistry

from service.contract import spec
from service.errors import ModelRefused
from service.models.repository import Repository
from service.models.table import Status
from service.models.trial import Trial
from service.observability.metrics import Metrics
from tests.service.builders import edit_graph, load_repository, replace_file, settings_of, spec_of
from tests.tiny import export_generator

LIMIT_S = 30
FLIPS = 40

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """letters 1 and 2. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    export_generator(folder, seed=0)
    export_generator(folder, seed=1)
    return folder


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "repository")


def refusal_of(root: Path) -> str:
    """Why version 2 is refused; version 1 serves in its place."""
    started = time.monotonic()
    metrics = Metrics(CollectorRegistry())
    repository: Repository = load_repository(root, metrics, slots=4, chunk=4, chunk_rows=4)
    repository.stop()
    assert time.monotonic() - started < LIMIT_S
    assert repository.table.get("letters", 1).status is Status.READY
    found = repository.table.get("letters", 2)
    assert found.status is Status.FAILED
    counted = {
        one.labels["reason"]: one.value
        for family in metrics.registry.collect()
        for one in family.samples
        if "load_failures_total" in one.name
    }
    assert sum(counted.values()) == 1
    assert "unexpected" not in counted
    return found.message


def edit(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        spec_of(folder, **changes)

    return damage


def add_file(name: str) -> Damage:
    def damage(folder: Path) -> None:
        spec_of(folder, files=spec_of(folder)["files"] | {name: "0" * 64})

    return damage


def write_spec(make: Callable[[], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.json").write_bytes(make())

    return damage


def replace_by(make: Callable[[Path], None], name: str = "model.onnx") -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def link_out(path: Path) -> None:
    """The right bytes, but elsewhere."""
    outside = path.parents[3] / "outside"
    shutil.copy(path.parents[1] / "1" / path.name, outside)
    path.symlink_to(outside)


def link_in_a_ring(path: Path) -> None:
    other = path.with_name("other.onnx")
    path.symlink_to(other.name)
    other.symlink_to(path.name)


def link_to_a_pipe(path: Path) -> None:
    """The pipe is inside of the repository."""
    pipe = path.parents[2] / "pipe"
    os.mkfifo(pipe)
    path.symlink_to(pipe)


def listen(path: Path) -> None:
    """Leave a unix socket; its path may be longer than an address can be."""
    with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory() as short:
        listener.bind(f"{short}/s")
        shutil.move(f"{short}/s", path)


def grow(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 33)


def widen_golden(folder: Path) -> None:
    golden = spec_of(folder)["golden"]
    long = golden[0] | {"tokens": [0] * 1_200_000, "steps": [0], "outputs": golden[0]["outputs"][:1]}
    spec_of(folder, golden=[long])


def use_external_data(location: str) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return lambda folder: edit_graph(folder, change)


def truncate_graph(folder: Path) -> None:
    graph = (folder / "model.onnx").read_bytes()
    replace_file(folder, "model.onnx", graph[: len(graph) // 2])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "path traversal": (add_file("../1/model.onnx"), "files must be plain names"),
    "absolute path": (add_file("/etc/passwd"), "files must be plain names"),
    "variant elsewhere": (
        edit(variants={"fp32": {"file": "../1/model.onnx", "batch_invariant": True, "tolerance": 0.1}}),
        "model.json",
    ),
    "link out": (replace_by(link_out), "a link that leads out of the repository"),
    "link to a device": (
        replace_by(lambda path: path.symlink_to("/dev/zero")),
        "a link that leads out of the repository",
    ),
    "link to itself": (
        replace_by(lambda path: path.symlink_to(path.name)),
        "model.onnx: expected a readable file",
    ),
    "spec that leads out": (
        replace_by(lambda path: path.symlink_to("/etc/hostname"), "model.json"),
        "a link that leads out",
    ),
    "pipe": (replace_by(os.mkfifo), "a pipe, socket or device"),
    "socket": (replace_by(listen), "model.onnx: expected a readable file"),
    "folder": (replace_by(Path.mkdir), "model.onnx: expected a readable file"),
    "spec that is a pipe": (replace_by(os.mkfifo, "model.json"), "a pipe, socket or device"),
    "spec that is a socket": (replace_by(listen, "model.json"), "model.json"),
    "spec that is a folder": (replace_by(Path.mkdir, "model.json"), "model.json: expected readable"),
    "spec that is a device": (
        replace_by(lambda path: path.symlink_to("/dev/zero"), "model.json"),
        "a link that leads out",
    ),
    "spec of the process": (
        replace_by(lambda path: path.symlink_to("/proc/self/environ"), "model.json"),
        "a link that leads out",
    ),
    "links in a ring": (replace_by(link_in_a_ring), "model.onnx: expected a readable file"),
    "link to a pipe": (replace_by(link_to_a_pipe), "a pipe, socket or device"),
    "file without end": (replace_by(grow), "8589934592 bytes, more than"),
    "spec without end": (replace_by(grow, "model.json"), "8589934592 bytes, more than"),
    "hidden": (edit(hidden=1 << 40), "hidden: expected at most 65536"),
    "outputs": (edit(outputs=1 << 40), "outputs: expected at most"),
    "input": (edit(input={"kind": "tokens", "size": 1 << 40}), "size: expected at most"),
    "layers": (edit(layers=1 << 40), "layers: expected at most"),
    "golden examples": (widen_golden, "golden must be at most"),
    "many files": (
        edit(files={f"{index}": "0" * 64 for index in range(100)}),
        "files: expected at most",
    ),
    "deep JSON": (write_spec(lambda: b'{"golden":' + b"[" * 1_000_000), "model.json: expected JSON, found"),
    "deep objects": (write_spec(lambda: b'{"provenance":' * 100_000), "model.json: expected JSON, found"),
    "long JSON": (write_spec(lambda: b'{"cell": "' + b"x" * (5 << 20) + b'"}'), "more than 4194304"),
    "no JSON": (write_spec(lambda: b"\0" * 1000), "model.json: expected JSON, found"),
    "empty spec": (write_spec(lambda: b""), "model.json: expected JSON, found"),
    "external data": (
        use_external_data("model.json"),
        "check 'graph' failed: expected a graph that holds its weights",
    ),
    "external data elsewhere": (
        use_external_data("/etc/passwd"),
        "check 'graph' failed: expected a graph that holds its weights",
    ),
    "external data above": (
        use_external_data("../../../../etc/passwd"),
        "check 'graph' failed: expected a graph that holds its weights",
    ),
    "half a graph": (truncate_graph, "check 'graph' failed"),
    "empty graph": (lambda folder: replace_file(folder, "model.onnx", b""), "check 'graph' failed"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_by_name_and_the_older_version_serves(root: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    damage(root / "letters" / "2")
    assert expected in refusal_of(root)


ODD_FOLDERS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": listen,
    "file": Path.touch,
    "sparse file": grow,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "empty folder": Path.mkdir,
}


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_version_that_is_no_folder_of_files_is_passed_over(root: Path, name: str) -> None:
    """So is a model, and both together leave the version that is there serving."""
    shutil.rmtree(root / "letters" / "2")
    for path in (root / "letters" / "2", root / "others"):
        ODD_FOLDERS[name](path)
    started = time.monotonic()
    repository = load_repository(root, slots=4, chunk=4, chunk_rows=4)
    repository.stop()
    assert time.monotonic() - started < LIMIT_S
    assert [(one.name, one.version) for one in repository.table.entries() if one.served] == [("letters", 1)]


def test_links_within_the_repository_are_followed(root: Path) -> None:
    """As Kubernetes mounts a volume: a hidden folder, a link to it, and links through that."""
    (root / "..2026").mkdir()
    (root / "letters" / "2").rename(root / "..2026" / "two")
    (root / "..data").symlink_to("..2026")
    version = root / "letters" / "2"
    version.mkdir()
    for name in ("model.json", "model.onnx"):
        (version / name).symlink_to(f"../../..data/two/{name}")
    repository = load_repository(root, slots=4, chunk=4, chunk_rows=4)
    repository.stop()
    assert repository.table.get("letters", 2).status is Status.READY


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_flipped_bit_is_always_noticed(root: Path, name: str) -> None:
    """In the graph by its hash; in model.json it is refused, or changes what no check can know, like a
    licence's text.
    """
    drawn = random.Random(name)
    folder = root / "letters" / "2"
    whole = (folder / name).read_bytes()
    before = spec.read_spec(folder)[0]
    for _ in range(FLIPS):
        bit = drawn.randrange(len(whole) * 8)
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        (folder / name).write_bytes(changed)
        try:
            found = spec.read_spec(folder)[0]
        except spec.SpecError:
            continue
        assert name == "model.json"
        assert found != before or json.loads(changed) == json.loads(whole)


def test_flipped_bits_of_a_graph_whose_hash_agrees_never_break_a_trial_loose(root: Path) -> None:
    """Tried as while serving: whatever onnxruntime does with them, the outcome is a word and this process
    lives.
    """
    drawn = random.Random(0)
    folder = root / "letters" / "2"
    whole = (folder / "model.onnx").read_bytes()
    for _ in range(5):
        changed = bytearray(whole)
        for _ in range(20):
            bit = drawn.randrange(len(whole) * 8)
            changed[bit // 8] ^= 1 << bit % 8
        replace_file(folder, "model.onnx", bytes(changed))
        assert any(word in tried(root, folder) for word in ("check '", "passed"))


def tried(root: Path, folder: Path) -> str:
    trial = Trial(settings_of(root, admission_seconds=LIMIT_S))
    try:
        trial.run(folder)
    except ModelRefused as refusal:
        return str(refusal)
    finally:
        trial.close()
    return "passed"

"""Generation graphs: what is checked of them, when they are used, and what a server does with them."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec
from service.contract.generation_graph import NAMES
from service.errors import ModelRefused
from service.models.checklist import Passed
from service.models.choices import Choices
from service.models.preparing import Preparation, Prepared
from service.models.step_costs import StepCost, step_sizes
from service.settings import Settings
from tests import tiny
from training.export.export import GENERATION_FILES, GRAPH_FILE, INT8_FILE

FILE = GENERATION_FILES[GRAPH_FILE]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with both sets of weights and a generation graph of each."""
    repository = tmp_path_factory.mktemp("generation")
    return tiny.export_generator(repository, int8=True, has_generation=True)[0]


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / exported.parent.name / exported.name))


def prepared_of(folder: Path, **settings: object) -> tuple[Prepared, dict[str, Passed]]:
    """Prepare a version; return what was told of each check beside it."""
    told: list[Passed] = []
    chosen = Settings.model_validate({"repository": folder.parents[1], **settings})
    prepared = Preparation(Choices.of(chosen)).run(folder, tell=told.append)
    return prepared, {one.check: one for one in told}


def write(folder: Path, name: str, data: bytes) -> None:
    """Write a file of a version, and its hash."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / spec.SPEC_FILE).read_text())["files"]
    tiny.edit_spec(folder, files=files | {name: hashlib.sha256(data).hexdigest()})


def test_exported_graphs_have_the_bits_of_single_steps(exported: Path) -> None:
    for variant in ("fp32", "int8"):
        _, told = prepared_of(exported, variant=variant)
        assert told["generation"].measured["same_bits"] is True


def test_exported_graph_holds_no_weights_of_its_own(exported: Path) -> None:
    graph = onnx.load(exported / FILE, load_external_data=False).graph
    chunk_cell = onnx.load(exported / GRAPH_FILE).graph
    largest = max(len(one.raw_data) for one in graph.initializer)
    assert largest < max(len(one.raw_data) for one in chunk_cell.initializer) / 4
    locations = {
        one.value for each in graph.initializer for one in each.external_data if one.key == "location"
    }
    assert locations == {GRAPH_FILE}


def test_model_without_the_field_runs_single_steps(tmp_path: Path) -> None:
    folder, _ = tiny.export_generator(tmp_path)
    prepared, told = prepared_of(folder)
    assert not told["generation"].is_needed
    assert prepared.generator is None
    assert prepared.tuning.step_sizes(0.005) == ()
    assert prepared.spec.contract == 1  # type: ignore[attr-defined]


def test_graph_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    """It would read the other file at the places of this one, so that it has the weights in itself."""
    other, _ = tiny.export_generator(tmp_path / "other", seed=1, has_generation=True)
    graph = onnx.load(other / FILE, load_external_data=False)
    data = (other / GRAPH_FILE).read_bytes()
    for tensor in graph.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {one.key: one.value for one in tensor.external_data}
            start, length = int(place["offset"]), int(place["length"])
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = data[start : start + length]
    write(folder, FILE, graph.SerializeToString())
    with pytest.raises(ModelRefused, match=r"check 'generation' failed: expected outputs and states within"):
        prepared_of(folder)


def test_graph_whose_draws_are_never_clear_is_not_used(folder: Path) -> None:
    graph = onnx.load(folder / FILE, load_external_data=False)
    [scan] = [node for node in graph.graph.node if node.op_type == "Scan"]
    [body] = [one.g for one in scan.attribute if one.name == "body"]
    for node in body.node:
        if node.op_type == "ArgMax":  # the last token whose sum exceeds the draw, and not the first
            node.attribute.append(helper.make_attribute("select_last_index", 1))
    write(folder, FILE, graph.SerializeToString())
    prepared, told = prepared_of(folder)  # whose draws are never clear: the sampler draws all of them
    assert told["generation"].measured["faster_rows"] == 0
    assert prepared.generator is None


def test_graph_that_claims_other_tokens_are_clear_is_refused(folder: Path) -> None:
    graph = onnx.load(folder / FILE, load_external_data=False)
    [scan] = [node for node in graph.graph.node if node.op_type == "Scan"]
    [body] = [one.g for one in scan.attribute if one.name == "body"]
    # The token after the drawn one, beside the sums of the drawn one.
    place = [node.op_type for node in body.node].index("Squeeze")
    squeezed = body.node[place].output[0]
    body.node[place].output[0] = "drawn.before"
    one = numpy_helper.from_array(np.array(1), "one")
    size = numpy_helper.from_array(np.array(len(tiny.VOCABULARY)), "size")
    graph.graph.initializer.extend([one, size])
    body.node.insert(place + 1, helper.make_node("Add", ["drawn.before", "one"], ["drawn.after"]))
    body.node.insert(place + 2, helper.make_node("Mod", ["drawn.after", "size"], [squeezed]))
    write(folder, FILE, graph.SerializeToString())
    with pytest.raises(
        ModelRefused, match=r"check 'generation' failed: expected the tokens that the sampler"
    ):
        prepared_of(folder)


def test_graph_with_weights_in_another_file_is_refused(folder: Path) -> None:
    """Whatever the file's name: onnxruntime reads none but the one that was hashed."""
    graph = onnx.load(folder / FILE, load_external_data=False)
    for tensor in graph.graph.initializer:
        for one in tensor.external_data:
            if one.key == "location":
                one.value = INT8_FILE
    write(folder, FILE, graph.SerializeToString())
    with pytest.raises(
        ModelRefused, match=f"check 'generation' failed: expected a generation graph in {FILE}: a graph"
    ):
        prepared_of(folder)


def test_graph_without_an_output_is_refused(folder: Path) -> None:
    graph = onnx.load(folder / FILE, load_external_data=False)
    kept = [one for one in graph.graph.output if one.name != NAMES.totals]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    write(folder, FILE, graph.SerializeToString())
    with pytest.raises(
        ModelRefused, match=r"check 'signature' failed: expected the output of the generation"
    ):
        prepared_of(folder)


def test_generation_graph_needs_contract_2(tmp_path: Path) -> None:
    folder, _ = tiny.export_generator(tmp_path)
    variants = json.loads((folder / spec.SPEC_FILE).read_text())["variants"]
    variants["fp32"]["generation"] = GRAPH_FILE
    tiny.edit_spec(folder, variants=variants)
    with pytest.raises(spec.SpecError, match=r"contract must be 2 for variants.fp32.generation, found 1"):
        spec.read_spec(folder)


def test_generation_graph_needs_a_hash(folder: Path) -> None:
    files = json.loads((folder / spec.SPEC_FILE).read_text())["files"]
    del files[FILE]
    tiny.edit_spec(folder, files=files)
    with pytest.raises(spec.SpecError, match=f"files must give the sha256 of {FILE}"):
        spec.read_spec(folder)


def test_ticks_end_within_the_interval_of_streams() -> None:
    costs = (
        StepCost(1, 0.0001, 0.0002),
        StepCost(4, 0.0, 0.0),
        StepCost(64, 0.002, 0.0),
        StepCost(256, 1.0, 1.0),
    )
    sizes = step_sizes(costs, 0.005)
    assert [one.rows for one in sizes] == [1, 4, 64, 256]
    assert [one.steps for one in sizes] == [57, 1, 10, 1]
    assert [one.cut_steps for one in sizes] == [28, 1, 1, 1]

"""Conversions of random networks equal their modules or are refused, and broken conversions are refused.

`python -m tests.training.convert.many 500` judges as many networks as one likes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from service.contract import spec
from tests.training.convert.foreign_networks import Block, Network, Plan, export, random_plan
from tests.training.convert.judging import judged
from training.convert.candidate import Candidate
from training.convert.foreign import Refused
from training.convert.options import Choices
from training.convert.original.original import Original
from training.convert.original.reading import read_onnx
from training.convert.proofs.proving import Proof, prove_chunk, prove_whole
from training.convert.rungs.cell import chunk_cell
from training.convert.rungs.whole import whole_network

Edit = Callable[[onnx.ModelProto, Path], None]
Weights = NDArray[np.float32]
GATES = {"LSTM": 4, "GRU": 3}


@pytest.mark.parametrize("seed", range(20))
def test_random_network_is_converted_right_or_refused(seed: int) -> None:
    plan = random_plan(seed)
    verdict = judged(plan)
    assert not verdict.is_wrong, (plan, verdict)
    if plan.is_plain and not (plan.is_static or plan.has_lengths or plan.image):
        assert verdict.rung == "chunk", (plan, verdict)


def plan_of(*blocks: Block, take: str = "every", **changes: object) -> Plan:
    plain = Plan(blocks, 0, 3, False, take, 2, "", False, False, 0, False, 5)
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("take", ["every", "last", "mean"])
def test_network_whose_rows_depend_on_each_other_is_refused(take: str) -> None:
    verdict = judged(plan_of(Block("center_batch"), Block("gru", 6), take=take))
    assert verdict.rung == "refused"


def test_first_state_from_an_image_beside_lengths_ends_no_process() -> None:
    """Packing sorts the first states by lengths, which were taken for those of an encoder's source.

    onnxruntime then crashed on lengths of no rows.
    """
    verdict = judged(plan_of(Block("lstm", 9), take="state", has_lengths=True, image=2))
    assert verdict.rung in ("refused", "chunk, init")
    assert not verdict.is_wrong


# Conversions that are broken on purpose.


@dataclass(frozen=True)
class Made:
    """A conversion that is right: its original, the candidate, and the folder of the weights."""

    original: Original
    candidate: Candidate
    folder: Path

    def prove(self, candidate: Candidate) -> Proof:
        proof = prove_chunk if candidate.kind == "chunk" else prove_whole
        return proof(self.original, candidate, self.folder)


CAUSAL = plan_of(Block("lstm", 5), Block("norm"), Block("gru", 4, skip="concat"))
LAST = plan_of(Block("lstm", 5), Block("gru", 4), take="last", vocabulary=9)
IMAGE = plan_of(Block("gru", 6), take="last", image=3)
BOTH = plan_of(Block("gru", 5, is_both=True), Block("lstm", 4, is_both=True), take="state")
PLANS = {"causal": CAUSAL, "last": LAST, "image": IMAGE, "both": BOTH}


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    found = {}
    for name, plan in PLANS.items():
        folder = tmp_path_factory.mktemp(name)
        path, work = folder / "foreign.onnx", folder / "work"
        work.mkdir()
        export(Network(plan).eval(), path)
        original = Original(read_onnx(path, work), Choices(), work)
        candidate = whole_network(original, "lengths") if plan is BOTH else chunk_cell(original)
        found[name] = Made(original, candidate, work)
    return found


@pytest.mark.parametrize("name", PLANS)
def test_conversion_that_is_not_broken_is_proven(conversions: dict[str, Made], name: str) -> None:
    made = conversions[name]
    assert max(one.difference for one in made.prove(made.candidate).comparisons) < 2e-6


def recurrent(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    found = [node for node in model.graph.node if node.op_type == kind]
    assert found
    return found


def weights(kind: str, place: int, change: Callable[[Weights], Weights]) -> Edit:
    """Change an input of the recurrent nodes of a kind: 1 is W, 2 is R."""

    def edit(model: onnx.ModelProto, folder: Path) -> None:
        tensors = {one.name: one for one in model.graph.initializer}
        for node in recurrent(model, kind):
            tensor = tensors[node.input[place]]
            value = change(numpy_helper.to_array(tensor, str(folder)).copy())
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), tensor.name))

    return edit


def gates_swapped(kind: str) -> Edit:
    def swapped(value: Weights) -> Weights:
        first, second, *others = np.split(value, GATES[kind], axis=1)
        return np.concatenate([second, first, *others], axis=1)

    def edit(model: onnx.ModelProto, folder: Path) -> None:
        weights(kind, 1, swapped)(model, folder)
        weights(kind, 2, swapped)(model, folder)

    return edit


def lengths_ignored(model: onnx.ModelProto, _: Path) -> None:
    nodes = [node for node in model.graph.node if node.op_type in GATES]
    assert any(node.input[4] for node in nodes)
    for node in nodes:
        node.input[4] = ""


def direction_flipped(model: onnx.ModelProto, _: Path) -> None:
    for node in recurrent(model, "GRU"):
        kept = [one for one in node.attribute if one.name != "direction"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("direction", "reverse")])


def state_dropped(number: int) -> Edit:
    """Let the state after a chunk be the one before it."""

    def edit(model: onnx.ModelProto, _: Path) -> None:
        after = [one.name for one in model.graph.output if one.name != spec.OUTPUT][number]
        for node in model.graph.node:
            node.output[:] = ["unused" if one == after else one for one in node.output]
            node.input[:] = ["unused" if one == after else one for one in node.input]
        before = after.removesuffix(spec.NEXT_SUFFIX)
        model.graph.node.append(helper.make_node("Identity", [before], [after]))

    return edit


def wanted_ignored(model: onnx.ModelProto, _: Path) -> None:
    """Compute the head at the first positions, as many as are wanted."""
    for node in model.graph.node:
        node.input[:] = ["firsts" if one == spec.WANTED else one for one in node.input]
    scalars = {"firsts.zero": 0, "firsts.one": 1, "firsts.axis": 0}
    for name, value in scalars.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    counted = [
        helper.make_node("Shape", [spec.WANTED], ["firsts.shape"]),
        helper.make_node("Gather", ["firsts.shape", "firsts.axis"], ["firsts.count"]),
        helper.make_node("Range", ["firsts.zero", "firsts.count", "firsts.one"], ["firsts"]),
    ]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*counted, *nodes])


def one_percent(value: Weights) -> Weights:
    return value * np.float32(1.01)


BROKEN: dict[str, tuple[str, Edit]] = {
    "first state dropped": ("causal", state_dropped(0)),
    "second state dropped": ("causal", state_dropped(1)),
    "last state dropped": ("causal", state_dropped(2)),
    "lengths ignored": ("causal", lengths_ignored),
    "lengths ignored, last step": ("last", lengths_ignored),
    "lengths ignored, whole": ("both", lengths_ignored),
    "direction flipped": ("causal", direction_flipped),
    "direction flipped, last step": ("last", direction_flipped),
    "directions swapped, whole": ("both", weights("GRU", 1, lambda value: value[::-1])),
    "lstm gates in another order": ("causal", gates_swapped("LSTM")),
    "gru gates in another order": ("last", gates_swapped("GRU")),
    "gru gates in another order, whole": ("both", gates_swapped("GRU")),
    "input weights one percent off": ("causal", weights("LSTM", 1, one_percent)),
    "recurrent weights one percent off": ("last", weights("GRU", 2, one_percent)),
    "recurrent weights one percent off, whole": ("both", weights("LSTM", 2, one_percent)),
    "weights that are not numbers": ("causal", weights("GRU", 1, lambda value: value * np.float32("nan"))),
    "wanted ignored": ("causal", wanted_ignored),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_conversion_is_refused_by_the_proof(conversions: dict[str, Made], what: str) -> None:
    name, edit = BROKEN[what]
    made = conversions[name]
    graph = onnx.ModelProto()
    graph.CopyFrom(made.candidate.graph)
    edit(graph, made.folder)
    with pytest.raises(Refused, match="off by"):
        made.prove(replace(made.candidate, graph=graph))


def test_init_graph_one_percent_off_is_refused_by_the_proof(conversions: dict[str, Made]) -> None:
    made = conversions["image"]
    assert made.candidate.init is not None
    init = onnx.ModelProto()
    init.CopyFrom(made.candidate.init)
    changed = 0
    for tensor in init.graph.initializer:
        if len(tensor.dims) == 2:
            value = numpy_helper.to_array(tensor, str(made.folder))
            tensor.CopyFrom(numpy_helper.from_array(one_percent(value), tensor.name))
            changed += 1
    assert changed
    with pytest.raises(Refused, match="off by"):
        made.prove(replace(made.candidate, init=init))


def test_start_of_another_state_is_refused_by_the_proof(conversions: dict[str, Made]) -> None:
    made = conversions["causal"]
    first, *others = made.candidate.states
    states = (first.model_copy(update={"start": 0.1}), *others)
    with pytest.raises(Refused, match="off by"):
        made.prove(replace(made.candidate, states=states))

"""Makes a chunk cell of a step graph by ONNX's Scan, which runs the graph once for each time step of a chunk.

It takes any step graph; the overlap is one of the states that Scan carries. Rows whose length is passed keep
their states.
"""

import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.convert.graph.copying import Copier, needed
from training.convert.step.edge import as_data, finished, flattened, restored, sizes, weights
from training.convert.step.graphs import StepGraph


def scanned(step: StepGraph) -> onnx.ModelProto:
    """Return the chunk cell of a step graph, with Scan over time."""
    copier = Copier()
    weights(copier, step)
    _, steps = sizes(copier)
    tokens = step.vocabulary is not None
    time_first = copier.node("Transpose", [spec.INPUT], "steps.input", perm=[1, 0] if tokens else [1, 0, 2])
    copier.node("Cast", [spec.LENGTHS], "lengths.int64", to=TensorProto.INT64)
    last = copier.node("Reshape", [steps, copier.shape()], "time.scalar")
    places = copier.node("Range", [copier.scalar(0), last, copier.scalar(1)], "steps.place")
    states = [one.name for one in step.states] + ([step.context] if step.overlap else [])
    body = _body(copier, step, states)
    outputs = [name + spec.NEXT_SUFFIX for name in states] + ["steps.output"]
    copier.nodes.append(
        helper.make_node(
            "Scan", [*states, time_first, places], outputs, name="Scan/steps", body=body, num_scan_inputs=2
        )
    )
    batch_first = copier.node("Transpose", ["steps.output"], "rows.output", perm=[1, 0, 2])
    rows = copier.node("Reshape", [batch_first, copier.shape(-1, step.width)], "flat.output")
    copier.node("Gather", [rows, spec.WANTED], spec.OUTPUT, axis=0)
    return finished(copier, step, "scanned")


def _body(copier: Copier, step: StepGraph, states: list[str]) -> onnx.GraphProto:
    """Return the body of Scan: the states' rows, a time step (B,) or (B, features) and its place."""
    outer, copier.nodes = copier.nodes, []
    data = "step.input"
    if step.overlap:
        data = copier.node("Concat", ["step.context", data], "step.whole", axis=1)
        ends = copier.constant("axis.end", [1 << 62])
        copier.node("Slice", [data, copier.shape(-step.overlap), ends, copier.shape(1)], "step.context.made")
    replaced = {step.data: as_data(copier, step, data, "step.data")}
    replaced |= {one.input: restored(copier, one, f"step.{one.name}", "step.") for one in step.states}
    named = copier.copy(step.graph.graph, "step/", replaced)
    made = {
        one.name: flattened(copier, one, named(one.output), f"step.{one.name}.made") for one in step.states
    }
    if step.overlap:
        made[step.context] = "step.context.made"
    goes_on = copier.node("Less", ["step.place", "lengths.int64"], "step.goes_on")
    column = copier.node("Reshape", [goes_on, copier.shape(-1, 1)], "step.column")
    for name in states:
        copier.node("Where", [column, made[name], f"step.{name}"], f"step.{name}.next")
    copier.node("Reshape", [named(step.output), copier.shape(-1, step.width)], "step.output")
    outputs = [f"step.{name}.next" for name in states] + ["step.output"]
    nodes, copier.nodes = needed(copier.nodes, outputs), outer
    width = {one.name: one.width for one in step.states} | {step.context: step.overlap}
    tokens = step.vocabulary is not None
    inputs = [_row(f"step.{name}", width[name]) for name in states]
    inputs.append(
        helper.make_tensor_value_info("step.input", TensorProto.INT64, ["batch"])
        if tokens
        else _row("step.input", step.features)
    )
    inputs.append(helper.make_tensor_value_info("step.place", TensorProto.INT64, []))
    made_outputs = [_row(f"step.{name}.next", width[name]) for name in states]
    return helper.make_graph(nodes, "step", inputs, [*made_outputs, _row("step.output", step.width)])


def _row(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

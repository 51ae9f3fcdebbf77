"""Writes what all chunk cells of step graphs have in common: states as rows, steps as data, their edge."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.contract import spec
from training.convert.graph.copying import Copier
from training.convert.step.graphs import StepGraph, StepState


def weights(copier: Copier, step: StepGraph) -> None:
    """Add the weights of a step graph."""
    for tensor in step.graph.graph.initializer:
        copier.tensor(tensor)


def restored(copier: Copier, state: StepState, rows: str, prefix: str) -> str:
    """Return a state in the step graph's shape, of rows float32 (B, width)."""
    parted = copier.node("Reshape", [rows, copier.shape(-1, *state.rest)], f"{prefix}{state.name}.parted")
    return copier.node("Transpose", [parted], f"{prefix}{state.name}.restored", perm=state.back)


def flattened(copier: Copier, state: StepState, value: str, output: str) -> str:
    """Return rows float32 (B, width) named `output` of a state in the step graph's shape."""
    moved = copier.node("Transpose", [value], f"{output}.moved", perm=state.order)
    return copier.node("Reshape", [moved, copier.shape(-1, state.width)], output)


def as_data(copier: Copier, step: StepGraph, rows: str, output: str) -> str:
    """Return time steps, int64 (R,) or float32 (R, features), in the shape and type that the graph takes."""
    if step.dtype == np.int32:
        rows = copier.node("Cast", [rows], f"{output}.int32", to=TensorProto.INT32)
    return copier.node("Reshape", [rows, copier.shape(*step.dims)], output)


def sizes(copier: Copier) -> tuple[str, str]:
    """Return the names of batch and time of `input`, int64 (1,) each."""
    shape = copier.node("Shape", [spec.INPUT], "input.shape")
    batch = copier.node("Gather", [shape, copier.shape(0)], "batch.size", axis=0)
    return batch, copier.node("Gather", [shape, copier.shape(1)], "time.size", axis=0)


def contract_states(step: StepGraph) -> tuple[spec.State, ...]:
    """Return the states of the chunk cell, the overlap last."""
    found = [_contract_state(one.name, one.width, one.start) for one in step.states]
    if step.overlap:
        found.append(_contract_state(step.context, step.overlap, np.zeros(step.overlap, np.float32)))
    return tuple(found)


def _contract_state(
    name: str, width: int, start: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> spec.State:
    row = start.reshape(-1)
    value = [float(one) for one in row] if np.any(row != row[0]) else float(row[0])
    return spec.State(input=name, output=name + spec.NEXT_SUFFIX, size=width, start=value)


def finished(copier: Copier, step: StepGraph, name: str) -> onnx.ModelProto:
    """Return the chunk cell of the nodes collected, which compute its outputs by their names."""
    is_tokens = step.vocabulary is not None
    states = contract_states(step)
    inputs = [
        helper.make_tensor_value_info(
            spec.INPUT,
            TensorProto.INT64 if is_tokens else TensorProto.FLOAT,
            ["batch", "time"] + ([] if is_tokens else [step.features]),
        ),
        helper.make_tensor_value_info(spec.LENGTHS, TensorProto.INT32, ["batch"]),
        *(_row(one.input, one.size) for one in states),
        helper.make_tensor_value_info(spec.WANTED, TensorProto.INT64, ["wanted"]),
    ]
    outputs = [
        helper.make_tensor_value_info(spec.OUTPUT, TensorProto.FLOAT, ["wanted", step.width]),
        *(_row(one.output, one.size) for one in states),
    ]
    return copier.model(step.graph, name, inputs, outputs)


def _row(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

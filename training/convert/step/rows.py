"""Lays all time steps of a chunk out as rows of one batch, each with the overlap that stands before it."""

import onnx

from service.contract import spec
from training.convert.graph.copying import Copier
from training.convert.step.graphs import StepGraph


def rows_of_steps(copier: Copier, step: StepGraph, batch: str, steps: str) -> str:
    """Return all time steps as rows, int64 (B*T,) or float32 (B*T, features); makes the next overlap."""
    if step.vocabulary is not None:
        return copier.node("Reshape", [spec.INPUT, copier.shape(-1)], "rows.input")
    if not step.overlap:
        return copier.node("Reshape", [spec.INPUT, copier.shape(-1, step.features)], "rows.input")
    ends, axis = copier.constant("axis.end", [1 << 62]), copier.shape(2)
    tails = copier.node("Slice", [spec.INPUT, copier.shape(-step.overlap), ends, axis], "context.tails")
    before = copier.node("Reshape", [step.context, copier.shape(-1, 1, step.overlap)], "context.before")
    contexts = copier.node("Concat", [before, tails], "context.all", axis=1)  # (B, T + 1, overlap)
    used = copier.node(
        "Slice", [contexts, copier.shape(0), copier.shape(-1), copier.shape(1)], "context.used"
    )
    whole = copier.node("Concat", [used, spec.INPUT], "rows.whole", axis=2)
    _next_context(copier, step, batch, steps, contexts)
    return copier.node("Reshape", [whole, copier.shape(-1, step.overlap + step.features)], "rows.input")


def _next_context(copier: Copier, step: StepGraph, batch: str, steps: str, contexts: str) -> None:
    """Pick row b, place lengths[b] of contexts (B, T + 1, overlap)."""
    flat_contexts = copier.node("Reshape", [contexts, copier.shape(-1, step.overlap)], "context.flat")
    rows = copier.node("Reshape", [batch, copier.shape()], "batch.scalar")
    numbers = copier.node("Range", [copier.scalar(0), rows, copier.scalar(1)], "batch.numbers")
    stride = copier.node("Add", [steps, copier.shape(1)], "context.stride")
    first = copier.node("Mul", [numbers, stride], "context.first")
    lengths = copier.node("Cast", [spec.LENGTHS], "lengths.int64", to=onnx.TensorProto.INT64)
    places = copier.node("Add", [first, lengths], "context.places")
    copier.node("Gather", [flat_contexts, places], step.context + spec.NEXT_SUFFIX, axis=0)

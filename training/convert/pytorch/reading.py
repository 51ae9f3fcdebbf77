"""Reads a PyTorch module: an ONNX graph that agrees with it, and the module itself as the original."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import nn

from service.contract import spec
from training.convert.foreign import Array, Foreign, Oracle, Refused
from training.convert.graph.weights import with_weights
from training.convert.original.repairs import relax
from training.convert.pytorch.agreement import check_agreement
from training.convert.pytorch.calls import Call, Examples, call_of, named_outputs, outputs_of
from training.convert.pytorch.checkpoint import load_into
from training.convert.pytorch.deriving import derived_call
from training.convert.pytorch.exporting import OPSET, WAYS, export, flat_job, load
from training.convert.pytorch.layout import Layout, find_layout
from training.convert.pytorch.loops import looped_cells
from training.convert.pytorch.modules import checked_copy
from training.convert.pytorch.running import preserved
from training.convert.pytorch.stepping import read_loop
from training.convert.pytorch.vocabulary import tried_ids
from training.export.export import weights_sha256

ADVICE = (
    "a loop over time in Python unrolls: use nn.LSTM, nn.GRU, nn.RNN or a loop over their cells, or export "
    "one time step as an ONNX file whose states are inputs and outputs"
)


def read_module(
    module: nn.Module,
    examples: Examples | None = None,
    *,
    checkpoint: Path | None = None,
    file: str = "",
    opset: int = OPSET,
    folder: Path | None = None,
) -> Foreign:
    """Read a module as a network from elsewhere.

    The module is run and exported, and left as it was: modes, weights, buffers, hooks, random numbers. A loop
    over LSTMCell, GRUCell or RNNCell becomes a graph of one time step (`Foreign.is_step`).

    Args:
        module: any nn.Module; it is run in eval mode.
        examples: a tensor, the arguments of forward(), or a dict of them by name, best of two sequences;
            None: they are derived from its layers.
        checkpoint: file of weights; they are loaded into a copy of the module.
        file: what the network comes from, for people; empty: the checkpoint's name, or the class.
        opset: opset of the graph.
        folder: folder into which the graph's large weights go, which the ladder gets as well; None: they
            stay in the graph.

    Raises:
        Refused: it cannot be exported, or no graph agrees with it at other batches and lengths.
    """
    if checkpoint is not None:
        module = deepcopy(module)
        load_into(module, checkpoint)
    return read_own(module, examples, checkpoint=checkpoint, file=file, opset=opset, folder=folder)


def read_own(
    module: nn.Module,
    examples: Examples | None,
    *,
    checkpoint: Path | None,
    file: str,
    opset: int = OPSET,
    folder: Path | None = None,
) -> Foreign:
    """Read a module whose checkpoint is loaded already; arguments and errors are those of `read_module`."""
    module, said = checked_copy(module)
    if examples is None:
        call, derived = derived_call(module)
        said = (*said, derived)
    else:
        call = call_of(module, examples)
    check_repeatable(module, call)
    layout = find_layout(module, call)
    if layout.vocabulary is None and layout.inputs[layout.data].kind == "tokens":
        count = tried_ids(module, call, layout.data)
        layout = replace(layout, vocabulary=count, tokens=count or layout.tokens)
        said = (*said, f"token ids below {count}, found by trial") if count else said
    source = _source(module, checkpoint, file, opset)
    cells = looped_cells(module, call, layout)
    with tempfile.TemporaryDirectory(prefix="seqserve-convert-") as own:
        path, weights = Path(own) / "model.onnx", folder or Path(own)
        if cells:
            found = read_loop(module, call, layout, cells, path, weights, source)
        else:
            found = _read_whole(module, call, layout, path, weights, source)
        if folder is None:
            found = replace(found, graph=with_weights(found.graph, weights))
    return replace(found, assumed=(*said, *_said(call, layout), *found.assumed))


def check_repeatable(module: nn.Module, call: Call) -> None:
    """Run a module twice on the same inputs.

    Raises:
        Refused: it does not run, or its answers differ, as of dropout that stays on in eval mode.
    """
    tensors = list(call.tensors.values())
    one = outputs_of(module, call, tensors)
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)  # other random numbers, if the module draws some
        other = outputs_of(module, call, tensors)
    if not all(torch.equal(*pair) or torch.isnan(pair[0]).any() for pair in zip(one, other, strict=True)):
        raise Refused(
            f"{type(module).__name__}: expected the same answer to the same inputs, found two that differ",
            "switch off in eval mode what is random, such as F.dropout without training=self.training",
        )


def _read_whole(
    module: nn.Module, call: Call, layout: Layout, path: Path, folder: Path, source: spec.Source
) -> Foreign:
    """Export the module as it is called, by the first exporter whose graph agrees with it."""
    tensors = layout.sample(0, layout.batch, layout.steps)
    with preserved(module):
        outputs = list(named_outputs(call.run(module, tensors)))
    job = flat_job(module, call, layout, outputs, source.opset or OPSET)
    failures = []
    for way in WAYS:
        try:
            export(job, way, path)
            graph = load(path, len(outputs), folder)
            _check(module, call, layout, graph, folder)
        except Refused as error:
            failures.append(f"with {way}, {error.reason}")
            continue
        return Foreign(graph, _exported_by(source, way, graph), _oracle(module, call), layout.vocabulary)
    raise Refused(
        f"{type(module).__name__}: expected an ONNX graph that agrees with the module at other batches and "
        f"lengths, found none: {'; '.join(failures)}",
        ADVICE,
    )


def _check(module: nn.Module, call: Call, layout: Layout, graph: onnx.ModelProto, folder: Path) -> None:
    """Check that a graph agrees with the module as it is, or with its axes freed as the ladder frees them.

    Raises:
        Refused: neither does.
    """
    try:
        check_agreement(module, call, layout, graph, folder)
    except Refused:
        relaxed, done = relax(graph)
        if not done:
            raise
        check_agreement(module, call, layout, relaxed, folder)


def _oracle(module: nn.Module, call: Call) -> Oracle:
    names = list(call.tensors)

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        # An input that the graph does not use is missing from what it is fed.
        tensors = [torch.tensor(feeds[name]) if name in feeds else call.tensors[name] for name in names]
        return [one.numpy() for one in outputs_of(module, call, tensors)]

    return run


def _source(module: nn.Module, checkpoint: Path | None, file: str, opset: int) -> spec.Source:
    if checkpoint is None:
        name, sha256 = file or type(module).__name__, weights_sha256(module)
    else:
        with checkpoint.open("rb") as opened:
            name, sha256 = file or checkpoint.name, hashlib.file_digest(opened, "sha256").hexdigest()
    return spec.Source(file=name, sha256=sha256, framework=f"PyTorch {torch.__version__}", opset=opset)


def _exported_by(source: spec.Source, way: str, graph: onnx.ModelProto) -> spec.Source:
    opset = next(one.version for one in graph.opset_import if one.domain in ("", "ai.onnx"))
    return source.model_copy(update={"exporter": f"torch.onnx with {way}", "opset": opset})


def _said(call: Call, layout: Layout) -> tuple[str, ...]:
    """Return sentences on what is fixed."""
    said = []
    if call.constants:
        said.append(f"arguments that stay as in the example: {', '.join(call.constants)}")
    filled = [one.name for one in layout.inputs if one.kind == "filled"]
    if filled:
        said.append(f"inputs of one value, that of the example's first element: {', '.join(filled)}")
    if not layout.any_steps:
        said.append(f"the module takes sequences of {layout.steps} time steps alone")
    if not layout.any_batch:
        said.append(f"the module takes {layout.batch} sequences a call alone")
    return tuple(said)

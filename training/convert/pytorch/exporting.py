"""Exports a module to an ONNX file with one of torch's two exporters.

Measured with torch 2.13: the TorchScript exporter wrote graphs of free batch and length for RNN, LSTM and GRU
of two layers in either order of axes and either direction, in 0.2 s at most. The one on torch.export took
3 to 11 s. It wrote the example's sizes into a graph whose time comes first without saying so, and after the
first LSTM of a process it failed, as it took the length for fixed. So TorchScript is asked first, and a graph
counts only if it agrees with the module at other sizes (`agreement`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from training.convert.foreign import Refused
from training.convert.graph.weights import move_out
from training.convert.pytorch.attention import plain_attention
from training.convert.pytorch.calls import Call, described, named_outputs
from training.convert.pytorch.layout import Layout
from training.convert.pytorch.running import preserved
from training.convert.pytorch.silence import silenced

# CUDA kernels of the recurrent operators stop at opset 21.
OPSET = 17
EXPORT_OPSET = 18  # the lowest that the exporter on torch.export writes without converting
# Where forward() computes with Python numbers, such as len(x), they stay in the graph; exported with fixed
# axes it can be freed by `repairs`, which then knows the numbers that are sizes.
WAYS = ("TorchScript", "TorchScript at fixed sizes", "torch.export")


@dataclass(frozen=True, slots=True)
class Job:
    """What is exported.

    Attributes:
        module: takes the tensors of `inputs` by position, and gives a tuple of tensors.
        inputs: tensors to trace with, by name.
        outputs: names of the first tensors that it gives; what it gives beyond them is cut off.
        dynamic: axes that are free, with their names, by the name of the input.
        opset: opset that is asked for.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    dynamic: Mapping[str, Mapping[int, str]]
    opset: int = OPSET


class Flat(nn.Module):
    """A module that takes its tensors one by one and gives a tuple of tensors.

    The TorchScript exporter fails at a pack of which only the last hidden state is used. So every output of a
    recurrent layer that is packed is padded, and given behind the module's own outputs.
    """

    def __init__(self, module: nn.Module, call: Call) -> None:
        super().__init__()
        self.original = module
        self.call = call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of the module's answer, and then the padded packs."""
        padded: list[Tensor] = []

        def pad(_: nn.Module, __: Any, answer: Any) -> None:
            if isinstance(answer[0], PackedSequence):
                padded.append(pad_packed_sequence(answer[0])[0])

        with ExitStack() as stack:
            for one in self.original.modules():
                if isinstance(one, nn.RNNBase):
                    stack.callback(one.register_forward_hook(pad).remove)
            answer = self.call.run(self.original, tensors)
        return (*named_outputs(answer).values(), *padded)


def flat_job(module: nn.Module, call: Call, layout: Layout, outputs: Sequence[str], opset: int) -> Job:
    """Return the job of a module as it is called."""
    batch = max(2, layout.batch) if layout.any_batch else layout.batch
    tensors = layout.sample(0, batch, layout.steps)
    dynamic = {}
    for one in layout.inputs:
        axes = {one.batch: "batch"} if layout.any_batch and one.batch is not None else {}
        if layout.any_steps and one.time is not None:
            axes[one.time] = "time"
        dynamic[one.name] = axes
    inputs = {one.name: value for one, value in zip(layout.inputs, tensors, strict=True)}
    return Job(Flat(module, call), inputs, outputs, dynamic, opset)


def export(job: Job, way: str, path: Path) -> None:
    """Write the ONNX file of a job, without printing, and leave its module as it was.

    Raises:
        Refused: the exporter failed, with its reason.
    """
    try:
        with silenced(), preserved(job.module), plain_attention(job.module), _no_fused_attention():
            if way == WAYS[2]:
                _torch_export(job, path)
            else:
                _torchscript(job, path, is_free=way == WAYS[0])
    except Exception as error:
        cause = error
        while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        raise Refused(f"the exporter failed with {described(cause)}") from error


def _torchscript(job: Job, path: Path, *, is_free: bool) -> None:
    torch.onnx.export(
        job.module,
        tuple(job.inputs.values()),
        str(path),
        dynamo=False,
        input_names=list(job.inputs),
        output_names=list(job.outputs),
        dynamic_axes={name: dict(axes) for name, axes in job.dynamic.items() if axes and is_free},
        opset_version=job.opset,
    )


def _torch_export(job: Job, path: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(job.dynamic[name], free) for name in job.inputs)
    torch.onnx.export(
        job.module,
        tuple(job.inputs.values()),
        str(path),
        dynamo=True,
        input_names=list(job.inputs),
        output_names=list(job.outputs),
        dynamic_shapes=(shapes,),
        opset_version=max(job.opset, EXPORT_OPSET),
        external_data=False,
        verbose=False,
    )


def load(path: Path, outputs: int, folder: Path) -> onnx.ModelProto:
    """Load an exported graph without the outputs behind the first ones, and delete its file.

    Exporters declare sizes of outputs and of tensors inside that hold for the example alone: only the width
    of an output is kept.

    Args:
        path: the file.
        outputs: number of outputs to keep.
        folder: folder to whose file the large weights are moved.
    """
    model = onnx.load(str(path))
    graph = model.graph
    del graph.output[outputs:]
    del graph.value_info[:]
    for one in graph.output:
        for axis, dim in enumerate(one.type.tensor_type.shape.dim[:-1]):
            dim.dim_param = f"{one.name}.{axis}"
    path.unlink()
    small, _ = move_out(model, folder)
    return small


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Switch off the fused encoder layers of eval mode, which neither exporter knows."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)

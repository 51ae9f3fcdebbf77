"""Small networks as torch's exporters write them, for the tests of repairs.

The legacy exporter runs in the tests. The dynamo exporter takes seconds a network, and freezes time on its
second export in a process, so that its files lie in `exporters/`, written by

    python -m tests.training.convert.exports
"""

import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

FOLDER = Path(__file__).parent / "exporters"
FEATURES, HIDDEN, OUTPUTS, STEPS = 3, 4, 2, 7


@dataclass(frozen=True)
class Form:
    """What a network is, and whether it is exported with free axes.

    Attributes:
        kind: RNN, LSTM or GRU.
        batch_first: data are [batch, time, features], else [time, batch, features].
        layers: number of layers.
        head: a linear layer at every step (every), at the last one (last), or on the last state (h_n).
        is_dynamic: exported with free axes of batch and time.
    """

    kind: str
    batch_first: bool
    layers: int
    head: str
    is_dynamic: bool

    @property
    def name(self) -> str:
        order = "batch_first" if self.batch_first else "time_first"
        return f"{self.kind}.{order}.{self.layers}.{self.head}.{'dynamic' if self.is_dynamic else 'static'}"

    def shape(self, batch: int, steps: int) -> tuple[int, int, int]:
        return (batch, steps, FEATURES) if self.batch_first else (steps, batch, FEATURES)


FORMS = [
    Form(*parts)
    for parts in product(
        ("RNN", "LSTM", "GRU"), (True, False), (1, 2), ("every", "last", "h_n"), (True, False)
    )
]
# The dynamo exporter refuses an RNN with free axes, and unrolls one with fixed ones.
DYNAMO_FORMS = [form for form in FORMS if form.kind != "RNN" and form.layers == 2] + [
    Form("RNN", True, 1, "last", False)
]


class Net(nn.Module):
    """Recurrent layers and a linear head. Inputs are float32 in the form's order of axes."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        layer = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}[form.kind]
        self.layers = layer(FEATURES, HIDDEN, form.layers, batch_first=form.batch_first)
        self.head = nn.Linear(HIDDEN, OUTPUTS)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.layers(x)
        if self.form.head == "h_n":
            y = (state[0] if isinstance(state, tuple) else state)[-1]
        elif self.form.head == "last":
            y = y[:, -1] if self.form.batch_first else y[-1]
        outputs: torch.Tensor = self.head(y)
        return outputs


def fill(module: nn.Module) -> None:
    """Set weights that depend on no random numbers, so that stored files fit the module of any torch."""
    with torch.no_grad():
        for index, one in enumerate(module.parameters()):
            numbers = np.sin(1.7 * np.arange(one.numel()) + index) / 2
            one.copy_(torch.from_numpy(numbers.astype(np.float32)).reshape(one.shape))


def legacy(
    module: nn.Module, *inputs: torch.Tensor, axes: dict[str, dict[int, str]] | None = None
) -> onnx.ModelProto:
    """Export with torch's legacy exporter; inputs are named x, x1, x2 and the output y."""
    file = io.BytesIO()
    names = ["x", *(f"x{index}" for index in range(1, len(inputs)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            file,  # type: ignore[arg-type]  # the legacy exporter takes a file
            dynamo=False,
            input_names=names,
            output_names=["y"],
            dynamic_axes=axes,
        )
    return onnx.ModelProto.FromString(file.getvalue())


def legacy_form(form: Form) -> tuple[nn.Module, onnx.ModelProto]:
    """Return a network and its export by the legacy exporter, at batch 1 and 7 steps."""
    module = Net(form)
    axes = {"x": {0: "a", 1: "b"}} if form.is_dynamic else None
    return module, legacy(module, torch.zeros(form.shape(1, STEPS)), axes=axes)


def stored(form: Form) -> tuple[nn.Module, onnx.ModelProto]:
    """Return a network and its stored export by the dynamo exporter."""
    return Net(form), onnx.load(str(FOLDER / f"{form.name}.onnx"))


def dynamo(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, *, is_dynamic: bool) -> None:
    """Export with torch's dynamo exporter, without traces of the module's source."""
    free = torch.export.Dim.DYNAMIC
    shapes = tuple({0: free, 1: free} for _ in inputs) if is_dynamic else None
    program = torch.onnx.export(
        module.eval(),
        inputs,
        dynamo=True,
        input_names=["x", *(f"x{index}" for index in range(1, len(inputs)))],
        output_names=["y"],
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    parts: list[Any] = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.value_info]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    path.write_bytes(model.SerializeToString())


def in_child(work: Callable[[], None]) -> bool:
    """Run a function in a forked process, and return whether it ended well."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    code = 1
    try:
        # The exporter writes a page of warnings.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
        code = 0
    finally:
        os._exit(code)


def _write(form: Form) -> None:
    batch = 2 if form.is_dynamic else 1
    path = FOLDER / f"{form.name}.onnx"
    dynamo(Net(form), (torch.zeros(form.shape(batch, STEPS)),), path, is_dynamic=form.is_dynamic)


def _write_convolution(name: str) -> None:
    from tests.training.convert.rungs import test_convolution  # noqa: PLC0415  # it imports this module

    module = getattr(test_convolution, name)()
    dynamo(module, (torch.zeros(2, STEPS, 5),), FOLDER / f"{name}.onnx", is_dynamic=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in DYNAMO_FORMS:
        print(each.name, in_child(partial(_write, each)), flush=True)
    for convolution in ("Front", "Chomped", "Joined", "Stack"):
        print(convolution, in_child(partial(_write_convolution, convolution)), flush=True)

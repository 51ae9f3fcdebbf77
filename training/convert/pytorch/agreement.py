"""Compares an exported graph with its module at other batches and lengths than the one it was traced with."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from training.convert.foreign import Refused
from training.convert.graph.session import Session
from training.convert.pytorch.calls import Call, outputs_of
from training.convert.pytorch.layout import Layout

# Largest difference, of the larger of 1 and the largest output.
TOLERANCE = 2e-5
MIN_LENGTHS = 2

Run = Callable[[Sequence[Tensor]], list[Tensor]]


def check_agreement(
    module: nn.Module, call: Call, layout: Layout, graph: onnx.ModelProto, folder: Path
) -> None:
    """Run graph and module side by side, at batches 1 to 3 and at several lengths.

    Raises:
        Refused: the graph does not run where the module runs, or answers something else, or the module runs
            at too few sizes to tell.
    """
    session = Session(graph, folder)
    compared = set()
    for seed, (batch, steps) in enumerate(sizes(layout)):
        tensors = layout.sample(seed + 1, batch, steps)
        try:
            expected = outputs_of(module, call, tensors)
        except Refused:
            continue  # the module itself refuses this size, such as a length below a convolution's kernel
        names = [one.name for one in layout.inputs]
        found = run_graph(session, dict(zip(names, tensors, strict=True)), batch, steps)
        check_close(expected, found, f"{batch} sequences of {steps} time steps")
        compared.add(steps)
    if len(compared) < (MIN_LENGTHS if layout.any_steps else 1):
        raise Refused(f"the module ran at {len(compared)} of the lengths that were tried, too few to compare")


def sizes(layout: Layout) -> list[tuple[int, int]]:
    """Return the numbers of sequences and time steps to compare at."""
    batches = (1, 2, 3) if layout.any_batch else (layout.batch,) * 3
    lengths = (1, 2, 3, 11, layout.steps, layout.steps + 6) if layout.any_steps else (layout.steps,) * 3
    return [(batches[index % 3], one) for index, one in enumerate(lengths)] + [(batches[0], lengths[-1])]


def run_graph(session: Session, tensors: dict[str, Tensor], batch: int, steps: int) -> list[np.ndarray]:
    """Run a graph on the tensors that it takes, and return all its outputs.

    Raises:
        Refused: onnxruntime failed.
    """
    try:
        return session.run({name: one.numpy() for name, one in tensors.items()})
    except Refused as error:
        raise Refused(
            f"the graph does not run at {batch} sequences of {steps} time steps: {error.reason}"
        ) from error


def check_close(expected: Sequence[Tensor], found: Sequence[np.ndarray], where: str) -> None:
    """Compare outputs.

    Raises:
        Refused: a shape differs, or a number by more than the tolerance.
    """
    for want, got in zip(expected, found, strict=True):
        if tuple(want.shape) != got.shape:
            raise Refused(f"at {where} the graph gives {got.shape}, the module {tuple(want.shape)}")
        one = want.detach().numpy().astype(np.float64)
        scale = max(1.0, float(np.abs(one).max(initial=0)))
        difference = float(np.abs(one - got).max(initial=0)) / scale
        if not difference <= TOLERANCE:
            raise Refused(f"at {where} the graph differs from the module by {difference:.1e}")

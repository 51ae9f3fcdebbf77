"""Judges conversions by the original module in PyTorch, at sequences, chunks and batches of their own."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.training.convert.foreign_networks import Network, Plan, export
from training.convert.candidate import Candidate
from training.convert.cases import Case, Drawing
from training.convert.converted import Converted
from training.convert.foreign import Refused
from training.convert.graph.session import Session
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.reading import read_onnx
from training.convert.proofs.running import CellRunner, run_whole

# Largest difference from PyTorch, of the larger of 1 and the largest output: the sums of a network of a dozen
# units differ by a tenth of it between PyTorch and onnxruntime.
RIGHT = 1e-4
_LENGTHS = (1, 3, 11, 24)
_LONG = 90


@dataclass(frozen=True)
class Verdict:
    """The outcome of a conversion.

    Attributes:
        rung: of the ladder, or "refused".
        difference: largest difference from the module, infinite where the graphs do not run.
        reason: of a refusal.
    """

    rung: str
    difference: float = 0.0
    reason: str = ""

    @property
    def is_wrong(self) -> bool:
        """Return True for a conversion that was accepted and is not the module."""
        return self.rung != "refused" and not self.difference <= RIGHT


def rung_of(converted: Converted) -> str:
    if converted.kind == "chunk":
        return "chunk" if converted.init is None else "chunk, init"
    return "whole, lengths" if converted.padding == "lengths" else "whole, equal lengths"


def judged(plan: Plan, exporter: str = "legacy") -> Verdict:
    """Export the network of a plan, convert the file, and judge what comes out."""
    network = Network(plan).eval()
    with tempfile.TemporaryDirectory() as folder:
        path, work = Path(folder) / "foreign.onnx", Path(folder) / "work"
        work.mkdir()
        try:
            export(network, path, exporter)
        except Exception as error:
            return Verdict("not exported", 0.0, f"{type(error).__name__}")
        try:
            converted = climb(read_onnx(path, work), choices_of(plan), work)
        except Refused as error:
            return Verdict("refused", 0.0, str(error))
        return Verdict(rung_of(converted), difference(converted, network, work))


def choices_of(plan: Plan) -> Choices:
    return Choices(width=None if plan.vocabulary else plan.width)


def difference(converted: Converted, network: Network, folder: Path) -> float:
    """Return the largest difference of converted graphs from the module that they come from."""
    drawing = Drawing(converted.input, converted.initial, converted.source)
    rng = np.random.default_rng(network.plan.seed + 10_000)
    lengths: tuple[int, ...] = (*_LENGTHS, _LONG)
    if network.plan.is_static and converted.kind == "whole":
        lengths = (7,)  # a file of frozen axes is judged at what it says that it takes
    cases = [drawing.case(rng, steps) for steps in lengths for _ in range(2)]
    try:
        found = rows_of(converted, cases, drawing, folder, rng)
    except Refused:
        return float("inf")
    worst = 0.0
    for case, rows in zip(cases, found, strict=True):
        expected = answers(network, case, at_every_step=converted.kind == "chunk")
        if rows.shape != expected.shape:
            return float("inf")
        scale = max(1.0, float(np.abs(expected).max()))
        worst = float(np.max([worst, float(np.abs(rows - expected).max()) / scale]))
    return worst


def rows_of(
    converted: Converted,
    cases: Sequence[Case],
    drawing: Drawing,
    folder: Path,
    rng: np.random.Generator,
) -> list[NDArray[np.float32]]:
    """Run sequences: in one batch, cut at random; whole ones in one batch, or in those of equal lengths."""
    if converted.kind == "chunk":
        takes = rng.integers(1, 9, (len(cases), _LONG + 1))
        runner = CellRunner(Candidate.of(converted), drawing, folder)
        return runner.outputs(cases, lambda row, tick: int(takes[row, tick]))
    session, every = Session(converted.graph, folder), not converted.pooled
    if converted.padding == "lengths":
        return run_whole(session, cases, drawing, every)
    pairs = [cases[index : index + 2] for index in range(0, len(cases), 2)]
    return [rows for pair in pairs for rows in run_whole(session, pair, drawing, every)]


def answers(network: Network, case: Case, *, at_every_step: bool) -> NDArray[np.float32]:
    """Return what the module gives for a sequence alone: of the last step, or after each step."""
    if network.plan.take == "every":
        return answer(network, case)
    if not at_every_step:
        return answer(network, case)
    return np.concatenate([answer(network, case.prefix(end + 1)) for end in range(len(case.inputs))])


def answer(network: Network, case: Case) -> NDArray[np.float32]:
    """Return what the module gives for a sequence alone, float32 (T, outputs) or (1, outputs)."""
    plan, steps = network.plan, len(case.inputs)
    data = torch.from_numpy(np.ascontiguousarray(case.inputs))
    given: list[Tensor] = [data[:, None] if plan.is_time_first else data[None]]
    if plan.has_lengths:
        given.append(torch.tensor([steps]))
    if plan.states:
        first = plan.blocks[0]
        rows = first.layers * (2 if first.is_both else 1)
        given += [torch.zeros(rows, 1, first.width)] * (2 if first.kind == "lstm" else 1)
    if plan.image:
        given.append(torch.from_numpy(case.initial["image"][None]))
    with torch.no_grad():
        found = network(*given)
    y = found[0] if isinstance(found, tuple) else found
    return np.asarray(y.numpy().reshape(-1, plan.outputs))

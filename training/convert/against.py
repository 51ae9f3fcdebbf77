"""Compares the graphs of a version folder with the network that they come from, at random sequences.

The comparison is that of a conversion (`proofs`), so that a folder that was edited, or written by other means
than a conversion, is held to the same.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from service.contract import spec
from training.convert.candidate import Candidate
from training.convert.converted import Comparison
from training.convert.foreign import Foreign, Refused
from training.convert.options import Choices
from training.convert.original.original import Original
from training.convert.proofs.proving import prove_chunk, prove_whole
from training.convert.step.original import StepOriginal
from training.convert.step.reading import is_step, read_step
from training.convert.ways import read, read_pair
from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Compared:
    """The outcome of a comparison with an original.

    Attributes:
        original: as the user named it.
        comparisons: ways in which both were run; none where they differ.
        refused: why they are not the same; None: they are.
    """

    original: str
    comparisons: tuple[Comparison, ...]
    refused: Refused | None = None


def compared_with(folder: Path, original: str, choices: Choices, checkpoint: Path | None = None) -> Compared:
    """Compare a version with an original, and return what came out, also where they differ.

    Args and errors are those of `compare_with`; the folder for weights is made here.
    """
    with tempfile.TemporaryDirectory(prefix="seqserve-check-") as work:
        try:
            return Compared(original, compare_with(folder, original, choices, Path(work), checkpoint))
        except Refused as error:
            return Compared(original, (), error)


def compare_with(
    folder: Path, network: str, choices: Choices, work: Path, checkpoint: Path | None = None
) -> tuple[Comparison, ...]:
    """Compare the float32 graphs of a version with an original.

    Args:
        folder: .../<name>/<version>.
        network: an ONNX file, a .keras file, or package.module:function.
        choices: what the user says about the original.
        work: an empty folder.
        checkpoint: file of the weights of a module.

    Returns:
        One comparison for each way in which the graphs were run.

    Raises:
        Refused: the original cannot be read, takes something else, or differs; the sentence says where.
        TrainingError: the folder is not what the contract calls for.
    """
    try:
        model, _, files = spec.read_version(folder)
    except spec.SpecError as error:
        raise TrainingError(f"{folder}: {error}") from error
    foreign = read_pair(read(network, work, checkpoint=checkpoint), choices, work)
    reference = _reference(foreign, choices, work)
    _expect_input(model, reference)
    window = model.network.window
    if window is not None:
        reference.lengths = (window.to,)
    prove = prove_chunk if model.network.kind == "chunk" else prove_whole
    return prove(reference, _candidate(model, files), work).comparisons


def _reference(foreign: Foreign, choices: Choices, work: Path) -> Original | StepOriginal:
    if is_step(foreign, choices):
        return StepOriginal(foreign, choices, read_step(foreign, choices))
    return Original(foreign, choices, work)


def _expect_input(model: spec.ModelSpec, reference: Original | StepOriginal) -> None:
    """Raise Refused where version and original take different things, which no comparison can be made of."""
    found = reference.drawing.input
    for what, own, other in (
        ("kind of input", model.input.kind, found.kind),
        ("size of the input", model.input.size, found.size),
    ):
        if own != other:
            raise Refused(f"{what}: expected {other}, as the original has, found {own} in model.json")


def _candidate(model: spec.ModelSpec, files: dict[str, bytes]) -> Candidate:
    """Return the graphs of a version as a conversion makes them."""
    network = model.network
    init = None if network.init is None else onnx.ModelProto.FromString(files[network.init.file])
    return Candidate(
        kind=network.kind,
        graph=onnx.ModelProto.FromString(files[model.variants["fp32"].file]),
        layers=network.layers,
        outputs=model.outputs,
        init=init,
        states=network.states,
        padding=network.padding or "lengths",
        pooled=network.is_pooled,
    )

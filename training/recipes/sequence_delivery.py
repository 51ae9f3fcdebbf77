"""What recipes of the task sequences share: batches, pictures of labels, and the end of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from service.contract import spec
from training.data.unchanged import Taken
from training.export.card import CardFacts
from training.export.pictures import LabelledParts
from training.export.sequences.compare import Example
from training.export.sequences.export import SequencePackage, export_sequences
from training.loop import parallel
from training.loop.checkpoint import CHECKPOINT_FILE, read_history
from training.networks.sequences import LayerConfig, SequenceNetwork
from training.recipes.report import Results
from training.recipes.run import RunOptions, judge, made_of, metrics_of, say_exported

ROWS = 32  # fewer for small data
FEWEST_ROWS = 4
FEWEST_STEPS = 30
# Sequences are shuffled, then sorted by length within groups of so many batches: little padding.
BATCHES_SORTED = 20
EVALUATION_ROWS = 64
CALIBRATION_BINS = 15

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run of a network of contract 2.

    Attributes:
        network: trained.
        section: what the network takes and gives.
        examples: held-out inputs of several lengths, as callers send them.
        results: on the held-out part.
        taken: what it was trained on.
        summary, split, limits: for the model card.
        evidence: how labels were given on the held-out part; None: there are no labels.
        call: arguments of `seqserve` that make a first call.
        choices: name of the recipe and what it was told about its data beside the files, for provenance.
        files: further files of the version.
    """

    network: SequenceNetwork
    section: spec.SequencesSpec
    examples: Sequence[Example]
    results: Results
    taken: Taken
    summary: str
    split: str
    limits: str
    evidence: LabelledParts | None
    call: tuple[str, ...]
    choices: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)


def layers_of(options: RunOptions, *, looks_both_ways: bool) -> tuple[LayerConfig, ...]:
    """Return the recurrent layers that the options ask for."""
    layer = LayerConfig(options.cell, options.hidden, "both" if looks_both_ways else "forward")
    return (layer,) * options.layers


def rows_of(options: RunOptions, count: int) -> int:
    """Return the rows of a batch: few where there is little to train on, so that there are steps enough."""
    return options.tuning.batch_or(min(ROWS, max(FEWEST_ROWS, count // FEWEST_STEPS)), count)


def random_batches(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Return the indices of all sequences in random batches of similar lengths."""
    shuffled: list[int] = torch.randperm(len(lengths)).tolist()
    group = rows * BATCHES_SORTED
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), group):
        by_length = sorted(shuffled[start : start + group], key=lengths.__getitem__)
        batches += [by_length[first : first + rows] for first in range(0, len(by_length), rows)]
    return [batches[index] for index in torch.randperm(len(batches)).tolist()]


def run_rows(network: SequenceNetwork, inputs: Sequence[Tensor], device: str) -> tuple[Tensor, Tensor]:
    """Run some sequences padded to the longest of them.

    Args:
        network: the network.
        inputs: int64 (T,) or float32 (T, F) each.
        device: of the network.
    Returns:
        Outputs, float32 (B, T, outputs) or (B, outputs) with pooling; and lengths, int64 (B,), on the CPU.
    """
    lengths = torch.tensor([len(one) for one in inputs])
    padded = pad_sequence(list(inputs), batch_first=True).to(device)
    # Of a network that looks forward, what follows a row's end changes none of its outputs, and a packed
    # batch takes longer.
    outputs, _ = network(padded, lengths if network.config.kind == "whole" else None)
    return outputs, lengths


def all_outputs(network: SequenceNetwork, inputs: Sequence[Tensor], device: str) -> list[Floats]:
    """Return the outputs for each sequence: float64 (T, outputs), or (1, outputs) with pooling."""
    found: list[Floats] = []
    with torch.no_grad():
        for start in range(0, len(inputs), EVALUATION_ROWS):
            outputs, lengths = run_rows(network, inputs[start : start + EVALUATION_ROWS], device)
            values = outputs.double().cpu().numpy()
            rows = zip(values, lengths.tolist(), strict=True)
            found += [row[None] if row.ndim == 1 else row[:length] for row, length in rows]
    return found


def labelled(
    labels: Sequence[str], probabilities: Floats, classes: NDArray[np.int64], parts: str
) -> LabelledParts:
    """Return what the picture of labels shows.

    Args:
        labels: names of the classes.
        probabilities: float64 (N, classes).
        classes: int64 (N,), the true ones.
        parts: what was labelled, in the plural.
    """
    given, size = probabilities.argmax(1), len(labels)
    confidence, is_right = probabilities.max(1), given == classes
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    held, bins, counts = np.unique(bins, return_inverse=True, return_counts=True)
    sums, hits = np.bincount(bins, confidence, len(held)), np.bincount(bins, is_right, len(held))
    return LabelledParts(
        labels=list(labels),
        counts=np.bincount(classes * size + given, minlength=size * size).reshape(size, size).tolist(),
        confidence=(sums / counts).tolist(),
        accuracy=(hits / counts).tolist(),
        texts=counts.tolist(),
        error=float(100 * np.abs(sums - hits).sum() / len(classes)),
        parts=parts,
    )


def deliver_sequences(options: RunOptions, done: Finished) -> Path:
    """Show the table, export the network, and say how to serve and to call it: the leader alone.

    Returns:
        The new version's folder.
    Raises:
        NotBetterError: the model does not beat its baselines, and was required to.
        TrainingError: the data have changed since they were read, or the export fails its check.
        WriteError: the version cannot be written.
    """
    parallel.share().dismiss_followers()
    done.taken.check_before_export()
    Console().print(done.results.table())
    judged = judge(options, done.results)
    history = tuple(read_history(options.folder / CHECKPOINT_FILE, done.network.config))
    package = SequencePackage(
        name=options.name,
        network=done.network.cpu(),
        section=done.section,
        examples=done.examples,
        metrics=metrics_of(done.results, judged),
        provenance=made_of(options, done.taken, done.choices),
        card=CardFacts(
            done.summary,
            done.split,
            done.results.markdown(),
            done.limits,
            history=history,
            evidence=done.evidence,
            verdict=judged.markdown(),
        ),
        files=done.files,
    )
    folder = export_sequences(package, options.repository)
    say_exported(options, folder, done.call)
    return folder

"""Rows of features to a class or to numbers, one a sequence (many to one) or one a time step (many to many).

The network looks forward by default, so that its sequences can be streamed; looking both ways, it reads
whole sequences. Arrays are batch first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from service.contract.sequences import FeatureColumn, OutputColumn, OutputSpec, SequencesSpec
from training import markdown
from training.data.feature_rows import RowsChoice, read_feature_sequences
from training.data.unchanged import Taken, take
from training.data.weights import class_weights
from training.data.windows import Cut, Kind, Steps, Window, Windows, make_windows
from training.errors import TrainingError
from training.export.export import seeded_examples
from training.export.sequences.compare import Example
from training.loop import parallel
from training.loop.fit import build_sequence_network, fit
from training.networks.sequences import SequenceConfig, SequenceNetwork
from training.recipes import series_results
from training.recipes.run import RunOptions, say, use_one_thread
from training.recipes.sequence_delivery import (
    Finished,
    all_outputs,
    deliver_sequences,
    labelled,
    layers_of,
    random_batches,
    rows_of,
    run_rows,
)
from training.writing import write_whole

Direction = Literal["forward", "both"]
Floats = NDArray[np.float64]

RECIPE = "series"
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.01
DROPOUT = 0.1
EXAMPLES = 6
# Golden examples are cut to so many rows: model.json holds them as text.
LONGEST_EXAMPLE = 200
# Rows of one held-out window, for the first call.
ROWS_FILE = "rows.csv"


@dataclass(frozen=True, slots=True)
class SeriesChoice:
    """The data of a run, and what is learnt of them.

    Attributes:
        rows: file and columns.
        cut: how long sequences are cut.
        kind: classes or numbers.
        steps: one target a sequence, or one a time step.
        direction: forward (streams), or both (whole sequences).
    """

    rows: RowsChoice
    cut: Cut = field(default_factory=Cut)
    kind: Kind = "auto"
    steps: Steps = "last"
    direction: Direction = "forward"

    def facts(self) -> dict[str, str]:
        """Return the choice by name, for a checkpoint and for provenance."""
        cut = {"window": str(self.cut.window), "stride": str(self.cut.stride)}
        return self.rows.facts() | cut | {"kind": self.kind, "steps": self.steps}


def read_windows(choice: SeriesChoice, seed: int) -> Windows:
    """Read the file and cut it into the windows of three parts.

    Raises:
        TrainingError: the data do not fit.
    """
    try:
        found = read_feature_sequences(choice.rows)
        return make_windows(found, choice.rows.targets, choice.cut, choice.kind, choice.steps, seed)
    except TrainingError as error:
        path = str(choice.rows.source.path)
        raise (
            error if path in str(error) or str(error).startswith("--") else TrainingError(f"{path}: {error}")
        ) from error


def held_out(choice: SeriesChoice, seed: int) -> list[Window]:
    """Return the windows that a run of this choice and seed held out."""
    return read_windows(choice, seed).held_out


def train(options: RunOptions, choice: SeriesChoice) -> Path:
    """Train on sequences of rows, measure on those held out, export.

    Returns:
        The folder exported to.
    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    use_one_thread()
    taken = take(choice.rows.source)
    windows = read_windows(choice, options.seed)
    taken.check_after_reading()
    for note in windows.notes:
        say(note)
    say(_parts(windows))
    objective = learn(options, windows, choice, taken.sha256)
    parallel.share().dismiss_followers()
    return deliver_sequences(options, _finished(options, windows, objective, choice, taken))


def _finished(
    options: RunOptions, windows: Windows, objective: "SeriesObjective", choice: SeriesChoice, taken: Taken
) -> Finished:
    """Measure the network on the held-out part, and return what is reported and exported."""
    network = objective.network
    outputs = all_outputs(network, objective.scaled(windows.held_out), options.device)
    weights = objective.class_weights
    results = series_results.results(windows, outputs, None if weights is None else weights.tolist())
    evidence = None
    if windows.labels:
        truth = series_results.truth(windows.held_out)
        given = series_results.probabilities(windows, outputs)
        evidence = labelled(windows.labels, given, truth, series_results.unit(windows))
    example = options.folder / ROWS_FILE
    write_whole(example, _first_call(windows).encode())
    return Finished(
        network=network,
        section=section_of(windows),
        examples=_examples(objective, windows, options.seed),
        results=results,
        taken=taken,
        summary=_summary(windows),
        split=(
            f"By sequence, at random by the seed: {_parts(windows)}. "
            "Scales come from the training part alone."
        ),
        limits="Knows sequences like those it was trained on, sampled at the same rate.",
        evidence=evidence,
        call=("infer", options.name, "--file", str(example)),
        choices={"recipe": RECIPE, **choice.facts()},
    )


def learn(options: RunOptions, windows: Windows, choice: SeriesChoice, sha256: str) -> "SeriesObjective":
    """Train a network on the windows, and return the objective that holds it."""
    looks_both_ways = choice.direction == "both"
    config = SequenceConfig(
        kind="whole" if looks_both_ways else "chunk",
        layers=layers_of(options, looks_both_ways=looks_both_ways),
        outputs=len(windows.labels or windows.targets),
        features=len(windows.columns),
        has_norm=True,
        pooling="mean" if looks_both_ways and windows.steps == "last" else None,
        dropout=options.tuning.dropout_or(DROPOUT),
    )
    network = build_sequence_network(config, options.seed, options.device)
    objective = SeriesObjective(network, windows, options)
    data = {"sha256": sha256, **choice.facts()}
    fit(objective, options.schedule(LEARNING_RATE, WEIGHT_DECAY), options.folder, options.resume, data)
    return objective


class SeriesObjective:
    """Cross-entropy of classes, or squared error of standardised numbers.

    Of a network that looks forward and has one target a sequence, the loss is the mean over the second half
    of each window's steps: the answer is then right before the end, too, while a sequence is streamed.
    """

    def __init__(self, network: SequenceNetwork, windows: Windows, options: RunOptions) -> None:
        self._network = network
        self.windows = windows
        self.device = options.device
        self.mean, self.scale = windows.scales()
        self.inputs = self.scaled(windows.train)
        self.develop_inputs = self.scaled(windows.develop)
        self.class_weights: Tensor | None = None
        if windows.labels:
            classes = series_results.truth(windows.train)
            counts = np.bincount(classes, minlength=len(windows.labels)).astype(np.float64)
            found = class_weights(options.tuning.class_weights, windows.labels, np.maximum(counts, 1))
            self.class_weights = None if found is None else torch.from_numpy(found)
        self.targets = self._targets(windows.train)
        self.develop_targets = self._targets(windows.develop)
        self.rows = rows_of(options, len(self.inputs))
        self.steps_per_epoch = -(-len(self.inputs) // self.rows)

    @property
    def network(self) -> SequenceNetwork:
        """The network that is trained."""
        return self._network

    def scaled(self, windows: Sequence[Window]) -> list[Tensor]:
        """Return what the network gets for each window: float32 (T, F)."""
        return [torch.from_numpy((one.values - self.mean) / self.scale).float() for one in windows]

    def _targets(self, windows: Sequence[Window]) -> list[Tensor]:
        """Return int64 (1,) or (T,) of classes, standardised float32 (1, K) or (T, K) of numbers."""
        if self.windows.labels:
            return [torch.from_numpy(np.atleast_1d(one.target)) for one in windows]
        mean, scale = self.windows.target_scales()
        return [torch.from_numpy((np.atleast_2d(one.target) - mean) / scale).float() for one in windows]

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002
        """Yield the loss of all training windows in random batches."""
        share, batches = parallel.share(), random_batches(list(map(len, self.inputs)), self.rows)
        share.part_ways()
        for batch in batches:
            part = share.part(len(batch))
            mine = batch[part.rows]
            yield part.weight * self._loss(
                [self.inputs[index] for index in mine], [self.targets[index] for index in mine]
            )

    def develop(self) -> float:
        """Return the mean loss over the development windows."""
        losses = []
        for one, target in zip(self.develop_inputs, self.develop_targets, strict=True):
            losses.append(float(self._loss([one], [target])))
        return float(np.mean(losses))

    def _loss(self, inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return the mean loss over windows; within a window the mean over its counted steps."""
        outputs, lengths = run_rows(self.network, inputs, self.device)
        if outputs.dim() == 2:
            return self._errors(outputs, torch.cat(list(targets)).to(self.device)).mean()
        steps = torch.arange(outputs.shape[1])
        first = lengths // 2 if self.windows.steps == "last" else torch.zeros_like(lengths)
        counted = (steps >= first[:, None]) & (steps < lengths[:, None])  # (B, T)
        known = torch.cat(
            [
                target[start:] if len(target) > 1 else target.repeat_interleave(int(length - start), 0)
                for target, start, length in zip(targets, first.tolist(), lengths.tolist(), strict=True)
            ]
        )
        errors = self._errors(outputs[counted.to(self.device)], known.to(self.device))
        weights = (counted / counted.sum(1, keepdim=True) / len(inputs))[counted].to(self.device)
        return (errors * weights).sum()

    def _errors(self, outputs: Tensor, known: Tensor) -> Tensor:
        """Return the loss of each output, (N, outputs) -> (N,)."""
        if not self.windows.labels:
            return (outputs - known).square().mean(1)
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        return cross_entropy(outputs, known, weight=weights, reduction="none")


def section_of(windows: Windows) -> SequencesSpec:
    """Return what model.json says of the columns that callers send and of the outputs."""
    columns = [
        FeatureColumn(name=name, mean=float(mean), scale=float(scale))
        for name, mean, scale in zip(windows.columns, *windows.scales(), strict=True)
    ]
    if windows.labels:
        output = OutputSpec(kind="logits", labels=list(windows.labels), steps=windows.steps)
    else:
        scaled = zip(windows.targets, *windows.target_scales(), strict=True)
        targets = [OutputColumn(name=name, mean=float(mean), scale=float(by)) for name, mean, by in scaled]
        output = OutputSpec(kind="numbers", columns=targets, steps=windows.steps)
    return SequencesSpec(columns=columns, output=output)


def _summary(windows: Windows) -> str:
    what = "a class" if windows.labels else "numbers"
    where = "sequence" if windows.steps == "last" else "time step"
    names = ", ".join(map(markdown.plain, windows.labels or windows.targets))
    return f"Gives {what} a {where} ({names}) from rows of {', '.join(map(markdown.plain, windows.columns))}."


def _parts(windows: Windows) -> str:
    def counted(part: list[Window]) -> str:
        return f"{len({one.sequence for one in part}):,} sequences ({len(part):,} windows)"

    return (
        f"{counted(windows.train)} for training, {counted(windows.develop)} that pick the epoch, "
        f"{counted(windows.held_out)} held out"
    )


def _examples(objective: SeriesObjective, windows: Windows, seed: int) -> list[Example]:
    cut = [one._replace(values=one.values[:LONGEST_EXAMPLE]) for one in windows.held_out]
    inputs = objective.scaled(cut)
    return [
        Example(inputs[index], values=cut[index].values) for index in seeded_examples(inputs, EXAMPLES, seed)
    ]


def _first_call(windows: Windows) -> str:
    """Return a held-out window as CSV."""
    quoted = [
        '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name for name in windows.columns
    ]
    rows = [",".join(repr(float(value)) for value in row) for row in windows.held_out[0].values]
    return "\n".join([",".join(quoted), *rows]) + "\n"

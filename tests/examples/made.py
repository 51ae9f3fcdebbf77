"""What the seven examples share: their form, the training loop, and what is exported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.contract import spec
from training.export.card import CardFacts
from training.export.export import provenance
from training.export.sequences.compare import Example, reference
from training.export.sequences.export import Section, SequencePackage
from training.networks.sequences import SequenceNetwork

SEED = 0
NUM_GOLDEN = 4
# Returns the loss of the next batch.
Loss = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question, in whatever way it was asked.

    Attributes:
        labels: one a row, of a model with labels.
        values: (rows, width) of numbers and embeddings, in the units of the model.
        text: of a caption or a date.
    """

    labels: tuple[str, ...] = ()
    values: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 0)))
    text: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A trained example.

    Attributes:
        package: what is exported.
        questions: held-out inputs, each with what a caller sends (`text`, `values`, `initial`,
            `source_text`).
        score: the share of answers that are right, or another number whose largest value is 1.
        bar: the score that a served model must reach.
        baseline: the score of the simplest method, named in the module.
        wrong: mistakes in a pipeline by name, each with what it makes of a question: the score then stays
            below the bar.
    """

    package: SequencePackage
    questions: Sequence[Example]
    score: Callable[[Sequence[Answer]], float]
    bar: float
    baseline: float
    wrong: Mapping[str, Callable[[Example], Example]]


def teach(network: SequenceNetwork, loss: Loss, steps: int, learning_rate: float = 0.01) -> None:
    """Train a network for so many steps with Adam and a learning rate that falls to zero."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    network.eval()


def package(
    name: str,
    network: SequenceNetwork,
    section: Section,
    questions: Sequence[Example],
    summary: str,
    files: Mapping[str, bytes] | None = None,
) -> SequencePackage:
    """Return what is exported: the first questions, of several lengths, are the golden examples."""
    return SequencePackage(
        name=name,
        network=network,
        section=section,
        examples=questions[:NUM_GOLDEN],
        metrics={},
        provenance=provenance(f"made by tests.examples.{name}", "none needed", "0" * 64, SEED),
        card=CardFacts(summary, "Made anew for each part.", "See tests/examples.", "For tests alone."),
        files=files or {},
    )


def answers(made: Made, questions: Sequence[Example]) -> list[Answer]:
    """Return what PyTorch answers, by the section's rules for labels and numbers."""
    section = made.package.section
    assert isinstance(section, spec.SequencesSpec)
    return [_answer(section.output, reference(made.package.network, one)) for one in questions]


def _answer(output: spec.OutputSpec, rows: NDArray[np.float32]) -> Answer:
    if output.steps == "last":
        rows = rows[-1:]
    if output.labels is not None:
        return Answer(labels=tuple(output.labels[index] for index in rows.argmax(1)))
    if output.columns is not None:
        scales, means = ([getattr(one, name) for one in output.columns] for name in ("scale", "mean"))
        return Answer(values=rows * np.array(scales) + np.array(means))
    return Answer(values=rows)


def share_right(expected: Sequence[Sequence[str]]) -> Callable[[Sequence[Answer]], float]:
    """Return the score that counts the labels of all rows of all answers that are right."""

    def score(found: Sequence[Answer]) -> float:
        assert [len(one.labels) for one in found] == list(map(len, expected))
        pairs = [
            pair
            for one, right in zip(found, expected, strict=True)
            for pair in zip(one.labels, right, strict=True)
        ]
        return sum(label == right for label, right in pairs) / len(pairs)

    return score

"""Result of every shape: a trained network, measurements, and the package for the service."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from service.contract.spec import Characters, Classification, Generation
from training.export.card import CardFacts
from training.export.export import Package, provenance
from training.loop.checkpoint import Epoch
from training.networks.network import RecurrentNetwork


@dataclass(frozen=True, slots=True)
class Solved:
    """A shape that was trained. It is a `training.lecture.lesson.Taught`.

    Attributes:
        name: of the task and the model.
        network: trained.
        section: what the service needs.
        examples: whole inputs of several lengths, int64 (T,): the golden examples.
        accuracy: share of answers that are right from end to end, of inputs never trained on where there are
            such.
        shown: lines for people.
        summary, split, limits: for the model card.
        data: everything that it was trained on, or what that follows from: its hash goes into model.json.
        call: a command that asks the served model.
        seed: of the run.
        files: further files of the version.
        history: the run's epochs, where it went by epochs.
    """

    name: str
    network: RecurrentNetwork
    section: Generation | Classification
    examples: Sequence[Tensor]
    accuracy: float
    shown: Sequence[str]
    summary: str
    split: str
    limits: str
    data: str
    call: str
    seed: int
    files: Mapping[str, bytes] = field(default_factory=dict)
    history: Sequence[Epoch] = ()

    def lines(self) -> Iterator[str]:
        """Return what it shows, line by line."""
        yield from self.shown

    def package(self) -> Package:
        """Return the package for the service."""
        results = (
            "| | exact answers |\n| --- | --- |\n"
            f"| {self.network.config.cell} | {100 * self.accuracy:.2f} % |"
        )
        return Package(
            name=self.name,
            network=self.network,
            section=self.section,
            examples=self.examples,
            metrics={"exact": self.accuracy},
            provenance=provenance(
                "made by training.shapes",
                "none needed",
                hashlib.sha256(self.data.encode()).hexdigest(),
                self.seed,
            ),
            card=CardFacts(self.summary, self.split, results, self.limits, history=tuple(self.history)),
            files=self.files,
        )

    def question(self) -> str:
        """Return a command that asks the served model."""
        return self.call


def characters(vocabulary: str, max_tokens: int) -> Generation:
    """Return a text generator's section; an empty prompt starts with the vocabulary's first character."""
    return Generation(
        text=Characters(kind="characters", vocabulary=vocabulary), start_token=0, max_tokens=max_tokens
    )

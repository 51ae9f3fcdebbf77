"""What every shape leaves: a trained network, what was measured, and what the service is given."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from service.contract.spec import Characters, Classification, Generation
from training.export.card import CardFacts
from training.export.export import Package, provenance
from training.loop.fit import Epoch
from training.networks.network import RecurrentNetwork


@dataclass(frozen=True, slots=True)
class Solved:
    """A task that was trained. It is a `training.lecture.lesson.Taught`.

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
        """What it shows, line by line."""
        yield from self.shown

    def package(self) -> Package:
        """For the exporter."""
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
        """A command that asks the served model."""
        return self.call


def characters(vocabulary: str, max_tokens: int) -> Generation:
    """A text generator's section; an empty prompt starts with the vocabulary's first character."""
    return Generation(
        text=Characters(kind="characters", vocabulary=vocabulary), start_token=0, max_tokens=max_tokens
    )

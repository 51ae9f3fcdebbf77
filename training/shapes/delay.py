"""The shape dates, many to many with delay: a written date is read to its end, then said in ISO form.

Encoder and decoder are one cell.

Nothing but a separator tells the network when to speak, and only what it says after that counts in the loss.
The service knows nothing of all this: to it the model is a text generator, asked for what follows `25
November 2026|`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from training.lecture.lesson import decode
from training.loop.fit import build_network, fit
from training.loop.schedule import Schedule
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork, last_steps
from training.recipes.run import RUNS
from training.shapes.solved import Solved, characters
from training.shapes.written import (
    END,
    FIRST_YEAR,
    FORMS,
    LAST_YEAR,
    SEPARATOR,
    VOCABULARY,
    Days,
    answer,
    question,
    split,
)

NAME = "dates"
SHOWN_DAY = date(2026, 11, 25)
ANSWER_LENGTH = len(answer(SHOWN_DAY))
EMBEDDING = 32
# Rows of a batch are run in groups of about one length: less padding.
GROUPS = 2
MOST_MEASURED = 2000
_TOKENS = {letter: token for token, letter in enumerate(VOCABULARY)}


@dataclass(frozen=True, slots=True)
class Plan:
    """Amount of training, and data.

    Attributes:
        forms: of written dates, by their names in `FORMS`.
        first_year, last_year: of the days.
        hidden: width of the state.
        epochs: after each, the development part is looked at.
        batches: an epoch.
        rows: dates a batch.
        rate: the largest learning rate.
    """

    forms: Sequence[str] = tuple(FORMS)
    first_year: int = FIRST_YEAR
    last_year: int = LAST_YEAR
    hidden: int = 128
    epochs: int = 9
    batches: int = 200
    rows: int = 64
    rate: float = 0.012


def build(cell: Cell, plan: Plan, seed: int) -> RecurrentNetwork:
    """Make a network that keeps what it read: orthogonal recurrent weights, forget gates open.

    Orthogonal weights: Saxe et al. 2014; open gates of an LSTM: Gers et al. 2000.

    From PyTorch's own start, as many steps get 11 % of the dates right instead of 99.9 %.
    """
    size = len(VOCABULARY)
    network = build_network(
        NetworkConfig(cell, 1, plan.hidden, size, vocabulary=size, embedding=EMBEDDING), seed, "cpu"
    )
    weights = {name: parameter.detach() for name, parameter in network.recurrent.named_parameters()}
    for gate in weights["weight_hh_l0"].chunk(len(weights["weight_hh_l0"]) // plan.hidden):
        nn.init.orthogonal_(gate)
    nn.init.xavier_uniform_(weights["weight_ih_l0"])
    assert isinstance(network.input_layer, nn.Embedding)
    nn.init.normal_(network.input_layer.weight)
    if cell == "lstm":
        weights["bias_ih_l0"][plan.hidden : 2 * plan.hidden] += 1.0
    return network


def encode(text: str) -> Tensor:
    """Convert letters to token ids, int64 (T,)."""
    return torch.tensor([_TOKENS[letter] for letter in text])


def pairs(forms: Sequence[str], days: Sequence[date]) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs and targets, int64 (B, T), and the mask of answers, bool (B, T), of one day a form."""
    texts = [encode(question(form, day) + answer(day)) for form, day in zip(forms, days, strict=True)]
    ends = torch.tensor([len(text) - 1 for text in texts])[:, None]
    inputs, targets = (
        pad_sequence(part, batch_first=True)
        for part in ([text[:-1] for text in texts], [text[1:] for text in texts])
    )
    steps = torch.arange(inputs.shape[1])
    return inputs, targets, (steps < ends) & (steps >= ends - ANSWER_LENGTH)


class DelayObjective:
    """Cross-entropy of the answers, given the questions and what was answered so far."""

    def __init__(self, network: RecurrentNetwork, days: Days, plan: Plan) -> None:
        self.network = network
        self.steps_per_epoch = plan.batches
        self._plan = plan
        self._days = days

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002 - the loop has set the epoch's seed
        """Yield the losses of batches whose days and forms are drawn as they are needed."""
        forms, days, rows = self._plan.forms, self._days.train, self._plan.rows
        for _ in range(self.steps_per_epoch):
            chosen = [days[index] for index in torch.randint(len(days), (rows,)).tolist()]
            written = [forms[index] for index in torch.randint(len(forms), (rows,)).tolist()]
            yield self._loss(written, chosen)

    def develop(self) -> float:
        """Return the loss over the development days, whose forms take turns."""
        days, forms = self._days.develop, self._plan.forms
        return float(self._loss([forms[index % len(forms)] for index in range(len(days))], days))

    def _loss(self, forms: Sequence[str], days: Sequence[date]) -> Tensor:
        order = sorted(range(len(days)), key=lambda index: len(question(forms[index], days[index])))
        parts = [
            order[len(order) * part // GROUPS : len(order) * (part + 1) // GROUPS] for part in range(GROUPS)
        ]
        found = [
            self._mean([forms[index] for index in part], [days[index] for index in part]) * len(part)
            for part in parts
            if part
        ]
        return torch.stack(found).sum() / len(days)

    def _mean(self, forms: Sequence[str], days: Sequence[date]) -> Tensor:
        inputs, targets, counts = pairs(forms, days)
        hidden, _ = self.network(inputs)
        return cross_entropy(self.network.outputs_of(hidden[counts]), targets[counts])


def answers(network: RecurrentNetwork, questions: Sequence[str]) -> list[str]:
    """Return what the network says after each question, feeding back the likeliest character.

    The service does so at temperature 0.
    """
    texts = [encode(text) for text in questions]
    lengths = torch.tensor(list(map(len, texts)))
    said: list[Tensor] = []
    with torch.no_grad():
        hidden, state = network(pad_sequence(texts, batch_first=True), lengths)
        last = last_steps(hidden, lengths)
        for _ in range(ANSWER_LENGTH):
            said.append(network.outputs_of(last).argmax(dim=-1))
            hidden, state = network(said[-1][:, None], state=state)
            last = hidden[:, 0]
    return [decode(row, VOCABULARY) for row in torch.stack(said, dim=1)]


def exact(network: RecurrentNetwork, form: str, days: Sequence[date]) -> float:
    """Return the share of days whose answer is right to the last character and ends there."""
    said = answers(network, [question(form, day) for day in days])
    return sum(one == answer(day) for one, day in zip(said, days, strict=True)) / len(days)


def train(cell: Cell, seed: int, plan: Plan, folder: Path) -> Solved:
    """Train, and measure every form on days that no form was trained on.

    Args:
        cell: which recurrence.
        seed: of the split, the weights and what is drawn.
        plan: how much.
        folder: for the checkpoint.
    """
    days = split(seed, plan.first_year, plan.last_year)
    network = build(cell, plan, seed)
    data = {"forms": "; ".join(plan.forms), "years": f"{plan.first_year} to {plan.last_year}"}
    history = fit(
        DelayObjective(network, days, plan),
        Schedule(plan.epochs, plan.rate, 0.0, seed=seed),
        folder,
        False,
        data,
    )
    measured = days.held_out[:MOST_MEASURED]
    found = {form: exact(network, form, measured) for form in plan.forms}
    mean = sum(found.values()) / len(found)
    return Solved(
        name=NAME,
        network=network,
        section=characters(VOCABULARY, ANSWER_LENGTH),
        examples=[
            encode(question(form, measured[0]) + answer(measured[0])[:-1])
            for form in (plan.forms[-1], plan.forms[0])
        ],
        accuracy=mean,
        shown=_shown(network, plan, days, found, mean),
        summary=(
            f"Turns a written date of {data['years']} into ISO form, "
            f"given as a prompt with {SEPARATOR} at its end: docs/shapes.md."
        ),
        split=(
            f"By day: {len(days.train):,} to train on, {len(days.develop):,} that picked the epoch, "
            f"{len(days.held_out):,} held out, of which {len(measured):,} were measured in every form."
        ),
        limits=(
            f"Knows these forms alone: {data['forms']}. "
            "Says something that looks like a date whatever it is given."
        ),
        data=repr(data),
        call=(
            f"seqserve generate --model {NAME} --temperature 0 "
            f"--stop '\\n' '{question(plan.forms[0], SHOWN_DAY)}'"
        ),
        seed=seed,
        history=history,
    )


def _shown(
    network: RecurrentNetwork, plan: Plan, days: Days, found: Mapping[str, float], mean: float
) -> list[str]:
    questions = [question(form, SHOWN_DAY) for form in plan.forms]
    said = answers(network, questions)
    return [
        (
            f"{len(days.train):,} days to train on, {len(days.held_out):,} held out; "
            f"{plan.epochs * plan.batches * plan.rows:,} written dates drawn"
        ),
        *(
            f"{form:<24}{100 * share:6.2f} %  {text}{one.removesuffix(END)}"
            for (form, share), text, one in zip(found.items(), questions, said, strict=True)
        ),
        f"{'exact, mean of the forms':<24}{100 * mean:6.2f} %",
    ]


def teach(cell: Cell, seed: int) -> Solved:
    """Train on all forms and two centuries."""
    return train(cell, seed, Plan(), RUNS / NAME)

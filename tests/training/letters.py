"""Versions of a tiny text generator, made without training: what each loses is known."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch

from service.contract import spec
from training.export.card import CardFacts
from training.export.export import Package, export, provenance
from training.networks.network import NetworkConfig, RecurrentNetwork
from training.recipes.text_corpus import split

FACTS = CardFacts(
    "Writes letters.",
    "The last tenth is held out.",
    "| held out | loss |\n| --- | --- |\n| own | 1.5 |",
    "Knows nothing.",
)


def write_letters(
    repository: Path, text: Path, *, trust: float = 1.0, data: str = "", recipe: str = ""
) -> Path:
    """A version that gives each character of its text the probability that its frequency has.

    Args:
        repository: to write to.
        text: of which the last tenth is held out.
        trust: in the frequencies: 0 is none, the uniform distribution.
        data: instead of the text's hash.
        recipe: instead of the command that trains on that text.
    """
    corpus = split(text.read_text(encoding="utf-8"))
    size = len(corpus.vocabulary)
    torch.manual_seed(0)
    network = RecurrentNetwork(NetworkConfig("lstm", 1, 4, size, vocabulary=size, embedding=3)).eval()
    counts = torch.bincount(corpus.train, minlength=size) + 1.0
    bias = trust * (counts / counts.sum()).log()
    with torch.no_grad():
        network.head.get_parameter("weight").zero_()
        network.head.get_parameter("bias").copy_(bias)
    made = provenance(
        f"{text.name}, given by the user",
        "not recorded",
        data or sha256(text.read_bytes()).hexdigest(),
        seed=0,
    )
    package = Package(
        name="letters",
        network=network,
        section=spec.Generation(
            text=spec.Characters(kind="characters", vocabulary=corpus.vocabulary), start_token=0, max_tokens=9
        ),
        examples=_examples(corpus.held_out, (1, 7, 20)),
        metrics={"held_out_loss": 1.5, "baseline_uniform_loss": 3.0},
        provenance=made.model_copy(
            update={"recipe": recipe or f"python -m training charlm --text {text.name}"}
        ),
        card=FACTS,
    )
    return export(package, repository)


def _examples(held_out: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    return [held_out[:length].long() for length in lengths]

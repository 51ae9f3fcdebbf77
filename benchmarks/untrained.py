"""Untrained models of known sizes, written by the real exporter.

Speed does not depend on the weights' values, so nothing is trained here; PyTorch's own start keeps the
exporter's check against PyTorch in force.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks import loads
from benchmarks.models import TOKENIZER_FILE, Model, read_model
from service.contract import spec
from training.export.card import CardFacts
from training.export.export import Package, export, provenance
from training.networks.network import NetworkConfig, RecurrentNetwork

MIXED, LARGE, SMALL = "mixed", "chars-2x512", "chars-1x128"
CHARACTERS = (
    "\n !\"'(),-.:;?" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abcdefghijklmnopqrstuvwxy"
)  # 64, as charlm has
LABELS = ["negative", "positive"]
EXAMPLE_LENGTHS = (1, 5, 12)

_CONFIGS = {
    MIXED: NetworkConfig("lstm", 1, 256, len(LABELS), vocabulary=loads.WORDS, embedding=128),
    LARGE: NetworkConfig("lstm", 2, 512, len(CHARACTERS), vocabulary=len(CHARACTERS), embedding=128),
    SMALL: NetworkConfig("lstm", 1, 128, len(CHARACTERS), vocabulary=len(CHARACTERS), embedding=128),
}


def network(config: NetworkConfig, seed: int = 0) -> RecurrentNetwork:
    """An untrained network; the same weights each time."""
    torch.manual_seed(seed)
    return RecurrentNetwork(config).eval()


def mixed_network() -> RecurrentNetwork:
    """The network behind the model `mixed`, for PyTorch to run itself."""
    return network(_CONFIGS[MIXED])


def export_model(repository: Path, name: str, config: NetworkConfig | None = None) -> Model:
    """Export one of the untrained models.

    Args:
        repository: where to.
        name: MIXED, LARGE or SMALL, whose size it has unless `config` says otherwise; MIXED makes a
            classifier, the others generate.
        config: of another size.
    """
    config = config or _CONFIGS[name]
    section: spec.Classification | spec.Generation
    files: dict[str, bytes] = {}
    if name == MIXED:
        words = {word: index for index, word in enumerate(loads.vocabulary())}
        tokenizer = Tokenizer(WordLevel(words, unk_token=loads.UNKNOWN))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        files = {TOKENIZER_FILE: tokenizer.to_str().encode()}
        section = spec.Classification(
            text=spec.TokenizerFile(kind="tokenizer", file=TOKENIZER_FILE), labels=LABELS
        )
    else:
        text = spec.Characters(kind="characters", vocabulary=CHARACTERS)
        section = spec.Generation(text=text, start_token=0, max_tokens=256)
    generator = torch.Generator().manual_seed(0)
    examples = [
        torch.randint(0, config.vocabulary, (length,), generator=generator) for length in EXAMPLE_LENGTHS
    ]
    made = provenance("none: untrained", "none needed", "0" * 64, 0)
    card = CardFacts("Measuring speed.", "None.", "None.", "Untrained.")
    package = Package(name, network(config), section, examples, {"held_out_loss": 0.0}, made, card, files)
    return read_model(export(package, repository))

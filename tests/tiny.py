"""Small untrained models, exported by the real exporter: what a test serves where weights do not matter."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from service.contract import spec
from training.export.card import CardFacts
from training.export.export import Package, export, provenance
from training.export.quantize import quantize
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

VOCABULARY = "\n abcdefgh"
WORDS = ("[UNK]", "good", "bad", "film", "a", "the", "not", "very")
COLUMNS = ("open", "high", "low", "close", "volume")


def network(config: NetworkConfig, seed: int = 0) -> RecurrentNetwork:
    """An untrained network with weights large enough that outputs differ clearly."""
    torch.manual_seed(seed)
    built = RecurrentNetwork(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(2.0)
    return built


def generator_network(
    cell: Cell = "lstm", layers: int = 2, hidden: int = 24, seed: int = 0
) -> RecurrentNetwork:
    size = len(VOCABULARY)
    return network(NetworkConfig(cell, layers, hidden, size, vocabulary=size, embedding=8), seed)


def export_generator(
    repository: Path,
    name: str = "letters",
    cell: Cell = "lstm",
    seed: int = 0,
    *,
    int8: bool = False,
    has_generation: bool = False,
) -> tuple[Path, RecurrentNetwork]:
    """A language model of letters; with a generation graph it has contract 2, otherwise contract 1."""
    built = generator_network(cell, seed=seed)
    text = spec.Characters(kind="characters", vocabulary=VOCABULARY)
    section = spec.Generation(text=text, start_token=0, max_tokens=20)
    examples = [torch.arange(length) % len(VOCABULARY) for length in (1, 5, 12)]
    return _export(
        repository, name, built, section, examples, int8=int8, has_generation=has_generation
    ), built


def export_classifier(
    repository: Path, name: str = "moods", cell: Cell = "lstm"
) -> tuple[Path, RecurrentNetwork]:
    built = network(NetworkConfig(cell, 1, 16, 2, vocabulary=len(WORDS), embedding=8))
    section = spec.Classification(
        text=spec.TokenizerFile(kind="tokenizer", file="tokenizer.json"), labels=["negative", "positive"]
    )
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = Whitespace()
    examples = [torch.arange(length) % len(WORDS) for length in (1, 4, 9)]
    files = {"tokenizer.json": tokenizer.to_str().encode()}
    return _export(repository, name, built, section, examples, files), built


def export_forecaster(
    repository: Path, name: str = "prices", cell: Cell = "gru"
) -> tuple[Path, RecurrentNetwork]:
    built = network(NetworkConfig(cell, 1, 16, 15, features=len(COLUMNS)))
    columns = [
        spec.Column(
            name=column,
            unit="shares" if column == "volume" else "USD",
            transform="log",
            reference="volume" if column == "volume" else "close",
            scale=0.02,
        )
        for column in COLUMNS
    ]
    section = spec.ForecastSpec(
        columns=columns,
        target="close",
        horizon=5,
        quantiles=[0.1, 0.5, 0.9],
        scales=[0.01, 0.02, 0.03, 0.04, 0.05],
        least_observations=7,
    )
    generator = torch.Generator().manual_seed(0)
    examples = [torch.randn(length, len(COLUMNS), generator=generator) for length in (7, 9, 20)]
    return _export(repository, name, built, section, examples), built


def export_all(repository: Path) -> None:
    """One model a task: letters, moods, prices."""
    export_generator(repository)
    export_classifier(repository)
    export_forecaster(repository)


def edit_spec(folder: Path, **changes: object) -> None:
    """Overwrite top-level fields of a version's model.json."""
    path = folder / spec.SPEC_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _export(
    repository: Path,
    name: str,
    built: RecurrentNetwork,
    section: spec.Generation | spec.Classification | spec.ForecastSpec,
    examples: list[torch.Tensor],
    files: dict[str, bytes] | None = None,
    *,
    int8: bool = False,
    has_generation: bool = False,
) -> Path:
    made = provenance("made up", "none needed", "0" * 64, 0)
    card = CardFacts("A test model.", "None.", "None.", "All.")
    quantized = quantize(built) if int8 else None
    metrics = {"held_out_loss": 1.0}
    package = Package(name, built, section, examples, metrics, made, card, files or {}, quantized)
    return export(replace(package, has_generation=has_generation), repository)

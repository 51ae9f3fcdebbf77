"""Small untrained encoders and decoders, and what PyTorch alone writes with them.

Their weights are large enough that another source gives another text.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from service.contract import spec
from training.export.card import CardFacts
from training.export.sequences.compare import Example
from training.export.sequences.export import SequencePackage, export_sequences
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

SOURCE_CHARACTERS = "0123456789"
CHARACTERS = "^$abcdefghij"
START, END = 0, 1
WORDS = ("[UNK]", "</s>", "one", "two", "three", "four")
TOKENIZER = "source-tokenizer.json"
MAX_STEPS = 40
COLUMNS = [spec.FeatureColumn(name="speed", unit="m/s", mean=1.0, scale=2.0), spec.FeatureColumn(name="turn")]


def words() -> Tokenizer:
    """Return the tokenizer of a source of words, which ends each with a token of its own."""
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    made.pre_tokenizer = WhitespaceSplit()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def source_tokens(text: str) -> torch.Tensor:
    """Return the token ids of a source of digits."""
    return torch.tensor([SOURCE_CHARACTERS.index(one) for one in text])


def network(encoder: SequenceConfig, initial: tuple[tuple[str, int], ...] = ()) -> SequenceNetwork:
    """Return a decoder of characters that begins where an encoder ends."""
    torch.manual_seed(7)
    config = SequenceConfig(
        "chunk",
        (LayerConfig("lstm", 12), LayerConfig("gru", 9)),
        len(CHARACTERS),
        vocabulary=len(CHARACTERS),
        embedding=6,
        initial=initial,
        encoder=encoder,
    )
    made = SequenceNetwork(config)
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(2.5)
    return made.eval()


def encoder(kind: str = "tokens", size: int = len(SOURCE_CHARACTERS)) -> SequenceConfig:
    """Return an encoder that looks both ways, of token ids or rows of features."""
    layers = (LayerConfig("gru", 10, "both"), LayerConfig("lstm", 7, "both"))
    if kind == "tokens":
        return SequenceConfig("whole", layers, 0, vocabulary=size, embedding=5, pooling="last")
    return SequenceConfig("whole", layers, 0, features=size, pooling="last")


def _package(
    name: str,
    made: SequenceNetwork,
    source: spec.SourceSpec,
    examples: Sequence[Example],
    files: dict[str, bytes] | None = None,
) -> SequencePackage:
    section = spec.Generation(
        text=spec.Characters(kind="characters", vocabulary=CHARACTERS),
        start_token=START,
        end_tokens=[END],
        max_tokens=30,
    )
    return SequencePackage(
        name,
        made,
        section,
        examples,
        {},
        spec.Provenance(created="2026-01-01T00:00:00Z"),
        CardFacts("Writes letters.", "Random.", "None.", "None."),
        files or {},
        source=source,
    )


def _example(source: torch.Tensor, tokens: Sequence[int], **more: object) -> Example:
    return Example(torch.tensor([START, *tokens]), source=source, **more)  # type: ignore[arg-type]


def digits() -> SequencePackage:
    """A source of characters."""
    source = spec.SourceSpec(
        input=spec.TokenInput(kind="tokens", size=len(SOURCE_CHARACTERS)),
        text=spec.Characters(kind="characters", vocabulary=SOURCE_CHARACTERS),
        max_steps=MAX_STEPS,
    )
    texts = ("7", "0123", "98765432109876543210")
    examples = [
        _example(source_tokens(text), [2, 3, 4, 5][: 1 + index], source_text=text)
        for index, text in enumerate(texts)
    ]
    return _package("digits", network(encoder()), source, examples)


def worded() -> SequencePackage:
    """A source of words, with a tokenizer of its own, beside a row of an image."""
    source = spec.SourceSpec(
        input=spec.TokenInput(kind="tokens", size=len(WORDS)),
        text=spec.TokenizerFile(kind="tokenizer", file=TOKENIZER),
        max_steps=MAX_STEPS,
    )
    examples = [
        _example(
            torch.tensor(words().encode(text).ids),
            [4, 2],
            source_text=text,
            initial={"image": torch.tensor(image)},
        )
        for text, image in (("one two", [0.5, -1.0]), ("four four unheard three", [1.0, 2.0]))
    ]
    made = network(encoder(size=len(WORDS)), (("image", 2),))
    return _package("worded", made, source, examples, {TOKENIZER: words().to_str().encode()})


def features_of(rows: NDArray[np.float64]) -> torch.Tensor:
    """Return the features of rows of two columns."""
    return torch.from_numpy((rows - (1.0, 0.0)) / (2.0, 1.0)).float()


def moved() -> SequencePackage:
    """A source of rows with columns."""
    source = spec.SourceSpec(
        input=spec.FeatureInput(kind="features", size=2), columns=COLUMNS, max_steps=MAX_STEPS
    )
    random = np.random.default_rng(3)
    examples = [
        _example(features_of(rows), [2, 3], source_values=rows)
        for rows in (random.normal(0, 1, (length, 2)) for length in (1, 6, 17))
    ]
    return _package("moved", network(encoder("features", 2)), source, examples)


def coded() -> SequencePackage:
    """A source of token ids without texts."""
    source = spec.SourceSpec(input=spec.TokenInput(kind="tokens", size=5), max_steps=MAX_STEPS)
    examples = [_example(torch.tensor(ids), [3]) for ids in ([0], [4, 3, 1, 1])]
    return _package("coded", network(encoder(size=5)), source, examples)


PACKAGES = {"digits": digits, "worded": worded, "moved": moved, "coded": coded}


def export(name: str, repository: Path) -> Path:
    """Write a version of one of them; return its folder."""
    return export_sequences(PACKAGES[name](), repository)


def export_endless(repository: Path) -> None:
    """Write `endless`, the model of digits without an end token, and `plain`, which has no encoder."""
    package = digits()
    assert isinstance(package.section, spec.Generation)
    section = package.section.model_copy(update={"end_tokens": []})
    export_sequences(replace(package, name="endless", section=section), repository)
    config = replace(package.network.config, encoder=None)
    plain = replace(package, name="plain", network=SequenceNetwork(config), source=None)
    examples = [replace(one, source=None, source_text=None) for one in package.examples]
    export_sequences(replace(plain, examples=examples), repository)


def written(
    made: SequenceNetwork,
    source: torch.Tensor,
    count: int,
    prompt: Sequence[int] = (),
    initial: dict[str, torch.Tensor] | None = None,
) -> tuple[str, bool]:
    """Return the most probable text that PyTorch alone writes, and whether an end token ended it."""
    ids: list[int] = []
    with torch.no_grad():
        rows = {name: row[None] for name, row in (initial or {}).items()}
        state = made.first_state(1, rows, source[None])
        logits, state = made(torch.tensor([list(prompt) or [START]]), state=state)
        for _ in range(count):
            token = int(logits[0, -1].argmax())
            if token == END:
                return "".join(CHARACTERS[one] for one in ids), True
            ids.append(token)
            logits, state = made(torch.tensor([[token]]), state=state)
    return "".join(CHARACTERS[one] for one in ids), False

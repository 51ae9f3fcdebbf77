"""Small untrained language models over the tokens of a tokenizer: contract 2, served by several tests."""

from pathlib import Path
from typing import Any

from tests.contract2 import TOKENIZER, export
from tests.contract2_graphs import Layer, Net
from tests.tokenizers_of_kinds import tokenizer_of


def token_net(kind: str, name: str, **section: Any) -> Net:
    """Return a language model over a tokenizer of a kind, whose tokens 0 and 1 are start and end."""
    tokenizer = tokenizer_of(kind)
    size = tokenizer.get_vocab_size()
    described = {
        "text": {"kind": "tokenizer", "file": TOKENIZER},
        "start_token": 0,
        "end_tokens": [1],
        "max_tokens": 40,
    }
    files = {TOKENIZER: tokenizer.to_str().encode()}
    return Net(
        name,
        (Layer("lstm", 24), Layer("gru", 16)),
        size,
        size,
        described | section,
        takes_tokens=True,
        files=files,
        task="text-generation",
    )


def export_token_model(repository: Path, kind: str, name: str, **section: Any) -> Path:
    """Export such a model; return the folder of its version."""
    return export(token_net(kind, name, **section), repository)

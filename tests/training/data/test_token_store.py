"""Token ids of a long text: the same in memory, in a file, and encoded whole."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from training.data import token_store
from training.data.language_tokenizers import language_tokenizer
from training.data.streaming import Text
from training.data.token_store import Parts, Stretch, blocks_of, store_tokens

TEXT = "one two, three\nfour five\n\nsix se" * 40


def _text(size: int) -> Text:
    return lambda: (TEXT[start : start + size] for start in range(0, len(TEXT), size))


def _parts(size: int) -> Parts:
    text = _text(size)
    return Parts(
        train=(Stretch(text, 0, 500), Stretch(text, 620, 1000)),
        develop=(Stretch(text, 500, 620),),
        held_out=(Stretch(text, 1000, len(TEXT)),),
    )


def _tokenizer() -> Tokenizer:
    return language_tokenizer("bpe", [TEXT], len(TEXT), 330)


@pytest.mark.parametrize("size", [7, 100, 5000])
def test_stretches_are_cut_by_characters_whatever_the_blocks(size: int) -> None:
    train, develop, held_out = ("".join(blocks_of(part)) for part in _parts(size))
    assert (train, develop, held_out) == (TEXT[:500] + TEXT[620:1000], TEXT[500:620], TEXT[1000:])


@pytest.mark.parametrize("size", [7, 100, 5000])
def test_ids_are_those_of_each_part_encoded_whole(size: int, tmp_path: Path) -> None:
    tokenizer, parts = _tokenizer(), _parts(size)
    expected = [tokenizer.encode("".join(blocks_of(part))).ids for part in parts]
    assert [ids.tolist() for ids in store_tokens(tokenizer, parts, None)] == expected
    stored = store_tokens(tokenizer, parts, tmp_path / "run" / "tokens.bin")
    assert [ids.tolist() for ids in stored] == expected
    assert [one.name for one in (tmp_path / "run").iterdir()] == ["tokens.bin"]
    assert stored[0].dtype == torch.int16


def test_a_text_of_one_long_line_is_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory would else hold the whole text and its tokens."""
    monkeypatch.setattr(token_store, "_LONGEST_LINE", 50)
    line = "one two three " * 60
    text: Text = lambda: (line[start : start + 30] for start in range(0, len(line), 30))  # noqa: E731
    tokenizer = _tokenizer()
    seen: list[int] = []
    lines = token_store._in_lines(text())
    for some in lines:
        seen += [len(one) for one in some]
    assert max(seen) <= 80
    ids, *_ = store_tokens(tokenizer, Parts((Stretch(text, 0, len(line)),), (), ()), None)
    assert tokenizer.decode(ids.tolist()) == line

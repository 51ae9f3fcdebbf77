"""Language models over the tokens of a tokenizer as they are prepared: those served, and those refused."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.processors import TemplateProcessing

from service.contract.spec import SpecError
from service.errors import ModelRefused
from service.models.choices import Choices
from service.models.preparing import Preparation, Prepared
from tests.contract2 import TOKENIZER
from tests.service.builders import replace_file, settings_of, spec_of
from tests.token_models import export_token_model
from tests.tokenizers_of_kinds import KINDS, tokenizer_of


def prepared(folder: Path) -> Prepared:
    return Preparation(Choices.of(settings_of(folder.parents[1], slots=4, chunk=4, chunk_rows=4))).run(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_model_of_each_kind_of_tokenizer_is_prepared(tmp_path: Path, kind: str) -> None:
    found = prepared(export_token_model(tmp_path, kind, "words"))
    assert found.codec is not None
    ids = found.codec.encode("the cat", "prompt", begins=True).tolist()
    assert ids == tokenizer_of(kind).encode("the cat").ids
    assert not found.codec.is_exact


@pytest.mark.parametrize(
    ("text", "section", "is_right"),
    [(None, {}, True), ("the cat", {}, False), (None, {"prepend_start": True}, False)],
    ids=["its text", "another text", "no start token before it"],
)
def test_text_of_an_example_must_give_its_tokens(
    tmp_path: Path, text: str | None, section: dict[str, Any], is_right: bool
) -> None:
    folder = export_token_model(tmp_path, "words", "words", **section)
    described = spec_of(folder)
    golden = next(one for one in described["golden"] if len(one["tokens"]) == 1)
    own = tokenizer_of("words").decode(golden["tokens"])
    assert tokenizer_of("words").encode(own).ids == golden["tokens"]
    golden["text"] = own if text is None else text
    spec_of(folder, golden=described["golden"])
    if is_right:
        assert prepared(folder).golden_max_error < 1e-5
    else:
        with pytest.raises(ModelRefused, match="the tokens of example 0 for its text"):
            prepared(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"post_processor": TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])},
            "a post_processor that adds no token behind a text",
            id="adds an end",
        ),
        pytest.param(
            {"decoder": decoders.CTC("the")}, "a decoder that decodes one token after the other", id="decoder"
        ),
    ],
)
def test_tokenizer_that_spoils_texts_is_refused(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    folder = export_token_model(tmp_path, "words", "words")
    tokenizer = Tokenizer.from_str(tokenizer_of("words").to_str())
    for part, value in change.items():
        setattr(tokenizer, part, value)
    replace_file(folder, TOKENIZER, tokenizer.to_str().encode())
    with pytest.raises(ModelRefused, match=expected):
        prepared(folder)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"end_tokens": [33]}, r"end_tokens must be below 33, found 33"),
        ({"start_token": 33}, r"start_token must be below 33, found 33"),
        ({"end_tokens": [-1]}, r"generation.end_tokens\[0\]"),
        ({"end_tokens": [1] * 1025}, r"generation.end_tokens"),
    ],
)
def test_section_with_wrong_tokens_is_refused(tmp_path: Path, section: dict[str, Any], expected: str) -> None:
    folder = export_token_model(tmp_path, "words", "words")
    described = spec_of(folder)
    spec_of(folder, generation=described["generation"] | section)
    with pytest.raises(SpecError, match=expected):
        prepared(folder)

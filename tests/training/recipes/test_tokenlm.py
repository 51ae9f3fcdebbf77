"""Language models over bytes, sub-words and words: their losses a character, and what the server answers."""

import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from seqserve import AsyncClient
from service.contract import spec
from service.models.checks import check_preprocessing
from service.models.tokenizer_file import read_tokenizer
from tests.integration.process import ServerProcess
from tests.training.conftest import Command
from training.data.language_tokenizers import FileKind
from training.data.sources import own_data
from training.errors import TrainingError
from training.loop.fit import build_network
from training.networks.network import NetworkConfig
from training.recipes import charlm, text_corpus
from training.recipes.token_corpus import encode, examples, read_text, start_token, tokenized
from training.recipes.token_losses import by_character, character_baseline
from training.recipes.tokenlm import evaluate
from training.recipes.verdict import verdict

KINDS: tuple[FileKind, ...] = ("word", "bpe", "bytes")
SMALL = ("--layers", 1, "--hidden", 8, "--epochs", 1, "--repository", "models")
LINES = "Der Bär saß müde am Fluß.\n熊很累 坐在河边。\nकिताब पढ़ता हूँ 🙂\n"


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.txt"
    path.write_text(LINES * 40, encoding="utf-8")
    return path


def _network(size: int) -> NetworkConfig:
    return NetworkConfig("lstm", 1, 8, size, vocabulary=size, embedding=4)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_those_that_charlm_cuts(lines_file: Path, tmp_path: Path, kind: FileKind) -> None:
    source = own_data(lines_file, lines_file)
    corpus, text = text_corpus.read_corpus(source, tmp_path), read_text(source)
    mine = tokenized(text, kind, None, tmp_path)
    for ids, others in zip(
        (mine.train, mine.develop, mine.held_out),
        (corpus.train, corpus.develop, corpus.held_out),
        strict=True,
    ):
        expected = "".join(corpus.vocabulary[token] for token in others.tolist())
        assert mine.tokenizer.decode(ids.tolist()) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_loss_a_character_is_that_of_all_tokens_over_the_characters_they_write(
    lines_file: Path, kind: FileKind
) -> None:
    text = read_text(own_data(lines_file))
    corpus = tokenized(text, kind, None, None)
    network = build_network(_network(corpus.tokenizer.get_vocab_size()), 0, "cpu").eval()
    found = evaluate(network, corpus, text, "cpu").metrics()
    ids = torch.cat([torch.tensor([start_token(corpus)]), corpus.held_out.long()])
    with torch.no_grad():
        logits = network.outputs_of(network(ids[None, :-1])[0])[0]
    losses = cross_entropy(logits, ids[1:], reduction="none")
    # Of the first token, which begins with the first character, all but that character counts.
    first = corpus.tokenizer.decode(ids[1:2].tolist())
    share = 1 / len(first.encode()) if kind != "bytes" else 1.0
    total = float(losses.sum() - share * losses[0])
    assert found["held_out_loss"] == pytest.approx(
        total / (text.characters(text.parts.held_out) - 1), rel=1e-5
    )
    assert found["held_out_token_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert found["held_out_perplexity"] == pytest.approx(math.exp(found["held_out_loss"]))
    assert "baseline_5gram_token_loss" not in found


def test_baseline_is_that_of_charlm(lines_file: Path, tmp_path: Path) -> None:
    source = own_data(lines_file)
    corpus = text_corpus.read_corpus(source, tmp_path)
    network = build_network(_network(len(corpus.vocabulary)), 0, "cpu").eval()
    expected = charlm.evaluate(network, corpus, "cpu").metrics()["baseline_5gram_loss"]
    assert float(character_baseline(read_text(source)).mean()) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_tokens_are_spread_over_their_characters(lines_file: Path, kind: FileKind) -> None:
    corpus = tokenized(read_text(own_data(lines_file)), kind, None, None)
    tokens = ["a", "熊", " é"]
    ids = torch.cat([encode(corpus.tokenizer, token) for token in tokens])
    losses = np.concatenate([np.full(len(encode(corpus.tokenizer, token)), 1.0) for token in tokens])
    found = by_character(losses, ids, corpus.tokenizer, "".join(tokens))
    assert len(found) == 4
    assert found.sum() == pytest.approx(len(ids))
    assert found[1] == pytest.approx(len(encode(corpus.tokenizer, "熊")))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_characters_tell_what_chance_explains(lines_file: Path, kind: FileKind) -> None:
    text = read_text(own_data(lines_file))
    corpus = tokenized(text, kind, None, None)
    network = build_network(_network(corpus.tokenizer.get_vocab_size()), 0, "cpu").eval()
    results = evaluate(network, corpus, text, "cpu")
    units = results.main_measure.units
    assert {len(one) for one in units if one is not None} == {text.characters(text.parts.held_out) - 1}
    # An untrained network is worse than what has counted the text.
    compared = verdict(results, None).comparisons
    assert [(one.is_better, one.is_sure) for one in compared[:1]] == [(False, True)]


def test_examples_are_pieces_of_the_held_out_text(lines_file: Path) -> None:
    text = read_text(own_data(lines_file))
    corpus = tokenized(text, "bpe", None, None)
    pieces = examples(text, seed=0)
    assert [len(piece) for piece in pieces] == [1, 2, 5, 11, 24, 64, 160]
    assert all(piece in LINES * 40 for piece in pieces)
    assert all(corpus.tokenizer.decode(encode(corpus.tokenizer, piece).tolist()) == piece for piece in pieces)


def test_empty_prompt_starts_a_line_or_with_the_most_frequent_token(lines_file: Path) -> None:
    corpus = tokenized(read_text(own_data(lines_file)), "bytes", None, None)
    assert corpus.tokenizer.decode([start_token(corpus)]) == "\n"
    lines_file.write_text("ab b" * 500)
    corpus = tokenized(read_text(own_data(lines_file)), "bytes", None, None)
    assert corpus.tokenizer.decode([start_token(corpus)]) == "b"


async def test_model_of_each_tokenizer_is_admitted_scores_and_goes_on(
    command: Command, lines_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in (*KINDS, "characters", "auto"):
        assert command("generate", lines_file, "--tokenizer", kind, "--name", kind, *SMALL) == 0
        shown = capsys.readouterr().out
        assert f"call it: seqserve generate --model {kind} " in shown
        assert f"tokenizer: {'characters (chosen by auto)' if kind == 'auto' else kind}\n" in shown
    for kind in KINDS:
        model, _, files = spec.read_version(tmp_path / "models" / kind / "1")
        assert "generation" in model.variants["fp32"].model_dump(exclude_none=True)
        tokenizer = read_tokenizer("", files["tokenizer.json"], model.input.size)
        check_preprocessing(model, tokenizer)
        assert {"held_out_loss", "held_out_token_loss", "baseline_5gram_loss"} <= set(model.metrics)
    unseen = "Der Bär Щ\u2019"
    async with ServerProcess(tmp_path / "models") as server, AsyncClient(server.address) as client:
        for kind in KINDS:
            reply = await client.score([unseen], model=kind)
            assert math.isfinite(reply[0].total_logprob)
            text = "".join(
                [part.text async for part in client.generate(unseen, model=kind, max_tokens=20, seed=1)]
            )
            assert text


def test_tokenizer_is_remembered_by_the_checkpoint(
    command: Command, lines_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("generate", lines_file, "--name", "one", *SMALL)
    assert command(*arguments, "--tokenizer", "bytes") == 0
    assert command(*arguments, "--tokenizer", "bpe", "--resume") == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokenizer", "bpe", "--vocabulary", 100), "--vocabulary: expected 320 to 200,000 tokens"),
        (("--vocabulary", 500), "found one of characters"),
        (("--tokenizer", "syllables"), "'syllables' is not one of"),
    ],
)
def test_tokenizer_that_cannot_be_made_is_one_line(
    command: Command,
    lines_file: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    assert command("generate", lines_file, *arguments, *SMALL) == 2
    assert message in capsys.readouterr().err


def test_text_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a" * 999)
    with pytest.raises(TrainingError, match="expected at least 1000 characters, found 999"):
        read_text(own_data(tmp_path / "short.txt"))


def test_call_can_be_typed(command: Command, lines_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("generate", lines_file, "--tokenizer", "bpe", *SMALL) == 0
    [call] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("call it:")]
    prompt = shlex.split(call)[6]
    assert prompt
    assert prompt in LINES

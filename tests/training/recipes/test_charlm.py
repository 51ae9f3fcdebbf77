"""The character model: how a text is cut, what counts as loss, and the recipe from end to end."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from service.contract import spec
from tests.training.conftest import Command
from training.data.files import read_utf8
from training.data.sources import PLAYS, own_data
from training.errors import TrainingError
from training.export.chunks import ChunkCell
from training.export.graph import build_graph
from training.loop.fit import build_network
from training.networks.network import NetworkConfig
from training.recipes import text_losses
from training.recipes.charlm import examples, start_token
from training.recipes.text_corpus import read_corpus, split
from training.recipes.text_losses import mean_loss, served_losses
from training.recipes.text_objective import NextTokenObjective

SMALL = ("--hidden", 8, "--epochs", 2)


def test_plays_are_cut_by_position_and_lose_nothing() -> None:
    corpus = split(read_utf8(PLAYS.path))
    assert (len(corpus.vocabulary), len(corpus.train), len(corpus.develop), len(corpus.held_out)) == (
        64,
        988_196,
        30_563,
        113_195,
    )
    assert corpus.vocabulary[int(corpus.held_out[-1])] == "\n"


def test_more_text_is_trained_on_and_nothing_of_it_held_out() -> None:
    assert PLAYS.more is not None
    text, more = read_utf8(PLAYS.path), read_utf8(PLAYS.more)
    alone, corpus = split(text), split(text, more)
    assert corpus.vocabulary == alone.vocabulary
    assert torch.equal(corpus.held_out, alone.held_out)
    assert torch.equal(corpus.develop, alone.develop)
    assert torch.equal(corpus.train[len(more) :], alone.train)
    assert "".join(corpus.vocabulary[token] for token in corpus.train[: len(more)].tolist()) == more
    assert (alone.is_long, corpus.is_long) == (False, True)


def test_more_text_widens_the_vocabulary() -> None:
    assert split("ab\n" * 500, "xyz").vocabulary == "\nabxyz"


def test_streams_read_every_character_but_a_rest_once(text_file: Path) -> None:
    corpus = split(read_utf8(text_file))
    objective = NextTokenObjective(build_network(_config(corpus.vocabulary), 0, "cpu"), corpus, "cpu")
    inputs, targets = objective.streams()
    rows, width = inputs.shape
    ring = torch.cat([corpus.train, corpus.train])
    starts = [
        start
        for start in range(len(corpus.train))
        if torch.equal(ring[start : start + rows * width], inputs.flatten())
    ]
    assert starts
    assert torch.equal(targets.flatten(), ring[starts[0] + 1 : starts[0] + rows * width + 1])
    assert len(corpus.train) - rows * width <= rows
    assert len(list(objective.losses(0))) == objective.steps_per_epoch


def test_streams_are_cut_anew_each_time(text_file: Path) -> None:
    corpus = split(read_utf8(text_file))
    objective = NextTokenObjective(build_network(_config(corpus.vocabulary), 0, "cpu"), corpus, "cpu")
    assert not torch.equal(objective.streams()[0], objective.streams()[0])


def test_development_part_is_cut_from_the_middle_of_what_is_not_held_out() -> None:
    text = "".join(chr(ord("a") + index * 26 // 10_000) for index in range(10_000))
    corpus = split(text)
    letters = [
        {corpus.vocabulary[token] for token in part.tolist()} for part in (corpus.develop, corpus.held_out)
    ]
    assert letters == [{"l", "m"}, {"x", "y", "z"}]
    assert len(corpus.train) + len(corpus.develop) + len(corpus.held_out) == len(text)


def test_mean_loss_in_pieces_equals_the_loss_of_the_whole_text(text_file: Path) -> None:
    corpus = split(read_utf8(text_file))
    network = build_network(_config(corpus.vocabulary), 0, "cpu").eval()
    ids = corpus.train[:300].long()
    with torch.no_grad():
        hidden, _ = network(ids[None, :-1])
        whole = float(cross_entropy(network.outputs_of(hidden)[0], ids[1:]))
    assert mean_loss(network, ids, "cpu", piece=37) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("size", [2, 300, 1500])
def test_served_loss_of_rows_side_by_side_equals_the_loss_of_one_row(size: int) -> None:
    network = build_network(_config("abcdefgh"), 0, "cpu").eval()
    ids = torch.randint(8, (size,), generator=torch.Generator().manual_seed(0))
    cell = ChunkCell(build_graph(network).SerializeToString())
    assert served_losses(cell, ids, 8).mean() == pytest.approx(mean_loss(network, ids, "cpu"), abs=1e-5)


def test_served_losses_in_stretches_are_those_of_one_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large vocabulary makes stretches short: each reads what comes before it first."""
    network = build_network(NetworkConfig("lstm", 1, 8, 8, vocabulary=8, embedding=4), 0, "cpu").eval()
    ids = torch.randint(8, (2000,), generator=torch.Generator().manual_seed(0))
    cell = ChunkCell(build_graph(network).SerializeToString())
    whole = served_losses(cell, ids, 8)
    monkeypatch.setattr(text_losses, "SERVED_LOGITS", 8 * 300)
    assert served_losses(cell, ids, 8) == pytest.approx(whole, abs=1e-5)


def test_empty_prompt_starts_a_line_or_with_the_most_frequent_character() -> None:
    assert split("ab\n" * 500).vocabulary[start_token(split("ab\n" * 500))] == "\n"
    assert split("abb" * 500).vocabulary[start_token(split("abb" * 500))] == "b"


def test_examples_are_pieces_of_the_held_out_part_of_mixed_lengths() -> None:
    held_out = torch.arange(100)
    pieces = examples(held_out, seed=0)
    assert sorted({len(piece) for piece in pieces}) == [1, 2, 5, 11, 24, 64]
    assert all(torch.equal(piece, held_out[piece[0] : piece[0] + len(piece)]) for piece in pieces)


def test_own_text_is_trained_measured_and_exported(
    command: Command, text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("charlm", "--text", text_file, "--name", "tale", *SMALL) == 0
    model, _ = spec.read_spec(tmp_path / "exported" / "tale" / "1")
    assert model.generation is not None
    assert isinstance(model.generation.text, spec.Characters)
    assert model.generation.text.vocabulary == "".join(sorted(set(text_file.read_text(encoding="utf-8"))))
    assert {"held_out_loss", "baseline_5gram_loss", "held_out_perplexity"} <= set(model.metrics)
    assert model.provenance.data == "own.txt, given by the user"
    assert "serve it: make serve" in capsys.readouterr().out


def test_text_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a" * 999)
    with pytest.raises(TrainingError, match="expected at least 1000 characters, found 999"):
        read_corpus(own_data(tmp_path / "short.txt"), tmp_path)


def _config(vocabulary: str) -> NetworkConfig:
    return NetworkConfig("lstm", 1, 8, len(vocabulary), vocabulary=len(vocabulary), embedding=4)

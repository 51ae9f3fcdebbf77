"""What each lesson claims, for every cell: shapes, learned or not, zeros past a length, forecasts beside the
last value.
"""

import numpy as np
import pytest
import torch

from service.contract import spec
from tests.lecture import CELLS, SEED, charseq, contest, hihello, levels, market, net_of_windows, words
from training.export.chunks import ChunkCell
from training.export.export import EXPORT_TOLERANCE, Package, largest_error
from training.export.graph import build_graph
from training.lecture import dynamic, hello, longseq, stock
from training.lecture.lesson import decode, encode, learn, one_hot_network
from training.networks.network import Cell

every_cell = pytest.mark.parametrize("cell", CELLS)


def packages(cell: Cell) -> list[Package]:
    return [one.package() for one in (hihello(cell), charseq(cell), contest(cell), words(cell), market(cell))]


@every_cell
def test_hello_has_the_shapes_that_it_prints(cell: Cell) -> None:
    shapes = hello.teach(cell, SEED)
    for texts, expected in ((("h",), (1, 1, 2)), (("hello",), (1, 5, 2)), (hello.BATCH, (3, 5, 2))):
        hidden, state = shapes.run(texts)
        assert tuple(hidden.shape) == expected
        assert [tuple(one.shape) for one in state] == [(len(texts), 2)] * len(
            shapes.network.config.state_names
        )
        assert torch.equal(hidden[:, -1], state[0])
    shown = "\n".join(shapes.lines())
    assert "(3, 5, 4) -> output (batch, time, hidden) (3, 5, 2)" in shown
    assert "nothing to ask" in shapes.question()


@every_cell
def test_hello_letter_by_letter_is_hello_at_once(cell: Cell) -> None:
    shapes = hello.teach(cell, SEED)
    whole, _ = shapes.run(("hello",))
    assert torch.allclose(whole[0], torch.stack(shapes.by_letter("hello")), atol=1e-6)


def test_letters_go_in_as_one_hot_vectors_and_stay_so() -> None:
    network = one_hot_network("gru", 4, SEED)
    tokens = torch.tensor([[0, 1, 2]])
    learn(network, tokens, tokens, 3, 0.1)
    assert torch.equal(network.input_layer(torch.arange(4)), torch.eye(4))


@every_cell
@pytest.mark.parametrize("lesson", [hihello, charseq], ids=["hihello", "charseq"])
def test_a_text_without_a_head_is_learned_by_heart(lesson, cell: Cell) -> None:  # type: ignore[no-untyped-def]
    recital = lesson(cell)
    assert recital.network.config.outputs == 0
    assert recital.network.config.hidden == len(recital.vocabulary)
    assert recital.predicted(0) != recital.text[1:]
    assert recital.is_learned
    assert recital.alone() == recital.text[1:]
    assert recital.history.losses[-1] < recital.history.losses[0] / 1.5


def test_the_state_tells_what_the_letter_alone_does_not() -> None:
    pairs = list(zip("hihell", "ihello", strict=True))
    assert ("h", "i") in pairs
    assert ("h", "e") in pairs
    assert ("l", "l") in pairs
    assert ("l", "o") in pairs


def test_the_sentence_makes_170_windows_of_ten() -> None:
    assert len(longseq.SENTENCE) == 180
    assert longseq.inputs().shape == longseq.targets().shape == (170, 10)
    for index in (0, 77, 169):
        assert decode(longseq.inputs()[index], longseq.VOCABULARY) == longseq.SENTENCE[index : index + 10]
        assert (
            decode(longseq.targets()[index], longseq.VOCABULARY) == longseq.SENTENCE[index + 1 : index + 11]
        )


@every_cell
def test_one_layer_without_a_head_does_not_learn_the_sentence(cell: Cell) -> None:
    net = net_of_windows(cell, 1, has_head=False)
    assert not net.is_learned
    assert net.right() < 150
    assert (
        net.history.losses[-1] > 1.45
    )  # no hidden state between -1 and 1 gives a letter of 25 more than 1 / (1 + 24 / e^2)


@every_cell
def test_two_layers_with_a_dense_head_learn_all_170_windows(cell: Cell) -> None:
    net = net_of_windows(cell, 2, has_head=True)
    assert net.right() == 170
    assert net.is_learned
    assert net.sentence()[WINDOW_END:] == longseq.SENTENCE[longseq.WINDOW :]
    assert net.history.losses[-1] < 0.5


WINDOW_END = longseq.WINDOW - 1


@every_cell
def test_outputs_past_a_length_are_zero_and_rows_are_as_if_alone(cell: Cell) -> None:
    padded = words(cell)
    assert [len(word) for word in dynamic.WORDS] == [5, 3, 4]
    for row, word, alone in zip(padded.outputs, dynamic.WORDS, padded.alone, strict=True):
        assert torch.equal(row[len(word) :], torch.zeros(5 - len(word), padded.outputs.shape[-1]))
        assert torch.allclose(row[: len(word)], alone, atol=1e-5)
        assert (row[: len(word)].abs().sum(dim=-1) > 0.1).all()
    assert padded.is_learned


@every_cell
def test_the_eighth_day_is_beside_the_last_value(cell: Cell) -> None:
    forecasts = market(cell)
    naive = forecasts.error(forecasts.naive, held_out=True)
    assert 0.98 < forecasts.error(forecasts.changes.forecast, held_out=True) / naive < 1.05


def test_scaled_prices_are_worse_than_the_last_value_out_of_their_range() -> None:
    forecasts = market("rnn")
    assert forecasts.error(levels().forecast, held_out=True) > 1.1 * forecasts.error(
        forecasts.naive, held_out=True
    )


def test_prices_are_scaled_by_the_training_part_alone() -> None:
    history = stock.read_history()
    assert history.train == 1503
    assert (
        history.most[stock.CLOSE]
        == history.values[:1503, stock.CLOSE].max()
        < history.values[:, stock.CLOSE].max()
    )
    section = stock.describe(history)
    assert section.column("close").scale == history.range_of_close
    scaled = np.stack(history.windows(scaled=True)[: history.train - stock.DAYS])
    assert (scaled.min(), scaled.max()) == (0, 1)


def test_an_eighth_day_is_not_among_the_seven_before_it() -> None:
    history = stock.read_history()
    last = history.windows(scaled=False)[-1]
    assert np.array_equal(last, history.values[-8:-1])
    assert (len(history.eighth), history.eighth[0], int(history.held_out.sum())) == (2141, 7, 645)


@every_cell
def test_onnxruntime_computes_what_pytorch_does(cell: Cell) -> None:
    for package in packages(cell):
        assert len({len(example) for example in package.examples}) > 1
        graph = build_graph(package.network).SerializeToString()
        assert largest_error(ChunkCell(graph), package.network, package.examples) <= EXPORT_TOLERANCE


@every_cell
def test_every_lesson_but_hello_is_a_model_of_its_name(cell: Cell) -> None:
    kinds = {package.name: type(package.section) for package in packages(cell)}
    assert kinds == dict.fromkeys(("hihello", "charseq", "longseq", "dynamic"), spec.Generation) | {
        "stock": spec.ForecastSpec
    }


def test_letters_are_their_places_in_the_vocabulary() -> None:
    assert decode(encode("hello", "helo"), "helo") == "hello"

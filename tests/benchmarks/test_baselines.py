"""A baseline that computes something else measures nothing: each must give the engine's answers."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.baselines import padded, torch_packed
from benchmarks.baselines.bare_loop import BareLoop
from benchmarks.inprocess import classify, engine_of, generate, runtime_of
from service.engine.sampling import key_of, options_of, pick
from tests.benchmarks.conftest import Tiny
from training.export.graph import reference_outputs

Inputs = list[NDArray[np.int64]]
TOLERANCE = 1e-5


@pytest.fixture
def answers(classifier: Tiny, inputs: Inputs) -> NDArray[np.float32]:
    return np.stack(classify(engine_of(classifier.model, runtime_of(classifier.model)), inputs))


@pytest.mark.parametrize("rows", [1, 32])
def test_padded_batches_in_order_give_the_engine_s_answers(
    classifier: Tiny, inputs: Inputs, answers: NDArray[np.float32], rows: int
) -> None:
    found = padded.in_order(padded.PaddedBatches(classifier.model, rows), inputs, rows)
    np.testing.assert_allclose(found, answers, atol=TOLERANCE)


def test_sorted_batches_give_the_engine_s_answers(
    classifier: Tiny, inputs: Inputs, answers: NDArray[np.float32]
) -> None:
    found = padded.by_length(padded.PaddedBatches(classifier.model, 32), inputs, 32)
    np.testing.assert_allclose(found, answers, atol=TOLERANCE)


def test_packed_pytorch_gives_the_engine_s_answers(
    classifier: Tiny, inputs: Inputs, answers: NDArray[np.float32]
) -> None:
    np.testing.assert_allclose(torch_packed.classify(classifier.network, inputs), answers, atol=TOLERANCE)


def test_padding_is_counted() -> None:
    assert padded.padded_share(np.array([1, 3, 2, 2]), 2) == (2 * 3 + 2 * 2) / 8


def test_the_bare_loop_generates_what_pytorch_and_the_sampler_do(generator: Tiny) -> None:
    rows, characters = 3, 12
    plain = options_of(np.ones(1), np.zeros(1, np.int64), np.ones(1), generator.model.spec.outputs)
    found = BareLoop(generator.model, rows).generate(characters)
    for row in range(rows):
        fed = np.concatenate([[0], found[row, :-1]])
        logits = reference_outputs(generator.network, _tensor(fed))
        for step in range(characters):
            position = np.array([step + 1], np.uint64)
            assert (
                pick(logits[step : step + 1], plain, np.array([key_of(row)]), position)[0] == found[row, step]
            )


def test_the_bare_loop_begins_anew_each_time(generator: Tiny) -> None:
    loop = BareLoop(generator.model, 2)
    np.testing.assert_array_equal(loop.generate(5), loop.generate(5))


def test_the_engine_generates_every_character(generator: Tiny) -> None:
    driven = engine_of(generator.model, runtime_of(generator.model))
    assert generate(driven, streams=5, characters=7) == 35


def _tensor(tokens: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(tokens)

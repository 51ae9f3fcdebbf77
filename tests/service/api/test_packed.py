"""service.api.packed."""

import numpy as np
import pytest

from seqserve.v1 import sequences_pb2, text_generation_pb2
from service.api.packed import array_of, packed


@pytest.mark.parametrize("count", [0, 1, 31, 32, 4095, 4096, 100_000])
def test_packed_floats_are_those_of_the_array(count: int) -> None:
    """The length of the field takes one byte up to 31 floats, two up to 4095, and so on."""
    values = np.linspace(-20, 0, count, dtype=np.float32)
    found = text_generation_pb2.TextScore.FromString(packed(1, values))
    assert found.token_logprobs[:] == values.tolist()


@pytest.mark.parametrize("count", [0, 1, 100, 101, 5000])
def test_array_holds_the_numbers_of_the_field(count: int) -> None:
    """From 101 numbers on they are read another way."""
    values = np.linspace(-3, 3, count, dtype=np.float32)
    found = array_of(sequences_pb2.StepValues(values=values).values, np.float32)
    assert found.dtype == np.float32
    assert found.tolist() == values.tolist()


def test_array_is_a_copy_of_the_field() -> None:
    message = sequences_pb2.StepValues(values=[1.0] * 200)
    found = array_of(message.values, np.float32)
    message.values[0] = 2.0
    assert found[0] == 1.0

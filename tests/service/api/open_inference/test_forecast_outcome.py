"""service.api.open_inference.interfaces.forecasting: the tensors of one forecast are those of several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.open_inference.interfaces.forecasting import _outcome
from service.api.open_inference.tensors import Encoded, to_raw
from service.errors import InvalidArgument
from service.tasks.forecasting import Forecast, Selection

NUMBERS = st.floats(-3e38, 3e38, allow_nan=False)


def forecast(numbers: list[float], steps: int) -> Forecast:
    levels = [0.5] * (len(numbers) // steps - 1)
    return Forecast(Selection(steps, levels, tuple), tuple(numbers), 7.0)


@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_one_forecast_is_written_as_each_of_several(steps: int, levels: int, data: st.DataObject) -> None:
    count = steps * (1 + levels)
    one = forecast(data.draw(st.lists(NUMBERS, min_size=count, max_size=count)), steps)
    alone, both = _outcome([one]).tensors, _outcome([one, one]).tensors
    for name, shape in (("value", (1, steps)), ("quantiles", (1, steps, levels))):
        written, array = alone[name], both[name]
        assert isinstance(written, Encoded)
        assert isinstance(array, np.ndarray)
        assert written == Encoded(shape, to_raw("FP32", array[:1]))


@pytest.mark.parametrize("count", [1, 2])
def test_number_beyond_32_bits_is_refused_with_the_last_value(count: int) -> None:
    large = forecast([1.0, 1e39], 1)
    with pytest.raises(InvalidArgument, match="whose forecast fits 32 bits, found 7"):
        _outcome([*[forecast([1.0, 2.0], 1)] * (count - 1), large])

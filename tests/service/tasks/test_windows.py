"""service.tasks.windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.spec import Window
from service.errors import InvalidArgument
from service.tasks.windows import WindowFit

SIDES, LONGER = ("left", "right"), ("refuse", "keep_first", "keep_last")


def window(to: int, side: str = "left", longer: str = "refuse", value: float = 0.0) -> WindowFit:
    return WindowFit(Window.model_validate({"to": to, "side": side, "longer": longer, "value": value}))


@given(
    count=st.integers(1, 12),
    to=st.integers(1, 12),
    side=st.sampled_from(SIDES),
    longer=st.sampled_from(LONGER[1:]),
)
def test_rows_of_the_window_are_the_kept_steps_and_all_others_padding(
    count: int, to: int, side: str, longer: str
) -> None:
    tokens = np.arange(100, 100 + count)
    fitted = window(to, side, longer, value=7).fit(tokens, "field")
    assert fitted.inputs.shape == (to,)
    assert fitted.inputs.dtype == tokens.dtype
    assert fitted.inputs[fitted.rows].tolist() == tokens[fitted.kept].tolist()
    assert np.delete(fitted.inputs, np.r_[fitted.rows]).tolist() == [7] * max(0, to - count)
    assert fitted.kept.stop - fitted.kept.start == fitted.rows.stop - fitted.rows.start == min(to, count)


@pytest.mark.parametrize(("side", "rows"), [("left", [7, 7, 1, 2]), ("right", [1, 2, 7, 7])])
def test_padding_is_put_at_its_side(side: str, rows: list[int]) -> None:
    assert window(4, side, value=7).fit(np.array([1, 2]), "field").inputs.tolist() == rows


@pytest.mark.parametrize(("longer", "kept"), [("keep_first", [0, 1, 2]), ("keep_last", [2, 3, 4])])
def test_longer_sequence_is_cut_at_its_end_or_start(longer: str, kept: list[int]) -> None:
    assert window(3, longer=longer).fit(np.arange(5), "field").inputs.tolist() == kept


def test_longer_sequence_is_refused_where_the_model_says_so() -> None:
    with pytest.raises(InvalidArgument, match=r"expected at most 3 time steps.*found 5") as refusal:
        window(3).fit(np.arange(5), "inputs[0].text")
    assert refusal.value.violations[0].field == "inputs[0].text"


def test_features_are_padded_as_float32() -> None:
    fitted = window(3, value=-1.5).fit(np.ones((1, 2), np.float32), "field")
    assert fitted.inputs.dtype == np.float32
    assert fitted.inputs.tolist() == [[-1.5, -1.5], [-1.5, -1.5], [1.0, 1.0]]


@given(st.integers(1, 20))
def test_without_a_window_nothing_changes(count: int) -> None:
    tokens = np.arange(count)
    fitted = WindowFit(None).fit(tokens, "field")
    assert fitted.inputs is tokens
    assert fitted.kept == fitted.rows == slice(0, count)

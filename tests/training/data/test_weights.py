"""Class weights: what the user writes, and what becomes of the loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.weights import BALANCED, NONE, class_weights
from training.errors import TrainingError

LABELS = ("a", "b=c", "d")
COUNTS = st.lists(st.floats(0.5, 1e6), min_size=3, max_size=3).map(np.array)


@given(COUNTS)
def test_balanced_classes_have_equal_shares_of_the_loss(counts: np.ndarray) -> None:
    weights = class_weights(BALANCED, LABELS, counts)
    assert weights is not None
    assert weights * counts == pytest.approx(np.full(3, counts.sum() / 3), rel=1e-5)


@given(COUNTS)
def test_mean_weight_over_the_rows_is_one(counts: np.ndarray) -> None:
    weights = class_weights("a=5,b=c=0.5", LABELS, counts)
    assert weights is not None
    assert weights @ counts / counts.sum() == pytest.approx(1, rel=1e-5)
    assert weights[0] / weights[2] == pytest.approx(5, rel=1e-5)
    assert weights[1] / weights[2] == pytest.approx(0.5, rel=1e-5)


def test_no_weights_change_nothing() -> None:
    assert class_weights(NONE, LABELS, np.ones(3)) is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("even", "expected none, balanced or LABEL=WEIGHT,.*, found 'even'"),
        ("a=0", "numbers above 0, found 'a=0'"),
        ("a=nan", "numbers above 0, found 'a=nan'"),
        ("a=2,", "found 'a=2,'"),
        ("", "found ''"),
        ("e=2", "expected labels among 'a', 'b=c', 'd', found 'e'"),
        ("a=2,a=3", "expected each label once, found 'a' twice"),
    ],
)
def test_other_weights_are_refused(asked: str, message: str) -> None:
    with pytest.raises(TrainingError, match=f"^--class-weights: .*{message}"):
        class_weights(asked, LABELS, np.ones(3))

"""The measure of volatility: what it computes, what it cannot see, and what it does to a network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.networks.network import NetworkConfig, RecurrentNetwork
from training.networks.volatility import STATE, STATE_WIDTH, Volatility, deviations, divided

VOLATILITY = Volatility(measured=(1,), mean_squares=(0.8,), divided=(0, 1), decay=0.9, prior=2.0)


def _by_numpy(volatility: Volatility, column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the deviation at every step by the weighted mean as it is defined, not step by step."""
    found = []
    for now in range(len(column)):
        weights = volatility.decay ** (now - np.arange(1, now + 1))
        total = float((weights * column[1 : now + 1] ** 2).sum()) / volatility.mean_squares[0]
        found.append((total + volatility.prior) / (float(weights.sum()) + volatility.prior))
    return np.sqrt(found)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30),
    st.floats(0.1, 0.99),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_deviation_is_the_weighted_mean_of_squares(
    column: list[float], decay: float, prior: float, mean_square: float
) -> None:
    volatility = Volatility((0,), (mean_square,), (0,), decay, prior)
    features = torch.tensor(column).view(1, -1, 1)
    found, _ = deviations(volatility, features, None, torch.zeros(1, STATE_WIDTH))
    np.testing.assert_allclose(found[0], _by_numpy(volatility, np.array(column)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 2, 5, 8])
def test_measure_goes_on_where_a_sequence_was_cut(cut: int) -> None:
    features, start = torch.randn(3, 9, 2), torch.zeros(3, STATE_WIDTH)
    whole, end = deviations(VOLATILITY, features, None, start)
    first, between = deviations(VOLATILITY, features[:, :cut], None, start)
    second, after = deviations(VOLATILITY, features[:, cut:], None, between)
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert torch.equal(after, end)


def test_ended_rows_keep_their_state() -> None:
    features = torch.randn(2, 6, 2)
    _, together = deviations(VOLATILITY, features, torch.tensor([6, 3]), torch.zeros(2, STATE_WIDTH))
    _, alone = deviations(VOLATILITY, features[1:, :3], None, torch.zeros(1, STATE_WIDTH))
    assert torch.equal(together[1:], alone)


def test_later_observations_and_other_features_change_nothing() -> None:
    features, start = torch.randn(1, 9, 3), torch.zeros(1, STATE_WIDTH)
    other = features.clone()
    other[:, 5:] += 3
    other[:, :, [0, 2]] += 7
    found, expected = (deviations(VOLATILITY, one, None, start)[0] for one in (other, features))
    assert torch.equal(found[:, :5], expected[:, :5])
    assert not torch.equal(found[:, 5:], expected[:, 5:])


def test_standing_still_and_starting_have_a_deviation_above_zero() -> None:
    found, _ = deviations(VOLATILITY, torch.zeros(1, 200, 2), None, torch.zeros(1, STATE_WIDTH))
    assert found[0, 0] == 1
    assert found[0, -1] == pytest.approx(np.sqrt(2 / (1 / (1 - 0.9) + 2)), rel=1e-4)


def test_chosen_features_alone_are_divided() -> None:
    features, deviation = torch.randn(2, 4, 3), torch.rand(2, 4) + 0.5
    found = divided(VOLATILITY, features, deviation)
    torch.testing.assert_close(found[:, :, :2], features[:, :, :2] / deviation[:, :, None])
    torch.testing.assert_close(found[:, :, 2], features[:, :, 2])


def test_network_answers_a_series_twice_as_wild_with_intervals_twice_as_wide() -> None:
    """With next to no prior, the network itself sees the same numbers in both."""
    volatility = Volatility((0,), (1.0,), (0, 1), 0.9, 1e-6)
    network = RecurrentNetwork(NetworkConfig("gru", 1, 6, 3, features=2, volatility=volatility)).eval()
    features = torch.randn(2, 12, 2)
    features[:, 0] = 0
    with torch.no_grad():
        one, two = (network.outputs_of(network(scale * features)[0])[:, -1] for scale in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one, rtol=1e-4, atol=1e-5)


def test_state_has_a_row_for_the_measure() -> None:
    config = NetworkConfig("lstm", 1, 6, 3, features=2, volatility=VOLATILITY)
    assert config.state_widths == {"layer0.h": 6, "layer0.c": 6, STATE: STATE_WIDTH}
    _, state = RecurrentNetwork(config)(torch.randn(4, 5, 2))
    assert [tensor.shape[1] for tensor in state] == list(config.state_widths.values())


@pytest.mark.parametrize("wrong", [{"mean_square": 0.0}, {"decay": 1.0}, {"prior": 0.0}])
def test_parameters_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    found = {"mean_square": 1.0, "decay": 0.9, "prior": 1.0} | wrong
    with pytest.raises(ValueError, match="expected mean_squares above 0"):
        Volatility((0,), (found["mean_square"],), (0,), found["decay"], found["prior"])


def test_tokens_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match="needs feature input and a head"):
        NetworkConfig("gru", 1, 4, 2, vocabulary=5, embedding=2, volatility=VOLATILITY)

"""training.recipes.sizes: a short text gets a small network and enough updates."""

from pathlib import Path

import pytest

from training.recipes.run import RunOptions
from training.recipes.sizes import LONG_TEXT, SMALL_TEXT, STEPS, UPDATES, sizes_for


@pytest.mark.parametrize("length", [100_000, 262_000, SMALL_TEXT - 1, SMALL_TEXT, LONG_TEXT])
def test_every_text_gets_about_as_many_updates(length: int) -> None:
    sizes = sizes_for(length)
    updates = sizes.epochs * length / (sizes.rows * STEPS)
    assert updates > 0.95 * UPDATES


def test_tiny_text_is_not_read_for_ever() -> None:
    assert sizes_for(1000).epochs == sizes_for(10).epochs == 40


def test_short_text_gets_the_smaller_network() -> None:
    assert sizes_for(SMALL_TEXT - 1).hidden < sizes_for(SMALL_TEXT).hidden


def test_wide_network_of_the_user_gets_a_smaller_rate() -> None:
    assert sizes_for(1000, hidden=512).learning_rate < sizes_for(1000).learning_rate


def test_sizes_that_are_given_stay() -> None:
    options = RunOptions("x", Path(), "lstm", 0, 40, 0, 0, "cpu", False, False)
    found = sizes_for(262_000).completed(options)
    assert (found.layers, found.hidden, found.epochs) == (1, 40, sizes_for(262_000).epochs)

"""Bars of probabilities: in their order, or the highest of many."""

from seqserve.playground.bars import MAX_BARS, bars_of, labelled


def test_bars_of_few_labels_keep_their_places() -> None:
    assert bars_of([("a", 0.25), ("b", 0.75)]) == [("a", 0.25), ("b", 0.75)]


def test_bars_of_many_labels_are_the_highest_and_the_rest_is_one_bar() -> None:
    shares = [(f"label {number}", number / 210) for number in range(21)]
    bars = bars_of(shares)
    assert len(bars) == MAX_BARS + 1
    assert bars[0] == ("label 20", 20 / 210)
    assert bars[-1].label == "9 more labels, together"
    assert abs(sum(bar.share for bar in bars) - 1) < 1e-9


def test_probabilities_that_hold_for_themselves_are_not_added_up() -> None:
    bars = bars_of([(str(number), 0.9) for number in range(20)], exclusive=False)
    assert bars[-1] == ("8 more labels, at most", 0.9)


def test_long_labels_are_cut_and_outputs_without_labels_are_numbered() -> None:
    assert len(bars_of([("x" * 1000, 1.0)])[0].label) < 70
    assert labelled(["a"], [0.25, 0.75]) == [("0", 0.25), ("1", 0.75)]
    assert bars_of([("a", 0.125)])[0].percent == "12.5 %"

from collections.abc import Callable

import pytest

from benchmarks.rounds import (
    CLIENT_SHARE,
    CORE_SHARE,
    Claim,
    Round,
    Sample,
    interleave,
    inverse_ratio,
    judge,
    number,
    ratio,
    timed,
)


def rounds_of(**values: list[float]) -> list[Round]:
    """One round a place in the lists."""
    return [
        {name: Sample(value) for name, value in zip(values, row, strict=True)}
        for row in zip(*values.values(), strict=True)
    ]


def test_ratios_are_taken_within_rounds() -> None:
    # The machine slows down tenfold in the last round: each ratio is 2, that of the medians would be another.
    verdict = judge(ratio("ours / theirs", "ours", "theirs"), rounds_of(ours=[20, 30, 2], theirs=[10, 15, 1]))
    assert verdict.values == (2, 2, 2)


def test_the_median_of_the_ratios_counts() -> None:
    verdict = judge(
        ratio("ours / theirs", "ours", "theirs", 2.0), rounds_of(ours=[1, 2, 9], theirs=[1, 1, 1])
    )
    assert verdict.median == 2
    assert verdict.is_met


def test_of_latencies_the_ratio_is_turned_over() -> None:
    assert (
        judge(inverse_ratio("theirs / ours", "ours", "theirs"), rounds_of(ours=[2], theirs=[6])).median == 3
    )


@pytest.mark.parametrize(("value", "is_met"), [(199.0, True), (201.0, False)])
def test_an_upper_bound_is_kept_from_below(value: float, is_met: bool) -> None:
    claim = number("memory", "ours", 200, unit="MiB", is_at_most=True)
    assert judge(claim, rounds_of(ours=[value])).is_met is is_met


def test_without_a_target_nothing_is_met_or_missed() -> None:
    assert judge(Claim("shown", lambda samples: samples["ours"].value), rounds_of(ours=[1])).is_met is None


def test_a_ratio_by_cpu_time_needs_both_sides() -> None:
    claim = ratio("ours / theirs", "ours", "theirs")
    assert judge(claim, [{"ours": Sample(1, 8), "theirs": Sample(1, 2)}]).by_cpu == 4
    assert judge(claim, [{"ours": Sample(1, 8), "theirs": Sample(1)}]).by_cpu is None


@pytest.mark.parametrize(
    ("notes", "is_doubted"),
    [
        ({CORE_SHARE: 99.0}, False),
        ({CORE_SHARE: 50.0}, True),
        ({CLIENT_SHARE: 60.0}, False),
        ({CLIENT_SHARE: 99.0}, True),
    ],
    ids=["core to itself", "core shared", "client at ease", "client at its limit"],
)
def test_cpu_time_decides_where_wall_time_tells_of_others(notes: dict[str, float], is_doubted: bool) -> None:
    samples = {"ours": Sample(1, 8), "theirs": Sample(1, 2, notes)}
    verdict = judge(ratio("ours / theirs", "ours", "theirs", 3.0), [samples])
    assert (bool(verdict.doubt), verdict.is_by_cpu, verdict.is_met) == (is_doubted, is_doubted, is_doubted)


def recorder(turns: list[str], name: str) -> Callable[[], Sample]:
    def run() -> Sample:
        turns.append(name)
        return Sample(len(turns))

    return run


def test_contestants_take_turns_and_another_begins_each_round() -> None:
    turns: list[str] = []
    rounds = interleave({name: recorder(turns, name) for name in "abc"}, rounds=3)
    assert "".join(turns) == "abcbcacab"
    assert [[sample.value for sample in samples.values()] for samples in rounds] == [
        [1, 2, 3],
        [6, 4, 5],
        [8, 9, 7],
    ]


def test_work_is_counted_a_second() -> None:
    sample = timed(lambda: sum(range(100_000)) * 0 + 1)
    assert sample.by_cpu is not None
    assert sample.value > 0

"""service.tasks.sequence_outputs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.contract.spec import OutputSpec
from service.errors import InvalidArgument
from service.tasks import sequence_outputs
from service.tasks.sequence_outputs import OutputReader, SequenceOutput

LABELS = ["a", "b", "c"]
floats = st.floats(-(2.0**100), 2.0**100, width=32)


def reader(width: int, kind: str = "logits", **fields: Any) -> OutputReader:
    return OutputReader(OutputSpec.model_validate({"kind": kind, "steps": "every", **fields}), width)


async def read(one: OutputReader, rows: Any, raw: bool = False) -> SequenceOutput:
    return await one.read(np.array(rows, np.float32), raw, [], "input")


def rows_of(width: int) -> st.SearchStrategy[Any]:
    shape = st.tuples(st.integers(1, 12), st.just(width))
    return shape.flatmap(lambda one: hnp.arrays(np.float32, one, elements=floats))


@given(rows_of(3))
async def test_probabilities_of_an_exclusive_choice_are_the_softmax(rows: Any) -> None:
    found = await read(reader(3, labels=LABELS), rows)
    assert found.probabilities is not None
    assert found.probabilities.dtype == np.float32
    wide = rows.astype(np.float64)
    weights = np.exp(wide - wide.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found.probabilities, weights / weights.sum(axis=1, keepdims=True), atol=1e-6)
    chosen = [LABELS.index(label) for label in found.labels]
    np.testing.assert_array_equal(
        found.probabilities[range(len(rows)), chosen], found.probabilities.max(axis=1)
    )
    assert found.values is None
    assert found.steps == len(rows)


@given(rows_of(3), st.sampled_from(["softmax", "sigmoid", "binary"]), st.data())
async def test_row_has_the_same_bits_in_any_company(rows: Any, kind: str, data: st.DataObject) -> None:
    """Odds of a false alarm: none, since the same rows are computed twice."""
    one = {
        "softmax": reader(3, labels=LABELS),
        "sigmoid": reader(3, labels=LABELS, exclusive=False),
        "binary": reader(1, labels=["no", "yes"]),
    }[kind]
    rows = rows[:, : 1 if kind == "binary" else 3]
    index = data.draw(st.integers(0, len(rows) - 1))
    together, alone = await read(one, rows), await read(one, rows[index : index + 1])
    assert together.probabilities is not None
    assert alone.probabilities is not None
    np.testing.assert_array_equal(together.probabilities[index], alone.probabilities[0])
    assert together.labels[index] == alone.labels[0]


@given(floats)
async def test_two_labels_may_share_one_output(logit: float) -> None:
    found = await read(reader(1, labels=["no", "yes"]), [[logit]])
    assert found.probabilities is not None
    [[no, yes]] = found.probabilities.tolist()
    assert no + yes == pytest.approx(1)
    [label] = found.labels
    assert {"no": no, "yes": yes}[label] == max(no, yes)
    np.testing.assert_allclose(yes, 1 / (1 + np.exp(np.float64(-logit).clip(-700, 700))), atol=1e-6)


async def test_shared_output_may_be_a_probability() -> None:
    found = await read(reader(1, "probabilities", labels=["no", "yes"]), [[0.25], [0.75]])
    assert found.labels == ["no", "yes"]
    assert found.probabilities is not None
    assert found.probabilities.tolist() == [[0.75, 0.25], [0.25, 0.75]]


async def test_label_of_several_that_may_hold_is_given_from_half_on() -> None:
    one = reader(3, "probabilities", labels=LABELS, exclusive=False)
    found = await read(one, [[0.1, 0.49, 0.2], [0.5, 0.2, 0.1], [0.9, 0.95, 0.0]])
    assert found.labels == ["", "a", "b"]


async def test_probabilities_without_labels_are_one_an_output() -> None:
    found = await read(reader(2, "probabilities"), [[0.25, 0.75]])
    assert found.labels == []
    assert found.probabilities is not None
    assert found.probabilities.tolist() == [[0.25, 0.75]]
    assert (found.values, reader(2, "probabilities").kind) == (None, "probabilities")


async def test_single_logit_without_labels_is_a_sigmoid() -> None:
    found = await read(reader(1), [[0.0]])
    assert found.probabilities is not None
    assert found.probabilities.tolist() == [[0.5]]


async def test_numbers_are_scaled_by_their_columns_unless_raw() -> None:
    columns = [{"name": "speed", "mean": 3.0, "scale": 10.0}, {"name": "turn"}]
    one = reader(2, "numbers", columns=columns)
    for raw, expected in ((False, [[8.0, 1.5]]), (True, [[0.5, 1.5]])):
        found = await read(one, [[0.5, 1.5]], raw)
        assert found.values is not None
        assert found.values.dtype == np.float32
        assert found.values.tolist() == expected
        assert (found.labels, found.probabilities) == ([], None)


async def test_raw_outputs_stand_beside_labels() -> None:
    found = await read(reader(3, labels=LABELS), [[1.0, 3.0, 2.0]], raw=True)
    assert found.values is not None
    assert found.values.tolist() == [[1.0, 3.0, 2.0]]
    assert found.labels == ["b"]


@pytest.mark.parametrize("kind", ["numbers", "embedding"])
async def test_values_without_columns_are_the_outputs(kind: str) -> None:
    found = await read(reader(2, kind), [[1.0, -2.0]])
    assert found.values is not None
    assert found.values.tolist() == [[1.0, -2.0]]


@pytest.mark.parametrize("raw", [False, True])
async def test_many_rows_are_the_same_in_slices(monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    whole = await read(reader(3, labels=LABELS), rows, raw)
    monkeypatch.setattr(sequence_outputs, "_SLICE_VALUES", 21)
    sliced = await read(reader(3, labels=LABELS), rows, raw)
    assert sliced.labels == whole.labels
    np.testing.assert_array_equal(sliced.probabilities, whole.probabilities)
    assert (sliced.values is None, sliced.steps) == (not raw, 50)


@pytest.mark.parametrize("wrong", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf, -np.inf, -np.inf]])
async def test_logits_without_probabilities_are_refused_and_give_no_label(wrong: list[float]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await read(reader(3, labels=LABELS), [[1, 2, 3], wrong])
    [violation] = refused.value.violations
    assert violation.field == "input"
    assert "found that its outputs are infinite or no numbers" in violation.description


async def test_class_that_is_masked_by_an_infinite_logit_has_no_probability() -> None:
    found = await read(reader(3, labels=LABELS), [[-np.inf, 1, 1]])
    assert found.probabilities is not None
    assert found.probabilities.tolist() == [[0, 0.5, 0.5]]


async def test_only_class_of_a_classification_is_certain() -> None:
    section = OutputSpec.model_construct(
        kind="logits", labels=["only"], exclusive=True, columns=None, steps="last"
    )
    found = await read(OutputReader(section, 1), [[-3], [3]])
    assert found.labels == ["only", "only"]
    assert found.probabilities is not None
    assert found.probabilities.tolist() == [[1], [1]]

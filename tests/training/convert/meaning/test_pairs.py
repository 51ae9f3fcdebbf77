"""A user's own examples: what is read, what agrees, and what is said where one does not."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.contract import spec
from tests.training.convert.made import IMAGE, POOLED, SERIES, WORDS, answered, converted_of
from training.convert.converted import Converted
from training.convert.foreign import Refused
from training.convert.meaning.causes import USUAL, softmax
from training.convert.meaning.checking_pairs import Checked, check_pairs
from training.convert.meaning.meaning import Said, meaning_of
from training.convert.meaning.pairs import Pair, pairs_from
from training.convert.options import Choices
from training.convert.version.graphs import Graphs
from training.errors import TrainingError

RNG = np.random.default_rng(3)
ROWS = [RNG.normal(size=(steps, 2)).astype(np.float32) for steps in (1, 4, 9)]
IDS = [RNG.integers(0, 10, steps) for steps in (1, 4, 9)]
SCALING = {"mean": [3.0, -7.0], "scale": [2.0, 0.5]}
INDEX = {"<OOV>": 1, "the": 2, "film": 3, "was": 4, "good": 5}


def save(file: Any, arrays: dict[str, NDArray[Any]]) -> None:
    np.savez(file, allow_pickle=False, **arrays)


def read(said: object, converted: Converted, choices: Choices = Choices()) -> list[Pair]:
    return pairs_from(said, converted, choices)


def checked(said: object, converted: Converted, **meant: Any) -> Checked:
    meaning = meaning_of(converted, Said(**meant))
    return check_pairs(read(said, converted), meaning, converted.input, Graphs(converted).rows)


def lines_of(sequences: list[NDArray[Any]], config: Any, key: str, change: Callable[[Any], Any]) -> list[Any]:
    return [{key: change(one).tolist(), "outputs": answered(config, one).tolist()} for one in sequences]


def test_every_form_of_file_holds_the_same_pairs(tmp_path: Path) -> None:
    made, outputs = converted_of(SERIES), [answered(SERIES, one) for one in ROWS]
    named: dict[str, NDArray[Any]] = {}
    for index, (rows, output) in enumerate(zip(ROWS, outputs, strict=True)):
        named |= {f"{index}.in.series": rows[None], f"{index}.out.y": output[None]}
    save(tmp_path / "named.npz", named)
    # Time first, as exporters write it where batch_first is false.
    save(tmp_path / "time_first.npz", {name: np.moveaxis(array, 0, 1) for name, array in named.items()})
    lengths = np.array(list(map(len, ROWS)))
    inputs, padded = np.full((3, 9, 2), 55, np.float32), np.full((3, 9, 3), 55, np.float32)
    for index, (rows, output) in enumerate(zip(ROWS, outputs, strict=True)):
        inputs[index, : len(rows)], padded[index, : len(rows)] = rows, output
    np.savez(tmp_path / "stacked.npz", inputs=inputs, outputs=padded, lengths=lengths)
    lines = [json.dumps(one) for one in lines_of(ROWS, SERIES, "steps", lambda rows: rows)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n\n")
    for path in tmp_path.iterdir():
        pairs = read(path, made)
        assert len(pairs) == 3, path
        for pair, rows, output in zip(pairs, ROWS, outputs, strict=True):
            np.testing.assert_array_equal(pair.given.sequence, rows)
            np.testing.assert_array_equal(pair.outputs, output)
        assert checked(path, made).difference < 1e-6


def test_last_outputs_alone_are_compared_with_the_last_step() -> None:
    lines = [{"steps": one.tolist(), "output": answered(SERIES, one)[-1].tolist()} for one in ROWS]
    found = checked(lines, converted_of(SERIES))
    assert (found.count, found.form) == (3, "the network's outputs")
    assert [one.steps for one in found.matched] == [(0,), (3,), (8,)]
    lines[2]["output"] = answered(SERIES, ROWS[2])[0].tolist()
    with pytest.raises(Refused, match=r"example 2: expected .* within 0\.001 of the largest output, found"):
        checked(lines, converted_of(SERIES))


def test_features_are_scaled_before_the_network() -> None:
    raw = lines_of(ROWS, SERIES, "steps", lambda rows: rows * SCALING["scale"] + np.array(SCALING["mean"]))
    found = checked(raw, converted_of(SERIES), features=SCALING)
    assert found.difference < 1e-5
    assert found.matched[2].sample.values is not None
    with pytest.raises(Refused) as refused:
        checked(raw, converted_of(SERIES))
    assert refused.value.advice == USUAL
    scaled = lines_of(ROWS, SERIES, "steps", lambda rows: rows)
    with pytest.raises(Refused, match="agrees without --features: its rows are scaled already"):
        checked(scaled, converted_of(SERIES), features=SCALING)


def test_text_goes_through_the_tokenizer() -> None:
    outputs = answered(WORDS, np.array([2, 3, 4, 1]))
    lines = [{"text": "The film was odd!", "output": outputs[-1].tolist()}]
    found = checked(lines, converted_of(WORDS), tokenizer=INDEX)
    assert found.matched[0].sample.text == "The film was odd!"
    assert found.matched[0].sample.case.inputs.tolist() == [2, 3, 4, 1]
    with pytest.raises(TrainingError, match="example 0: expected token ids or rows, found a text"):
        checked(lines, converted_of(WORDS))
    cased = {"the": 2, "film": 3, "was": 4, "Was": 5, "<OOV>": 1}
    with pytest.raises(Refused, match="agrees with its text in lower case"):
        checked(lines, converted_of(WORDS), tokenizer=cased)


def test_padding_of_the_other_side_is_found() -> None:
    padded = np.concatenate([np.zeros(3, np.int64), IDS[1]])
    lines = [{"tokens": IDS[1].tolist(), "output": answered(POOLED, padded)[0].tolist()}]
    found = checked(lines, converted_of(POOLED), window=spec.Window(to=7, side="left"))
    assert found.matched[0].steps == (6,)
    with pytest.raises(Refused, match="agrees with padding at the other side: say --pad left"):
        checked(lines, converted_of(POOLED), window=spec.Window(to=7, side="right"))
    bare = lines_of(IDS[1:2], POOLED, "tokens", lambda ids: ids)
    with pytest.raises(Refused, match="agrees without padding: leave --window out"):
        checked(bare, converted_of(POOLED), window=spec.Window(to=9, side="right"))
    with pytest.raises(TrainingError, match="expected at most 3 time steps, the window, found 4"):
        checked(lines, converted_of(POOLED), window=spec.Window(to=3, side="left"))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda ids: ids + 1, "token ids that are one lower"),
        (lambda ids: ids - 1, "token ids that are one higher"),
        (lambda ids: ids[::-1], "its time steps reversed"),
    ],
)
def test_other_token_ids_are_explained(change: Callable[[Any], Any], cause: str) -> None:
    ids = np.array([5, 3, 8, 2, 4])
    lines = [{"tokens": change(ids).tolist(), "output": answered(WORDS, ids)[-1].tolist()}]
    with pytest.raises(Refused, match=cause):
        checked(lines, converted_of(WORDS))


def test_answers_in_the_form_of_the_service_agree() -> None:
    logits = [answered(SERIES, one) for one in ROWS]
    weights = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in logits]
    lines = [{"steps": one.tolist(), "outputs": out.tolist()} for one, out in zip(ROWS, weights, strict=True)]
    found = checked(lines, converted_of(SERIES), labels="a,b,c")
    assert (found.form, found.matched) == ("probabilities", ())
    with pytest.raises(Refused, match="after a softmax: say --output logits"):
        checked(lines, converted_of(SERIES))
    targets = {"mean": [1.0, 2, 3], "scale": [4.0, 5, 6]}
    scaled = [
        {"steps": one.tolist(), "outputs": (out * targets["scale"] + np.array(targets["mean"])).tolist()}
        for one, out in zip(ROWS, logits, strict=True)
    ]
    found = checked(scaled, converted_of(SERIES), target_features=targets)
    assert found.form == "values in their units"
    # They are kept as the network gives them.
    for one, out in zip(found.matched, logits, strict=True):
        np.testing.assert_allclose(one.outputs, out, atol=1e-5)


def test_small_differences_beside_a_large_mean_are_refused() -> None:
    """A pressure of 1013 hPa may be off by half of what it varies by, which is less than a part in 1,000."""
    targets = {"mean": [1013.0] * 3, "scale": [1.0] * 3}
    lines = lines_of(ROWS, SERIES, "steps", lambda rows: rows)
    for one in lines:
        one["outputs"] = (np.array(one["outputs"]) + 1013).tolist()
    assert checked(lines, converted_of(SERIES), target_features=targets).difference < 1e-3
    lines[2]["outputs"][-1][0] += 0.3
    with pytest.raises(Refused, match=r"example 2: expected .* \(in the network's units\) within"):
        checked(lines, converted_of(SERIES), target_features=targets)


def test_small_numbers_are_compared_with_the_largest_of_them() -> None:
    lines = [{"steps": ROWS[0].tolist(), "output": (answered(SERIES, ROWS[0])[-1]).tolist()}]
    assert np.abs(lines[0]["output"]).max() < 0.5
    checked(lines, converted_of(SERIES))
    lines[0]["output"] = [1.005 * value for value in lines[0]["output"]]
    with pytest.raises(Refused, match=r"within 0\.001 of the largest output"):
        checked(lines, converted_of(SERIES))


def test_rounding_is_excused_where_it_is_small() -> None:
    made, numbers = converted_of(SERIES), [answered(SERIES, one)[-1] for one in ROWS]

    def rounded(decimals: int) -> list[Any]:
        outputs = [np.round(one.astype(np.float64), decimals).tolist() for one in numbers]
        return [{"steps": rows.tolist(), "output": out} for rows, out in zip(ROWS, outputs, strict=True)]

    assert checked(rounded(3), made).difference <= 1e-3
    with pytest.raises(Refused, match="of the largest output"):
        checked(rounded(1), made)


def test_rows_scaled_before_and_answers_in_units_are_explained() -> None:
    """The cause is looked for in every form that the outputs may have."""
    targets = {"mean": [1.0, 2, 3], "scale": [4.0, 5, 6]}
    lines = lines_of(ROWS, SERIES, "steps", lambda rows: rows)
    for one in lines:
        one["outputs"] = (np.array(one["outputs"]) * targets["scale"] + np.array(targets["mean"])).tolist()
    with pytest.raises(Refused, match="agrees without --features: its rows are scaled already"):
        checked(lines, converted_of(SERIES), features=SCALING, target_features=targets)


def test_token_ids_of_texts_and_padding_that_nobody_said_are_explained() -> None:
    ids = np.array([2, 3, 4, 5])
    lines = [{"text": "the film was good", "output": answered(WORDS, ids + 3)[-1].tolist()}]
    with pytest.raises(Refused, match="token ids that are three higher: shift the ids of the tokenizer"):
        checked(lines, converted_of(WORDS), tokenizer=INDEX)
    padded = np.concatenate([np.zeros(2, np.int64), IDS[2][:8]])
    lines = [{"tokens": padded[2:].tolist(), "output": answered(WORDS, padded)[-1].tolist()}]
    with pytest.raises(Refused, match=r"padding at the left to 10 steps: .*--window LENGTH --pad left"):
        checked(lines, converted_of(WORDS))


def test_second_softmax_of_the_pipeline_is_explained() -> None:
    made = converted_of(WORDS)
    rows = answered(WORDS, IDS[1])[-1:]
    lines = [{"tokens": IDS[1].tolist(), "output": softmax(softmax(rows))[0].tolist()}]
    meaning = meaning_of(made, Said(output="probabilities", labels="a,b"))

    def run(case: Any) -> Any:
        return softmax(Graphs(made).rows(case))

    with pytest.raises(Refused, match="after a softmax, which the network has applied already"):
        check_pairs(read(lines, made), meaning, made.input, run)


def test_inputs_of_the_init_graph_are_taken() -> None:
    made = converted_of(IMAGE)
    example = made.examples[1]
    image = example.initial["image"]
    line = {"steps": example.inputs.tolist(), "output": example.outputs[-1].tolist()}
    found = checked([{**line, "initial": {"image": image.tolist()}}], made)
    assert found.difference < 1e-6
    arrays = {"0.in.x": example.inputs[None], "0.in.image": image[None], "0.out.y": example.outputs[-1:]}
    pair = read_npz(arrays, made)
    np.testing.assert_array_equal(pair.given.initial["image"], image)
    with pytest.raises(TrainingError, match="example 0: expected an input image, found inputs"):
        read_npz({name: one for name, one in arrays.items() if name != "0.in.image"}, made)


def read_npz(arrays: dict[str, NDArray[Any]], made: Converted, choices: Choices = Choices()) -> Pair:
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        save(file, arrays)
        file.flush()
        return read(file.name, made, choices)[0]


def test_states_of_an_example_must_be_those_of_the_start() -> None:
    arrays = {
        "0.in.x": ROWS[1][None],
        "0.in.h0": np.zeros((1, 1, 6), np.float32),
        "0.out.y": answered(SERIES, ROWS[1])[None],
        "0.out.hn": np.zeros((1, 1, 6), np.float32),
    }
    choices = Choices(state=(("h0", "hn"),))
    np.testing.assert_array_equal(read_npz(arrays, converted_of(SERIES), choices).given.sequence, ROWS[1])
    arrays["0.in.h0"] += 1
    with pytest.raises(TrainingError, match="example 0: expected zeros in h0"):
        read_npz(arrays, converted_of(SERIES), choices)
    with pytest.raises(TrainingError, match="expected an output z, found outputs"):
        read_npz(arrays | {"0.in.h0": np.zeros((1, 1, 6))}, converted_of(SERIES), Choices(output="z"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ({"steps": [[1, 2]]}, "example 0: expected an output or outputs"),
        ({"output": [1, 2, 3]}, "expected an object with one of text, tokens, steps"),
        ({"steps": [[1, 2], [3]], "output": [1, 2, 3]}, "expected numbers, in rows of one length, in steps"),
        ({"steps": [[1, 2]], "output": [1, 2]}, "expected rows of 3 outputs, found an array of shape (2,)"),
        ({"steps": [[1, 2]], "output": [1, 2, None]}, "expected finite numbers in outputs"),
        ({"steps": [[1, 2, 3]], "output": [1, 2, 3]}, "expected rows of 2 values"),
        ({"steps": [[1, 2]] * 3, "outputs": [[1, 2, 3]] * 2}, "one for each of 3 steps, found 2"),
        ({"tokens": [1], "output": [1, 2, 3]}, "expected rows of 2 values, found an array of shape (1,)"),
        ({"tokens": [0.5], "output": [1, 2, 3]}, "expected a list of token ids in tokens"),
        ({"text": 7, "output": [1, 2, 3]}, "expected a text, found 7"),
        ({"steps": [[1, 2]], "output": [1, 2, 3], "initial": 3}, "expected an object in initial, found 3"),
        ("text", "expected an object with one of"),
    ],
)
def test_line_that_is_no_example_is_refused(line: object, found: str) -> None:
    with pytest.raises(TrainingError) as refused:
        checked([line], converted_of(SERIES))
    assert found in str(refused.value)


def test_files_that_hold_no_pairs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = converted_of(SERIES)
    path = tmp_path / "pairs"
    for text, found in {
        "": "expected examples, found none",
        "{\n": "line 1: expected an object of JSON",
        "PK\x03\x04": "expected an .npz file of plain arrays",
    }.items():
        path.write_text(text)
        with pytest.raises(TrainingError, match=found):
            read(path, made)
    np.savez(tmp_path / "objects.npz", inputs=np.array([{}], object), outputs=np.zeros(1))
    with pytest.raises(TrainingError, match="plain arrays"):
        read(tmp_path / "objects.npz", made)
    np.savez_compressed(tmp_path / "bomb.npz", inputs=np.zeros(10_000), outputs=np.zeros(10_000))
    monkeypatch.setattr("training.convert.meaning.pairs.MAX_ARRAY_BYTES", 100_000)
    with pytest.raises(TrainingError, match="bytes of arrays, more"):
        read(tmp_path / "bomb.npz", made)
    np.savez(tmp_path / "others.npz", a=np.zeros(1))
    with pytest.raises(TrainingError, match="or inputs and outputs, in"):
        read(tmp_path / "others.npz", made)
    np.savez(tmp_path / "short.npz", inputs=np.zeros((2, 3, 2)), outputs=np.zeros((1, 3)))
    with pytest.raises(TrainingError, match="of one number of sequences"):
        read(tmp_path / "short.npz", made)


def test_disagreement_names_the_first_example_and_the_numbers() -> None:
    lines = lines_of(ROWS, SERIES, "steps", lambda rows: rows)
    lines[1]["outputs"][-1][0] += 0.5
    with pytest.raises(Refused) as refused:
        checked(lines, converted_of(SERIES))
    expected = lines[1]["outputs"][-1][0]
    assert f"--examples: example 1: expected {expected:.4g}," in refused.value.reason
    assert "at the last step" in refused.value.reason


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": np.array(5)},
        {"outputs": np.array(5)},
        {"lengths": np.array([[1], [2]])},
        {"lengths": np.array(["a", "b"])},
    ],
    ids=["scalar inputs", "scalar outputs", "lengths of two axes", "lengths of texts"],
)
def test_arrays_of_other_shapes_and_types_are_refused(changed: dict[str, NDArray[Any]]) -> None:
    arrays = {"inputs": np.zeros((2, 4, 2)), "outputs": np.zeros((2, 3)), "lengths": np.array([1, 2])}
    with pytest.raises(TrainingError, match="expected inputs, outputs and lengths of one number"):
        read_npz(arrays | changed, converted_of(SERIES))

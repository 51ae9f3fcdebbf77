"""The written version: by the contract, whole or not at all."""

import errno
import json
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.contract import spec
from tests.training.convert.made import (
    IMAGE,
    LETTERS,
    POOLED,
    SERIES,
    SOURCE,
    WORDS,
    answered,
    converted_of,
)
from training.convert.converted import Comparison, Converted
from training.convert.foreign import Refused
from training.convert.meaning.checking_pairs import Matched, check_pairs
from training.convert.meaning.golden import goldens_of
from training.convert.meaning.meaning import Said, meaning_of
from training.convert.meaning.pairs import pairs_from
from training.convert.options import Choices
from training.convert.version.calling import EXAMPLES_FILE, calling, serving
from training.convert.version.card import CardFacts, card
from training.convert.version.graphs import Graphs
from training.convert.version.package import (
    MAX_GRAPH_BYTES,
    Package,
    graph_files,
    provenance_of,
    write_package,
)
from training.recipes.run import REPOSITORY
from training.writing import WriteError

INDEX = {"<OOV>": 1, "the": 2, "film": 3, "was": 4, "good": 5}


def package_of(converted: Converted, said: Said = Said(), pairs: Any = None) -> Package:
    meaning = meaning_of(converted, said)
    matched: tuple[Matched, ...] = ()
    if pairs is not None:
        found = pairs_from(pairs, converted, Choices())
        matched = check_pairs(found, meaning, converted.input, Graphs(converted).rows).matched
    goldens = goldens_of(converted, meaning, matched)
    return Package(
        name="made",
        converted=converted,
        meaning=meaning,
        goldens=goldens,
        provenance=provenance_of(SOURCE, "songs of birds", "CC0", "python -m training convert made.onnx"),
        card=partial(card, facts=CardFacts(converted, meaning.assumed)),
    )


def written(package: Package, repository: Path) -> tuple[Path, spec.ModelSpec]:
    folder, _, _ = write_package(package, repository, spec.read_spec)
    return folder, spec.read_spec(folder)[0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (SERIES, Said(labels="a,b,c", features={"mean": [1, 2], "scale": [3, 4]})),
        (SERIES, Said(target_features=["a", "b", "c"])),
        (LETTERS, Said(characters="ab\n c")),
        (WORDS, Said(tokenizer=INDEX, labels="good,bad")),
        (WORDS, Said(task="text-classification", tokenizer=INDEX, labels="good,bad")),
        (POOLED, Said(window=spec.Window(to=12, side="left"))),
        (IMAGE, Said()),
    ],
    ids=["features", "numbers", "characters", "words", "classifier", "window", "init"],
)
def test_version_keeps_the_contract(config: Any, said: Said, tmp_path: Path) -> None:
    converted = converted_of(config)
    folder, model = written(package_of(converted, said), tmp_path)
    assert folder == tmp_path / "made" / "1"
    assert (model.kind if isinstance(model, spec.SpecV2) else None) == config.kind
    assert model.provenance.source == SOURCE
    assert model.metrics == {"largest_difference": 3e-7}
    assert [one.name for one in tmp_path.iterdir()] == ["made"]
    expected = {golden.length: golden.outputs for golden in model.golden}
    for one in converted.examples:
        if len(one.inputs) in expected:
            np.testing.assert_array_equal(np.array(expected[len(one.inputs)], np.float32), one.outputs)
    assert set(model.files) <= {path.name for path in folder.iterdir()}
    assert (folder / EXAMPLES_FILE).exists()


def test_next_version_stands_beside_the_first(tmp_path: Path) -> None:
    made = package_of(converted_of(SERIES))
    assert [written(made, tmp_path)[0].name for _ in range(2)] == ["1", "2"]


def test_examples_have_values_and_text_as_callers_send_them(tmp_path: Path) -> None:
    columns = {"mean": [1, 2], "scale": [3, 4]}
    _, series = written(package_of(converted_of(SERIES), Said(features=columns)), tmp_path / "series")
    for golden in series.golden:
        back = (np.array(golden.values) - columns["mean"]) / columns["scale"]
        np.testing.assert_allclose(back, np.array(golden.features), rtol=1e-4, atol=1e-4)
    folder, letters = written(package_of(converted_of(LETTERS), Said(characters="ab\n c")), tmp_path)
    for golden in letters.golden:
        assert golden.tokens == ["ab\n c".index(character) for character in golden.text or ""]
    lines = [json.loads(line) for line in (folder / EXAMPLES_FILE).read_text().splitlines()]
    assert [line["text"] for line in lines] == [golden.text for golden in letters.golden]


def test_values_that_32_bits_cannot_hold_are_left_out(tmp_path: Path) -> None:
    far = Said(features={"mean": [1e9, 0], "scale": [1, 1]})
    _, model = written(package_of(converted_of(SERIES), far), tmp_path)
    assert [golden.values for golden in model.golden] == [None, None]


def test_own_examples_are_kept_beside_those_of_the_original(tmp_path: Path) -> None:
    text, ids = "The film was odd", np.array([2, 3, 4, 1])
    outputs = answered(WORDS, ids)
    pairs = [{"text": text, "outputs": outputs.tolist()}]
    _, model = written(package_of(converted_of(WORDS), Said(tokenizer=INDEX), pairs), tmp_path)
    kept = model.golden[-1]
    assert (kept.text, kept.tokens, kept.steps) == (text, ids.tolist(), [0, 2, 3])
    np.testing.assert_array_equal(np.array(kept.outputs, np.float32), outputs[[0, 2, 3]])
    assert len(model.golden) == 3


def test_rounded_examples_are_checked_and_not_kept(tmp_path: Path) -> None:
    outputs = np.round(answered(WORDS, np.array([2, 3])), 3)
    made = package_of(converted_of(WORDS), pairs=[{"tokens": [2, 3], "outputs": outputs.tolist()}])
    assert made.goldens.given == 0


def test_window_without_examples_of_its_length_is_refused() -> None:
    with pytest.raises(Refused, match="expected examples of 8 steps, the window, found none"):
        package_of(converted_of(POOLED), Said(window=spec.Window(to=8, side="right", value=3)))


def test_tolerance_is_wider_than_the_proof_and_bounded() -> None:
    def tolerance(difference: float, scale: float) -> float:
        converted = converted_of(SERIES)
        examples = tuple(replace(one, outputs=one.outputs * scale) for one in converted.examples)
        comparisons = (Comparison("alone", 1, 1, difference),)
        return package_of(replace(converted, examples=examples, comparisons=comparisons)).goldens.tolerance

    largest = max(float(np.abs(one.outputs).max()) for one in converted_of(SERIES).examples)
    assert tolerance(0.0, 1.0) == 1e-4
    assert tolerance(2e-4, 1.0) == pytest.approx(8e-4)
    assert tolerance(0.0, 1000.0) == pytest.approx(0.1 * largest, rel=0.1)
    assert tolerance(1.0, 1.0) == pytest.approx(max(1e-3, 0.1 * largest))


def test_many_outputs_leave_few_golden_numbers(tmp_path: Path) -> None:
    wide = replace(WORDS, outputs=40_000)
    folder, model = written(package_of(converted_of(wide, lengths=(2, 5, 9, 12))), tmp_path)
    assert [len(golden.outputs) for golden in model.golden] == [2, 1]
    assert (folder / spec.SPEC_FILE).stat().st_size < spec.MAX_SPEC_BYTES


def test_graph_that_protobuf_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.convert.version.package.MAX_GRAPH_BYTES", 1000)
    assert MAX_GRAPH_BYTES == (1 << 31) - 1
    with pytest.raises(Refused, match="expected a graph of at most 1000 bytes with its weights, found"):
        graph_files(converted_of(SERIES))


def refuse(folder: Path) -> None:
    assert (folder / spec.SPEC_FILE).exists()
    raise Refused("check 'golden' failed")


def interrupt(folder: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("admit", "error"), [(refuse, Refused), (interrupt, KeyboardInterrupt)])
def test_refused_version_leaves_nothing_behind(
    admit: Any, error: type[BaseException], tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    with pytest.raises(error):
        write_package(package_of(converted_of(SERIES)), repository, admit)
    assert not repository.exists()
    written(package_of(converted_of(SERIES)), repository)
    with pytest.raises(error):
        write_package(package_of(converted_of(SERIES)), repository, admit)
    assert [path.name for path in repository.rglob("*") if path.is_dir()] == ["made", "1"]


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        whole(path, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(WriteError, match="No space left on device"):
        write_package(package_of(converted_of(SERIES)), tmp_path / "models", refuse)
    assert not (tmp_path / "models").exists()


def test_commands_name_the_model_and_its_examples(tmp_path: Path) -> None:
    folder, model = written(package_of(converted_of(SERIES)), tmp_path)
    assert calling(model, folder) == f"seqserve infer made --file {folder}/examples.jsonl"
    assert serving(tmp_path) == f"SEQSERVE_REPOSITORY={tmp_path} make serve"
    assert serving(REPOSITORY) == "make serve"
    _, letters = written(package_of(converted_of(LETTERS), Said(characters="ab\n c")), tmp_path)
    assert calling(letters, folder).startswith("seqserve generate --model made ")


def test_command_of_a_captioner_names_a_file_of_its_image(tmp_path: Path) -> None:
    config = replace(LETTERS, initial=(("image", 3),))
    folder, captions = written(package_of(converted_of(config), Said(characters="abcde")), tmp_path)
    _, _, _, _, option, file, prompt = shlex.split(calling(captions, folder))
    assert (option, file) == ("--initial", f"{folder}/initial.json")
    golden = next(one for one in captions.golden if one.text)
    assert json.loads(Path(file).read_text()) == golden.initial
    assert prompt == golden.text


def test_card_says_where_from_and_how_proven(tmp_path: Path) -> None:
    folder, _ = written(package_of(converted_of(SERIES), Said(labels="a,b,c")), tmp_path)
    text = (folder / "README.md").read_text()
    for part in (
        "Converted from made.onnx (PyTorch, opset 17)",
        "| in chunks of 4 | 6 | 62 | 3.0e-07 |",
        "one of 3 labels at every time step",
        "- the outputs are logits",
        "songs of birds. Licence: CC0.",
        "seqserve infer made --file examples.jsonl",
    ):
        assert part in text


def test_goldens_of_no_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.convert.meaning.golden._MAX_NUMBERS", 5)
    with pytest.raises(Refused, match="at most 5 numbers, found"):
        package_of(converted_of(SERIES))

"""training.convert.against: versions that are their original, and versions that only look like it."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.service.builders import edit_graph, spec_of
from tests.service.models.test_checks_contract2 import keep_golden
from tests.training.conftest import Command
from training.convert.against import compared_with
from training.convert.api import convert
from training.convert.options import Choices
from training.errors import TrainingError

SAMPLES = Path(__file__).parent / "samples"
WORDS, BOTH = SAMPLES / "emb_lstm_last.ts.onnx", SAMPLES / "bilstm_hidden.ts.onnx"
SERIES = SAMPLES / "gru_series_class.dynamo.onnx"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of converted networks. To be copied, not changed."""
    repository = tmp_path_factory.mktemp("converted")
    for name, file in (("words", WORDS), ("both", BOTH)):
        convert(file, name=name, repository=repository)
    return repository


@pytest.mark.parametrize(("name", "file"), [("words", WORDS), ("both", BOTH)])
def test_converted_version_is_its_original(converted: Path, name: str, file: Path) -> None:
    found = compared_with(converted / name / "1", str(file), Choices())
    assert found.refused is None
    assert len(found.comparisons) >= 4
    assert max(one.difference for one in found.comparisons) < 2e-5


def one_percent(model: onnx.ModelProto) -> None:
    """Make the recurrent weights a little larger."""
    names = {node.input[2] for node in model.graph.node if node.op_type == "LSTM"}
    tensors = [one for one in model.graph.initializer if one.name in names]
    assert tensors
    for one in tensors:
        one.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(one), one.name))


def test_version_that_passes_every_check_and_is_another_network_is_found(
    converted: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its golden examples have the outputs of its own graph, so that no check of the service fails."""
    folder = shutil.copytree(converted / "words" / "1", tmp_path / "words" / "1")
    edit_graph(folder, one_percent)
    keep_golden(folder, count=len(spec_of(folder)["golden"]))
    assert command("check", str(folder), "--against", str(WORDS), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert found["against"]["same"] is False
    assert found["against"]["reason"].startswith("each alone: off by ")


def test_version_whose_golden_outputs_are_wrong_is_compared_all_the_same(
    converted: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The comparison says which of them is wrong, graph or examples."""
    folder = shutil.copytree(converted / "words" / "1", tmp_path / "words" / "1")
    golden = spec_of(folder)["golden"]
    golden[0]["outputs"][0][0] += 1.0
    spec_of(folder, golden=golden)
    assert command("check", str(folder), "--against", str(WORDS)) == 1
    *_, advice, last = [line for line in capsys.readouterr().out.splitlines() if "largest" not in line]
    assert advice.startswith("what to do: ")
    assert last == f"the same as {WORDS}"


def test_original_that_takes_something_else_is_told(converted: Path) -> None:
    found = compared_with(converted / "words" / "1", str(SERIES), Choices())
    assert found.refused is not None
    assert found.refused.reason == (
        "kind of input: expected features, as the original has, found tokens in model.json"
    )


def test_original_that_cannot_be_read_is_told(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    found = compared_with(converted / "words" / "1", str(tmp_path / "bad.onnx"), Choices())
    assert found.refused is not None
    assert "expected an ONNX file" in found.refused.reason


def test_graph_of_a_folder_is_read_by_its_hash(converted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(converted / "words" / "1", tmp_path / "words" / "1")
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"sha256 of model\.onnx"):
        compared_with(folder, str(WORDS), Choices())

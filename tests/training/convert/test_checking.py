"""training.convert.checking and admission: the command on right and wrong versions."""

import json
import shutil
from pathlib import Path

import pytest

from service.models.checklist import NAMES
from tests import contract2
from tests.service.builders import replace_file
from tests.training.conftest import Command
from training.convert.admission import admitted
from training.errors import TrainingError


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    contract2.export(contract2.ACTIVITY, folder)
    return folder


def test_right_version_is_admitted_with_what_was_measured(exported: Path) -> None:
    found = admitted(exported / "activity" / "1")
    assert found.passed
    assert found.failed is None
    assert [one.name for one in found.checks] == list(NAMES)
    assert 0 <= found.measured["largest_difference"] < 1e-5
    assert 0 < found.measured["microseconds_widest"] < found.measured["microseconds_alone"]
    assert found.measured["batch_invariant"] is True


def test_settings_of_a_server_have_no_say_but_those_of_its_trials(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQSERVE_GRPC_ADDRESS", "nowhere")
    monkeypatch.setenv("SEQSERVE_NO_SUCH_SETTING", "1")
    monkeypatch.setenv("SEQSERVE_ADMISSION_SECONDS", "0.01")
    found = admitted(exported / "activity" / "1")
    assert found.failed is not None
    assert found.failed.name == "trial"
    assert "0.01 s" in found.failed.expected


def test_wrong_variant_is_told(exported: Path) -> None:
    with pytest.raises(TrainingError, match="--variant: expected fp32, all that the version has, found int8"):
        admitted(exported / "activity" / "1", variant="int8")


def test_refused_version_ends_with_status_one_and_what_to_do(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(exported / "activity" / "1", tmp_path / "activity" / "1")
    replace_file(folder, "model.onnx", b"nothing")
    admission = admitted(folder)
    monkeypatch.setattr("training.convert.checking.admitted", lambda *_: admission)
    assert command("check", "activity@1", "--repository", str(tmp_path)) == 1
    *_, refused, advice = capsys.readouterr().out.splitlines()
    assert refused.startswith("refused: check 'graph' failed: ")
    assert advice.startswith("what to do: export the graph again")
    assert command("check", str(folder), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert found["advice"] == advice.removeprefix("what to do: ")
    statuses = {one["name"]: one["status"] for one in found["checks"]}
    assert [statuses[name] for name in ("provider", "graph", "golden")] == ["passed", "failed", "not reached"]


@pytest.mark.parametrize(
    ("where", "found"), [("activity@2", "activity@1"), ("activity", "activity@1"), ("nowhere", "none")]
)
def test_version_that_is_not_there_ends_with_status_two(
    command: Command, capsys: pytest.CaptureFixture[str], exported: Path, where: str, found: str
) -> None:
    assert command("check", where, "--repository", str(exported)) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "expected a version's folder, or name@version in" in error
    assert error.endswith(f"found {found}")

"""service.check: the command, in this process and in one of its own."""

import json
import shutil
from pathlib import Path

import pytest

from service.check import main
from service.models.checklist import CHECKS
from tests.service.builders import replace_file
from tests.service.test_main import run


@pytest.fixture
def version(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "prices" / "1", tmp_path / "prices" / "1")


def test_right_version_is_admitted(models: Path) -> None:
    ran = run("check", str(models / "letters" / "1"), "--threads", "1")
    assert (ran.returncode, ran.stderr) == (0, "")
    title, *lines, last = ran.stdout.splitlines()
    assert title == "letters@1, fp32 on cpu"
    assert [line.split("  ")[0] for line in lines if line.startswith("passed")]
    assert [one.name for one in CHECKS] == [line[13:].split()[0] for line in lines]
    assert last.startswith("admitted: every check passed in ")


def test_wrong_version_is_refused_with_the_sentence_of_the_server(version: Path) -> None:
    replace_file(version, "model.onnx", b"nothing")
    ran = run("check", str(version))
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "\nfailed       graph\nnot reached  placement\n" in ran.stdout
    assert ran.stdout.splitlines()[-1] == (
        "refused: check 'graph' failed: expected a graph that onnxruntime loads, "
        "found a file that is no ONNX graph, or a part of one"
    )


def test_json_has_every_check(version: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (version / "model.onnx").write_bytes(b"nothing")
    assert main([str(version), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    first, *others = found["checks"]
    assert (found["passed"], found["variant"], found["provider"]) == (False, "fp32", "cpu")
    assert (first["name"], first["status"], first["place"]) == ("spec", "failed", "model.onnx")
    assert first["proves"] == CHECKS[0].proves
    assert {one["status"] for one in others} == {"not reached"}


USAGES = [
    ((), "FOLDER: expected the folder of a version before any setting, found none\n"),
    (("--json",), "FOLDER: expected the folder of a version before any setting, found none\n"),
    (("nowhere/1",), "FOLDER: expected the folder of a version, found no folder nowhere/1\n"),
    (
        ("{models}",),
        "FOLDER: expected the folder of a version with model.json, found {models}\n",
    ),
    (
        ("{models}/prices",),
        "FOLDER: expected the folder of a version with model.json, found {models}/prices, "
        "whose versions are 1\n",
    ),
    (("{models}/prices/1", "--slots", "0"), "SEQSERVE_SLOTS: expected at least 1, found '0'\n"),
    (
        ("{models}/prices/1", "--variant", "int8"),
        "--variant: expected fp32, all that the version has, found int8\n",
    ),
]


@pytest.mark.parametrize(("arguments", "sentence"), USAGES)
def test_wrong_argument_ends_with_status_two_and_its_sentence(
    models: Path, arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([one.format(models=models) for one in arguments]) == 2
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", sentence.format(models=models))


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m service check FOLDER")

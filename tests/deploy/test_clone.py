"""A clone of the repository, as the settings of git and of the user make it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.render import ROOT

GIT = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "core.autocrlf", "GIT_CONFIG_VALUE_0": "true"} | {
    "GIT_CONFIG_KEY_1": "safe.directory",
    "GIT_CONFIG_VALUE_1": "*",
}
# One of each kind: checked by hash, read as data, compared by bytes, run by a shell.
SAMPLES = (
    "exported/sentiment/4/tokenizer.json",
    "exported/stock/2/model.json",
    "training/data/goog.csv",
    "seqserve/v1/models_pb2.py",
    "seqserve/inference/grpc_service_pb2.py",
    "protos/seqserve/v1/models.proto",
    "Makefile",
    ".ci/run",
)


def git(folder: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, env=os.environ | GIT, capture_output=True, check=True).stdout


@pytest.fixture(autouse=True)
def _is_a_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this folder is no checkout of git")


def test_files_are_the_committed_bytes_under_autocrlf(tmp_path: Path) -> None:
    git(ROOT, "clone", "--quiet", "--no-checkout", "--shared", str(ROOT), str(tmp_path / "clone"))
    git(tmp_path / "clone", "checkout", "HEAD", "--", ".gitattributes", *SAMPLES)
    for name in SAMPLES:
        assert (tmp_path / "clone" / name).read_bytes() == git(ROOT, "show", f"HEAD:{name}"), name


def test_no_file_has_its_line_ends_converted() -> None:
    names = git(ROOT, "ls-files", "-z")
    command = ["git", "-C", str(ROOT), "check-attr", "-z", "--stdin", "text"]
    told = subprocess.run(command, env=os.environ | GIT, input=names, capture_output=True, check=True).stdout
    name_attribute_value = told.decode().split("\0")
    converted = [
        name
        for name, value in zip(name_attribute_value[::3], name_attribute_value[2::3], strict=False)
        if value != "unset"
    ]
    assert converted == []

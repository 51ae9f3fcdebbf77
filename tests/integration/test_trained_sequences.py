"""Series and label from end to end: trained by the command, served by the real server, asked in two ways."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seqserve.cli.app import app
from seqserve.v1 import sequences_pb2 as pb
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from tests.integration.process import ServerProcess
from tests.training.conftest import Command, command
from tests.training.recipes.test_label import sentences, write
from tests.training.recipes.test_series import waves

__all__ = ["command"]


def _asked(address: str, *arguments: str) -> list[dict[str, Any]]:
    found = CliRunner().invoke(app, ["--server", address, *arguments])
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


async def test_series_gives_the_same_label_by_grpc_and_by_the_command(
    command: Command, tmp_path: Path
) -> None:
    file = waves(tmp_path / "waves.csv", count=60)
    assert command("series", file, "--target", "label", "--hidden", 8, "--epochs", 12) == 0
    golden = json.loads((tmp_path / "exported/waves/1/model.json").read_bytes())["golden"]
    async with ServerProcess(tmp_path / "exported") as server, server.channel() as channel:
        request = pb.InferRequest(model="waves")
        for one in golden:
            steps = request.inputs.add().steps
            steps.features = 2
            steps.values.extend(value for row in one["values"] for value in row)
        stub: Any = SequencesStub(channel)
        outputs = (await stub.Infer(request)).outputs
        labels = {tuple(one.labels) for one in outputs}
        rows = str(tmp_path / "runs/waves/rows.csv")
        [shown] = await asyncio.to_thread(_asked, server.address, "infer", "waves", "--file", rows, "--json")
    assert labels == {("fast",), ("slow",)}
    assert shown["labels"][0] in ("fast", "slow")


@pytest.mark.parametrize("direction", ["both", "forward"])
async def test_label_gives_each_word_its_tag(command: Command, tmp_path: Path, direction: str) -> None:
    file = write(tmp_path / "tags.tsv", sentences(160))
    options = ("--hidden", 16, "--epochs", 12, "--units", "words", "--direction", direction)
    assert command("label", file, *options) == 0
    text = "the fish sees dog1 today"
    async with ServerProcess(tmp_path / "exported") as server, server.channel() as channel:
        stub: Any = SequencesStub(channel)
        response = await stub.Infer(pb.InferRequest(model="tags", inputs=[pb.SequenceInput(text=text)]))
        [shown] = await asyncio.to_thread(_asked, server.address, "label", "tags", text, "--json")
    assert list(response.outputs[0].labels) == ["D", "N", "V", "N", "A"]
    assert [one["label"] for one in shown["parts"]] == ["D", "N", "V", "N", "A"]

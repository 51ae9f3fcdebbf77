"""Networks of other exporters, converted by the command and served: equal to what their originals gave."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from typer.testing import CliRunner

from seqserve import AsyncClient
from seqserve.cli.app import app
from service.contract import spec
from tests.integration.process import ServerProcess
from training.convert import api
from training.convert.admission import Admission
from training.convert.api import Conversion, convert
from training.convert.version.calling import calling

SAMPLES = Path(__file__).parents[1] / "training" / "convert" / "samples"
CHARACTERS = "\n" + "".join(map(chr, range(40, 99)))
WORDS = {"<OOV>": 1} | {f"word{token}": token for token in range(2, 60)}
MEAN, SCALE = np.arange(5) * 1.5, 1 + np.arange(5) / 4
MADE: dict[str, dict[str, Any]] = {
    "emb_lstm_last.ts": {"labels": ["a", "b", "c"], "tokenizer": WORDS},
    "gru_series_class.dynamo": {"features": {"mean": MEAN.tolist(), "scale": SCALE.tolist()}},
    "bilstm_hidden.ts": {},
    "caption_init.ts": {},
    "captions": {"file": "caption_init.ts", "characters": CHARACTERS},
    "stateful_lstm.ts": {"characters": CHARACTERS, "state": (("h0", "hn"), ("c0", "cn"))},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Conversion]:
    """Convert all; the service's checks run in the command for the first one, and in the server for all."""
    repository, found = tmp_path_factory.mktemp("converted"), {}
    with pytest.MonkeyPatch.context() as patch:
        for name, options in MADE.items():
            said = dict(options)
            path = SAMPLES / f"{said.pop('file', name)}.onnx"
            found[name] = convert(path, name=name, repository=repository, **said)
            patch.setattr(api, "admitted", lambda _: Admission(True, (), 0.0))
    return found


@pytest_asyncio.fixture(scope="module")
async def served(made: dict[str, Conversion]) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(next(iter(made.values())).repository) as server:
        yield server


def sample(name: str) -> list[tuple[dict[str, NDArray[Any]], NDArray[Any]]]:
    """Return the inputs of a sample's original by name, one sequence each, and its outputs."""
    arrays = np.load(SAMPLES / f"{name.partition('.')[0]}.npz")
    found = []
    for index in range(6):
        inputs = {
            key.partition(".in.")[2]: arrays[key][0] for key in arrays.files if key.startswith(f"{index}.in.")
        }
        output = next(key for key in arrays.files if key.startswith(f"{index}.out."))
        found.append((inputs, arrays[output][0]))
    return found


def test_service_admits_in_the_command(made: dict[str, Conversion]) -> None:
    first = made["emb_lstm_last.ts"].admission
    assert first is not None
    assert first.measured["largest_difference"] < 1e-6


async def test_last_outputs_are_those_of_the_original(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        for inputs, expected in sample("emb_lstm_last.ts"):
            (output,) = await client.infer([inputs["tokens"]], model="emb_lstm_last.ts", raw=True)
            np.testing.assert_allclose(output.values[0], expected, atol=2e-5)
            assert output.label == "abc"[int(expected.argmax())]


async def test_text_is_read_by_the_word_index(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        inputs, _ = sample("emb_lstm_last.ts")[3]
        tokens = np.maximum(inputs["tokens"], 1)
        text = ", ".join("odd" if token == 1 else f"Word{token}" for token in tokens)
        by_text, by_tokens = await client.infer([text, tokens], model="emb_lstm_last.ts", raw=True)
        np.testing.assert_array_equal(by_text.values, by_tokens.values)


async def test_values_are_scaled_by_the_service(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        for inputs, expected in sample("gru_series_class.dynamo"):
            values = inputs["series"] * SCALE + MEAN
            (output,) = await client.infer([values], model="gru_series_class.dynamo")
            np.testing.assert_allclose(output.values[0], expected, atol=2e-5)


async def test_network_that_looks_both_ways_is_served_whole(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        pairs = sample("bilstm_hidden.ts")
        outputs = await client.infer([inputs["tokens"] for inputs, _ in pairs], model="bilstm_hidden.ts")
        for output, (_, expected) in zip(outputs, pairs, strict=True):
            np.testing.assert_allclose(output.values[0], expected, atol=2e-5)


async def test_first_state_comes_from_another_input(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        for inputs, expected in sample("caption_init.ts"):
            initial = {"image": inputs["image"]}
            (output,) = await client.infer([inputs["tokens"]], model="caption_init.ts", initial=[initial])
            np.testing.assert_allclose(output.values, expected, atol=2e-5)


@pytest.mark.parametrize("name", MADE)
async def test_command_of_the_report_works(
    name: str, served: ServerProcess, made: dict[str, Conversion]
) -> None:
    conversion = made[name]
    assert conversion.folder is not None
    words = calling(conversion.model, conversion.folder)
    program, *arguments = shlex.split(words)
    if conversion.model.generation is not None:
        arguments += ["--max-tokens", "5"]
    run = await asyncio.to_thread(CliRunner().invoke, app, ["--server", served.address, *arguments, "--json"])
    assert (program, run.exit_code) == ("seqserve", 0), run.output
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert lines
    if isinstance(conversion.model.sequences, spec.SequencesSpec):
        assert len(lines) == len((conversion.folder / "examples.jsonl").read_text().splitlines())

"""Encoders and decoders, served by real servers: text is what PyTorch alone writes, through every door, and
survives the server that generates it.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import torch
from typer.testing import CliRunner

from seqserve import AsyncClient, Client, FinishReason, InvalidArgument, Retry, TextPiece, WrongType
from seqserve.cli.app import app
from seqserve.inference.grpc_service_pb2 import ModelMetadataRequest
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from seqserve.v1.sequences_pb2 import SequenceInput, StepValues, TokenIds
from tests import encoder_decoder
from tests.integration.calls import Calls, refusal
from tests.integration.process import ServerProcess
from tests.integration.tensors import infer_request, texts
from training.networks.sequences import SequenceNetwork

COUNT = 12
IMAGE = {"image": [0.25, -0.5]}
ROWS = [[3.0, 0.5], [1.0, -1.0], [0.0, 2.0]]
PATIENT = Retry(attempts=50, first_backoff_s=0.02, most_backoff_s=0.2)


@dataclass(frozen=True)
class Servers:
    """A server of all models, and one of `endless` with the same key, which is killed by its test."""

    first: ServerProcess
    doomed: ServerProcess


@pytest.fixture(scope="module")
def networks() -> dict[str, SequenceNetwork]:
    return {name: make().network for name, make in encoder_decoder.PACKAGES.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    repository, few, keys = (tmp_path_factory.mktemp(name) for name in ("exported", "few", "keys"))
    for name in encoder_decoder.PACKAGES:
        encoder_decoder.export(name, repository)
    encoder_decoder.export_endless(repository)
    shutil.copytree(repository / "endless", few / "endless")
    (keys / "keys").write_text("c3" * 32)
    settings = {"STATE_KEYS": str(keys / "keys"), "ENGINES": "1", "STREAM_INTERVAL_MS": "1"}
    async with AsyncExitStack() as stack:
        made = [ServerProcess(folder, settings) for folder in (repository, few)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in made))
        yield Servers(*made)


@pytest_asyncio.fixture
async def calls(servers: Servers) -> AsyncIterator[Calls]:
    async with servers.first.channel() as channel:
        yield Calls(channel)


@pytest_asyncio.fixture
async def client(servers: Servers) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(servers.first.address) as made:
        yield made


def said(text: str) -> SequenceInput:
    return SequenceInput(text=text)


@dataclass(frozen=True)
class Case:
    """A source as callers send it, as the encoder gets it, and what the init graph gets beside."""

    model: str
    given: Any
    source: torch.Tensor
    initial: dict[str, list[float]] | None = None

    def expected(self, network: SequenceNetwork, prompt: str = "") -> str:
        initial = {name: torch.tensor(row) for name, row in (self.initial or {}).items()}
        ids = [encoder_decoder.CHARACTERS.index(one) for one in prompt]
        return encoder_decoder.written(network, self.source, COUNT, ids, initial)[0]


def cases() -> list[Case]:
    digits = [Case("digits", text, encoder_decoder.source_tokens(text)) for text in ("1", "907", "12" * 20)]
    words = "four two unheard"
    worded = Case("worded", words, torch.tensor(encoder_decoder.words().encode(words).ids), IMAGE)
    moved = Case("moved", ROWS, encoder_decoder.features_of(np.array(ROWS)))
    coded = [Case("coded", ids, torch.tensor(ids)) for ids in ([4, 3, 1], [0])]
    return [*digits, Case("digits", [9, 0, 7], torch.tensor([9, 0, 7])), worded, moved, *coded]


CASES = cases()


@pytest.mark.parametrize("prompt", ["", "cab"])
async def test_text_from_a_source_is_pytorch_s(
    client: AsyncClient, networks: dict[str, SequenceNetwork], prompt: str
) -> None:
    expected = [case.expected(networks[case.model], prompt) for case in CASES]
    found = [
        await client.generate(
            prompt, model=case.model, source=case.given, initial=case.initial, max_tokens=COUNT, temperature=0
        ).read()
        for case in CASES
    ]
    assert [one.text for one in found] == expected
    assert len(set(expected)) > 3


async def test_answers_have_the_same_bits_alone_and_in_a_crowd(calls: Calls) -> None:
    """The second round would find prompts of the first one in a cache that did not look at the source."""
    fields: dict[str, Any] = {
        "model": "digits",
        "prompt": "cab" * 20,
        "seed": 3,
        "logprobs": True,
        "max_tokens": 20,
    }
    sources = [said(str(number) * (1 + number % 7)) for number in range(24)]
    alone = [await calls.generate(source=source, **fields) for source in sources]
    together = await asyncio.gather(*(calls.generate(source=source, **fields) for source in sources))
    assert [(one.text, one.logprobs) for one in together] == [(one.text, one.logprobs) for one in alone]
    assert len({one.logprobs for one in alone}) == len(sources)


async def test_open_inference_takes_a_source_of_each_kind(
    calls: Calls, networks: dict[str, SequenceNetwork]
) -> None:
    stub: Any = GRPCInferenceServiceStub(calls.channel)
    for case in CASES:
        if case.model == "digits" and isinstance(case.given, list):
            continue
        tensors: dict[str, Any] = {"prompt": [""]}
        tensors |= {name: np.array([row], np.float32) for name, row in (case.initial or {}).items()}
        kind = np.float32 if case.model == "moved" else np.int64
        is_text = isinstance(case.given, str)
        tensors["source"] = [case.given] if is_text else np.array([case.given], kind)
        request = infer_request(case.model, tensors, {"temperature": 0.0, "max_tokens": COUNT})
        [text] = texts(await stub.ModelInfer(request), "text")
        assert text == case.expected(networks[case.model])


async def test_open_inference_describes_the_source(calls: Calls) -> None:
    stub: Any = GRPCInferenceServiceStub(calls.channel)
    found = {}
    for model in encoder_decoder.PACKAGES:
        metadata = await stub.ModelMetadata(ModelMetadataRequest(name=model))
        found[model] = [(one.datatype, list(one.shape)) for one in metadata.inputs if one.name == "source"]
    assert found == {
        "digits": [("BYTES", [1])],
        "worded": [("BYTES", [1])],
        "moved": [("FP32", [1, -1, 2])],
        "coded": [("INT64", [1, -1])],
    }


WRONG_TENSORS: list[tuple[str, dict[str, Any], str]] = [
    ("digits", {}, "inputs"),
    ("digits", {"source": ["12x"]}, "source[0]"),
    ("digits", {"source": ["1" * 41]}, "source[0]"),
    ("coded", {"source": np.array([[1, 2, 5]])}, "source[0, 2]"),
    ("coded", {"source": np.zeros((1, 41), np.int64)}, "source"),
    ("moved", {"source": np.array([[[0, 0], [0, np.nan]]], np.float32)}, "source[0, 1, 1]"),
    ("moved", {"source": np.zeros((1, 3, 3), np.float32)}, "source"),
]


@pytest.mark.parametrize(("model", "tensors", "field"), WRONG_TENSORS)
async def test_open_inference_names_the_place_of_a_wrong_source(
    calls: Calls, model: str, tensors: dict[str, Any], field: str
) -> None:
    stub: Any = GRPCInferenceServiceStub(calls.channel)
    found = await refusal(stub.ModelInfer(infer_request(model, {"prompt": [""]} | tensors)))
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(found.violations) == [field]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("digits", {}, "source"),
    ("digits", {"source": SequenceInput()}, "source"),
    ("digits", {"source": said("1a")}, "source.text"),
    ("digits", {"source": said("")}, "source.text"),
    ("digits", {"source": said("1" * 41)}, "source.text"),
    ("digits", {"source": SequenceInput(steps=StepValues(values=[1.0]))}, "source"),
    ("digits", {"source": SequenceInput(tokens=TokenIds(ids=[1, -1]))}, "source.tokens.ids[1]"),
    ("digits", {"source": SequenceInput(tokens=TokenIds(ids=[1] * 41))}, "source.tokens.ids"),
    ("digits", {"source": said("1"), "initial": {"image": StepValues(values=[1.0])}}, "initial"),
    ("worded", {"source": said("one")}, "initial"),
    (
        "worded",
        {"source": SequenceInput(text="one", initial={"image": StepValues(values=[1, 2])})},
        "initial",
    ),
    ("moved", {"source": SequenceInput(steps=StepValues(values=[1.0] * 3))}, "source.steps.values"),
    (
        "moved",
        {"source": SequenceInput(steps=StepValues(features=3, values=[1.0] * 3))},
        "source.steps.features",
    ),
    (
        "moved",
        {"source": SequenceInput(steps=StepValues(values=[1.0, float("nan")]))},
        "source.steps.values[1]",
    ),
    ("moved", {"source": SequenceInput(steps=StepValues(values=[1.0] * 82))}, "source.steps.values"),
    ("plain", {"source": said("1")}, "source"),
]


@pytest.mark.parametrize(("model", "fields", "field"), WRONG)
async def test_wrong_source_is_refused_by_its_field(
    calls: Calls, model: str, fields: dict[str, Any], field: str
) -> None:
    found = await refusal(calls.generate(model, **fields))
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(found.violations) == [field]


async def test_text_of_a_model_with_a_source_is_not_scored(calls: Calls) -> None:
    found = await refusal(calls.score(["ab"], "digits"))
    assert "computes it from source, for which a text to score has no field" in found.text


async def test_state_goes_on_without_the_source(client: AsyncClient) -> None:
    options: dict[str, Any] = {"model": "digits", "seed": 4}
    whole = await client.generate(source="314", max_tokens=COUNT, **options).read()
    begun = await client.generate(source="314", max_tokens=5, return_state=True, **options).read()
    rest = await client.generate(state=begun.state, max_tokens=COUNT - 5, **options).read()
    assert begun.text + rest.text == whole.text
    with pytest.raises(InvalidArgument, match="source: expected none beside a state, found both"):
        await client.generate(state=begun.state, source="314", **options).read()


async def test_streams_survive_a_killed_server(servers: Servers) -> None:
    """The client sends the source again with the text so far, or goes on from a sealed state alone.

    Calls go to both servers in turn, so that one of two streams of each kind is cut.
    """
    options: dict[str, Any] = {"model": "endless", "seed": 8, "max_tokens": 3000, "source": "2718"}
    async with AsyncClient(servers.first.address) as client:
        whole = await client.generate("ab", **options).read()
    address = f"ipv4:{servers.doomed.address},{servers.first.address}"
    found: list[list[TextPiece]] = [[] for _ in range(4)]
    begun = [asyncio.Event() for _ in found]

    async def read(client: AsyncClient, number: int) -> None:
        async for piece in client.generate("ab", return_state=number >= 2, **options):
            found[number].append(piece)
            if len(found[number]) == 5:
                begun[number].set()

    async with AsyncClient(address, retry=PATIENT) as client:
        reading = asyncio.gather(*(read(client, number) for number in range(4)))
        async with asyncio.timeout(20):
            await asyncio.gather(*(one.wait() for one in begun))
        servers.doomed.kill()
        await servers.doomed.ended()
        assert not any(pieces[-1].finish_reason for pieces in found)
        await reading
    for pieces in found:
        assert "".join(piece.text for piece in pieces) == whole.text
        assert (pieces[-1].usage, pieces[-1].finish_reason) == (whole.usage, FinishReason.LENGTH)


async def test_blocking_client_sends_a_source(servers: Servers, networks: dict[str, SequenceNetwork]) -> None:
    def read() -> list[str]:
        with Client(servers.first.address) as client:
            options: dict[str, Any] = {"max_tokens": COUNT, "temperature": 0}
            return [
                client.generate(model=case.model, source=case.given, initial=case.initial, **options)
                .read()
                .text
                for case in CASES
            ]

    found = await asyncio.to_thread(read)
    assert found == [case.expected(networks[case.model]) for case in CASES]


async def test_table_as_a_source_is_refused_before_it_is_sent(client: AsyncClient) -> None:
    with pytest.raises(
        WrongType, match="source: expected a str, token ids or rows of numbers, found a table"
    ):
        client.generate(model="moved", source=[{"speed": 1.0, "turn": 2.0}])


def run_command(server: ServerProcess, *arguments: str) -> str:
    """Run `seqserve` in this process; return what it prints."""
    found = CliRunner().invoke(app, ["--server", server.address, *arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


async def test_command_generates_from_a_source(
    servers: Servers, networks: dict[str, SequenceNetwork], tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "words.txt").write_text("four two unheard")
    (tmp_path / "image.json").write_text(json.dumps(IMAGE))
    ways = {
        "digits": ("--source", "12" * 20),
        "moved": ("--source-file", str(tmp_path / "rows.json")),
        "worded": ("--source-file", str(tmp_path / "words.txt"), "--initial", str(tmp_path / "image.json")),
    }
    by_name = {case.model: case for case in CASES} | {"digits": CASES[2]}
    for name, way in ways.items():
        options = ("generate", "--temperature", "0", "--max-tokens", str(COUNT), "--model", name, *way)
        assert run_command(servers.first, *options) == by_name[name].expected(networks[name])


async def test_command_says_what_the_encoder_reads(servers: Servers) -> None:
    out = run_command(servers.first, "models", "moved")
    assert "rows of 2 numbers a time step (speed, turn) of at most 40 steps" in " ".join(out.split())
    assert "seqserve generate --model moved --source-file FILE.json" in out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--source", "1", "--source-file", "FILE"), "--source: expected it or --source-file, found both"),
        (("--source-file", "FILE"), "--source-file: expected JSON in FILE"),
        (("--source-file", "OBJECT"), "--source-file: expected a list of token ids or of rows in OBJECT"),
    ],
)
def test_command_refuses_a_source_that_it_cannot_read(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("1 2")
    Path("OBJECT").write_text('{"rows": []}')
    arguments = ["--server", servers.first.address, "generate", "--model", "moved", *options]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert text in " ".join(found.stderr.split())

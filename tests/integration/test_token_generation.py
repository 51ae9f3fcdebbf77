"""Language models over the tokens of a tokenizer, served by real servers: text is that of the network run
alone, through every door, and survives the server that generates it.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from seqserve import AsyncClient, FinishReason, Retry, TextPiece
from seqserve.inference import grpc_service_pb2 as inference
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.contract2 import Reference
from tests.integration.calls import Calls, refusal
from tests.integration.process import ServerProcess
from tests.token_models import export_token_model, token_net
from tests.tokenizers_of_kinds import tokenizer_of

KINDS = ("words", "byte-level", "bpe")
PROMPT = "the cat sat"
PATIENT = Retry(attempts=50, first_backoff_s=0.02, most_backoff_s=0.2)


@dataclass(frozen=True)
class Servers:
    """Servers of the same models that share a key; the last one is killed by its test."""

    first: ServerProcess
    second: ServerProcess
    doomed: ServerProcess


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model a kind of tokenizer, and `endless`, which has no end token."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in KINDS:
        export_token_model(folder, kind, kind)
    export_token_model(folder, "byte-level", "endless", end_tokens=[], prepend_start=True)
    return folder


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("c2" * 32)
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(repository: Path, keys: str) -> AsyncIterator[Servers]:
    settings = {"STATE_KEYS": keys, "ENGINES": "1", "STREAM_INTERVAL_MS": "1"}
    async with AsyncExitStack() as stack:
        made = [ServerProcess(repository, settings) for _ in range(3)]
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


def log_softmax(logits: Any) -> Any:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def greedy(kind: str, prompt: Sequence[int], count: int) -> tuple[list[int], list[float]]:
    """Return the most likely tokens after a prompt up to the end token, and their log-probabilities."""
    reference, ids, logprobs = Reference(token_net(kind, kind)), list(prompt), []
    for _ in range(count):
        row = log_softmax(reference.outputs(np.array(ids, np.int64))[-1])
        ids.append(int(row.argmax()))
        logprobs.append(float(row.max()))
        if ids[-1] == 1:
            break
    return ids[len(prompt) :], logprobs


# Texts.


@pytest.mark.parametrize("kind", KINDS)
async def test_text_is_that_of_the_network_alone(client: AsyncClient, kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    prompt = tokenizer.encode(PROMPT).ids
    ids, logprobs = greedy(kind, prompt, 24)
    found = await client.generate(PROMPT, model=kind, max_tokens=24, temperature=0, logprobs=True).read()
    whole, begun = tokenizer.decode([*prompt, *ids]), tokenizer.decode(prompt)
    assert begun + found.text == whole
    has_ended = ids[-1] == 1
    assert found.finish_reason is (FinishReason.END_TOKEN if has_ended else FinishReason.LENGTH)
    assert (found.usage.prompt_tokens, found.usage.generated_tokens) == (len(prompt), len(ids))
    assert found.logprobs == pytest.approx(logprobs[: len(ids) - has_ended], abs=1e-5)


async def test_end_token_has_its_own_finish_reason(client: AsyncClient) -> None:
    """One of 33 tokens is the end, so that of 40 texts of up to 100 tokens nearly all end with it."""
    texts = [client.generate("", model="words", max_tokens=100, seed=seed).read() for seed in range(40)]
    found = await asyncio.gather(*texts)
    reasons = {one.finish_reason for one in found}
    assert FinishReason.END_TOKEN in reasons
    assert all("</s>" not in one.text and "<s>" not in one.text for one in found)


async def test_text_is_the_same_alone_and_in_a_crowd(client: AsyncClient) -> None:
    def write(seed: int) -> Any:
        return client.generate(PROMPT, model="byte-level", max_tokens=60, seed=seed, stop="a").read()

    crowd = await asyncio.gather(*(write(seed) for seed in range(24)))
    assert [await write(seed) for seed in range(0, 24, 5)] == crowd[::5]


@pytest.mark.parametrize("kind", KINDS)
async def test_score_is_that_of_the_network_alone(client: AsyncClient, kind: str) -> None:
    ids = tokenizer_of(kind).encode(PROMPT).ids
    rows = log_softmax(Reference(token_net(kind, kind)).outputs(np.array(ids, np.int64)))
    right = [rows[place, token] for place, token in enumerate(ids[1:])]
    [found] = await client.score([PROMPT], model=kind)
    assert found.token_logprobs == pytest.approx(right, abs=1e-5)
    assert found.perplexity == pytest.approx(np.exp(-np.mean(right)), rel=1e-5)


async def test_open_inference_gives_the_same_text(calls: Calls, client: AsyncClient) -> None:
    stub = GRPCInferenceServiceStub(calls.channel)
    expected = await client.generate(PROMPT, model="bpe", max_tokens=30, seed=5).read()
    request = inference.ModelInferRequest(model_name="bpe")
    tensor = request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(PROMPT.encode())
    request.parameters["max_tokens"].int64_param = 30
    request.parameters["seed"].int64_param = 5
    found = await stub.ModelInfer(request)
    assert found.raw_output_contents[0][4:].decode() == expected.text
    reason = found.parameters["finish_reason"].string_param
    assert reason == expected.finish_reason.name
    stream = [one async for one in stub.ModelStreamInfer(iter([request]))]
    pieces = [one.infer_response.raw_output_contents[0][4:].decode() for one in stream]
    assert "".join(pieces) == expected.text


async def test_command_generates_the_same_text(servers: Servers, client: AsyncClient) -> None:
    expected = await client.generate(PROMPT, model="words", max_tokens=20, seed=5).read()
    options = ["--model", "words", "--max-tokens", "20", "--seed", "5", "--server", servers.first.address]
    program = [sys.executable, "-c", "from seqserve.cli import main; main()", "generate", PROMPT, *options]
    process = await asyncio.create_subprocess_exec(*program, "--json", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    pieces = [json.loads(line) for line in output.splitlines()]
    assert "".join(one["text"] for one in pieces) == expected.text
    assert pieces[-1]["finish_reason"] == expected.finish_reason.value


# Refusals.


async def test_text_alone_is_refused_with_what_to_keep(calls: Calls) -> None:
    found = await refusal(calls.generate("words", prompt=PROMPT, generated="on the", seed=1))
    assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "STATE_NEEDED")
    assert "return_state" in found.violations["generated"]


# Going on.


@pytest.mark.parametrize("kind", KINDS)
async def test_text_goes_on_from_server_to_server(servers: Servers, kind: str) -> None:
    """Slices of a few tokens, cut within characters too, are the text that one server generates."""
    options: dict[str, Any] = {"model": "endless" if kind == "byte-level" else kind, "logprobs": True}
    async with AsyncClient(servers.first.address) as first, AsyncClient(servers.second.address) as second:
        whole = await first.generate(PROMPT, max_tokens=40, seed=3, **options).read()
        text, logprobs, state = "", list[float](), None
        left = whole.usage.generated_tokens
        for number in range(9):
            client = (first, second)[number % 2]
            found = await client.generate(
                "" if number else PROMPT,
                max_tokens=min(5, left),
                seed=3,
                state=state,
                return_state=left > 5,
                **options,
            ).read()
            text, state = text + found.text, found.state
            logprobs.extend(found.logprobs)
            left -= found.usage.generated_tokens
            if not left:
                break
    assert text == whole.text
    assert tuple(logprobs) == whole.logprobs


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until either end is gone."""
    try:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
    finally:
        writer.transport.abort()


@asynccontextmanager
async def switch(targets: list[int], used: list[int]) -> AsyncIterator[str]:
    """Forward connections to the port of the last target, which is added to `used`; yield the address."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", targets[-1])
        except ConnectionError:
            writer.close()
            return
        used.append(targets[-1])
        for ends in ((reader, back), (there, writer)):
            task = asyncio.create_task(pipe(*ends))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports are closed in the next pass of the loop


async def test_texts_survive_a_killed_server(servers: Servers) -> None:
    """One stream goes on from states, the other one from its start."""
    options: dict[str, Any] = {"model": "endless", "seed": 8, "max_tokens": 4000, "logprobs": True}
    async with AsyncClient(servers.second.address) as client:
        whole = await client.generate(PROMPT, **options).read()
    targets, used = [servers.doomed.grpc_port], list[int]()
    async with switch(targets, used) as address, AsyncClient(address, retry=PATIENT) as client:
        streams = [client.generate(PROMPT, return_state=states, **options) for states in (True, False)]
        found: list[list[TextPiece]] = [[], []]
        begun = [asyncio.Event(), asyncio.Event()]

        async def read(number: int) -> None:
            async for piece in streams[number]:
                found[number].append(piece)
                if len(found[number]) > 8 and (number or any(one.state for one in found[number])):
                    begun[number].set()

        reading = asyncio.gather(read(0), read(1))
        async with asyncio.timeout(20):
            await asyncio.gather(*(one.wait() for one in begun))
        targets.append(servers.second.grpc_port)
        servers.doomed.kill()
        await servers.doomed.ended()
        await reading
    for pieces in found:
        assert "".join(piece.text for piece in pieces) == whole.text
        assert tuple(one for piece in pieces for one in piece.logprobs) == whole.logprobs
        assert sum(piece.token_count for piece in pieces) == len(whole.logprobs)
        assert (pieces[-1].usage, pieces[-1].finish_reason) == (whole.usage, whole.finish_reason)
    assert not any(piece.state for piece in found[1])
    assert servers.second.grpc_port in used

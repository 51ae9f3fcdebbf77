"""Triton gives the answers of our server. Needs the environment that `make bench-peers` builds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import client
from benchmarks.machine import choose_cores
from benchmarks.models import read_model
from benchmarks.peers import catalog
from benchmarks.peers.environment import Environment, MissingPeer, find_environment
from benchmarks.peers.load import closed_loop
from benchmarks.peers.messages import prompt_request, streamed_texts
from benchmarks.peers.repository import Tensor, TritonModel
from benchmarks.peers.triton import SHARED_MEMORY, Triton, children_of, serve_triton
from benchmarks.rows import peers_forecasts, peers_texts
from benchmarks.servers import Server, ServerEnded, serve
from seqserve.inference import grpc_service_pb2 as oip
from tests import tiny

TEXTS = [
    "good film",
    "a very bad film",
    "the",
    "not good",
    "very very very good the film the film",
    "bad",
] * 4
NUM_SERIES, DAYS = 12, 7


@pytest.fixture(scope="module")
def environment() -> Environment:
    try:
        return find_environment()
    except MissingPeer as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.export_all(folder)
    return folder


@pytest.fixture(scope="module")
def triton(environment: Environment, repository: Path) -> Iterator[Triton]:
    letters, moods, prices = (read_model(repository / name / "1") for name in ("letters", "moods", "prices"))
    models = [
        catalog.usual_texts("usual", moods),
        catalog.sorted_texts("sorted", moods, 4, 64),
        catalog.forecasts("prices", prices, 100),
        catalog.streams("letters", letters, 5),
    ]
    with serve_triton(environment, models, choose_cores().server) as running:
        yield running


@pytest.fixture(scope="module")
def ours(repository: Path) -> Iterator[Server]:
    with serve(repository, choose_cores().server) as running:
        yield running


async def answers_of(server: client.Target, requests: list[bytes]) -> list[bytes]:
    return (await closed_loop(server, client.MODEL_INFER, requests, 8, connections=2)).answers


@pytest.mark.parametrize("form", ["usual", "sorted"])
async def test_texts_get_the_same_labels_and_probabilities(triton: Triton, ours: Server, form: str) -> None:
    found = await answers_of(triton, peers_texts.requests_of(form, TEXTS, (1, 1)))
    wanted = await answers_of(ours, peers_texts.requests_of("moods", TEXTS, (1,)))
    peers_texts.check_equal(found, wanted)


async def test_series_get_the_same_forecasts_for_the_same_bytes(triton: Triton, ours: Server) -> None:
    generator = np.random.default_rng(0)
    series = np.exp(generator.normal(4, 0.02, (NUM_SERIES, DAYS, len(tiny.COLUMNS)))).astype(np.float32)
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="input", datatype="FP32", shape=[1, DAYS, len(tiny.COLUMNS)]
    )
    requests = [
        oip.ModelInferRequest(
            model_name="prices", inputs=[tensor], raw_input_contents=[one.tobytes()]
        ).SerializeToString()
        for one in series
    ]
    peers_forecasts.check_equal(await answers_of(triton, requests), await answers_of(ours, requests))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("calls", [1, 8])
async def test_streams_write_the_same_text(
    triton: Triton, ours: Server, temperature: float, calls: int
) -> None:
    prompts = ["a", "bad", "cafe", "hi", "\n", "deaf head", "g", "fed"]
    known = ["".join(one for one in prompt if one in tiny.VOCABULARY) for prompt in prompts]
    requests = [
        prompt_request("letters", prompt, number, 5 + number, temperature)
        for number, prompt in enumerate(known)
    ]
    texts = []
    for server in (triton, ours):
        async with client.connection(server) as channel:
            window = len(requests) // calls
            answers = await client.stream_windowed(
                channel, client.MODEL_STREAM_INFER, requests, calls, window
            )
        texts.append(streamed_texts(answers))
    assert texts[0] == texts[1]
    assert [len(texts[0][str(number)]) for number in range(len(requests))] == list(range(5, 13))


async def test_cpu_time_counts_the_processes_of_models(triton: Triton) -> None:
    before = triton.cpu_seconds()
    await answers_of(triton, peers_texts.requests_of("sorted", TEXTS, (1, 1)))
    assert triton.cpu_seconds() > before


def test_model_that_does_not_load_ends_the_start_with_its_log(environment: Environment) -> None:
    broken = TritonModel(
        "none", "texts", "Nothing", [Tensor("a", "FP32", [1])], [Tensor("b", "FP32", [1])], 1
    )
    with pytest.raises(ServerEnded, match="Nothing"), serve_triton(environment, [broken], 0):
        pass


def test_nothing_is_left_running_or_in_shared_memory(environment: Environment, repository: Path) -> None:
    model = catalog.forecasts("prices", read_model(repository / "prices" / "1"), 0)
    with serve_triton(environment, [model], choose_cores().server) as running:
        pid = running.pid
        stubs = children_of(pid)
        assert stubs
        assert list(SHARED_MEMORY.glob(f"{running.shared}*"))
    assert not any(Path(f"/proc/{one}").exists() for one in (pid, *stubs))
    assert not list(SHARED_MEMORY.glob(f"{running.shared}*"))

"""The servicers in a small server of their own, in this process, and a channel to it; the same for handlers
made up for tests.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from grpc import aio
from prometheus_client import CollectorRegistry

from seqserve.inference import grpc_service_pb2_grpc
from seqserve.v1 import (
    forecasting_pb2_grpc,
    models_pb2_grpc,
    sequences_pb2_grpc,
    text_classification_pb2_grpc,
    text_generation_pb2_grpc,
)
from service.api.calls import Calls
from service.api.classification import ClassificationApi
from service.api.forecasting import ForecastingApi
from service.api.generation import GenerationApi
from service.api.models import ModelsApi
from service.api.open_inference.sequence_steps import SequenceSteps
from service.api.open_inference.sequence_store import SequenceStore
from service.api.open_inference.service import OpenInferenceApi
from service.api.reflection import add_reflection
from service.api.sequences import SequencesApi
from service.engine.driver import Kind
from service.models.cards import Cards
from service.models.repository import Repository
from service.observability.metrics import Metrics
from service.security.state_tokens import Keys
from service.transport.server import Server
from tests import contract2, tiny
from tests.service.api.handlers import Bench, bench_of
from tests.service.builders import load_repository

IN_FLIGHT = 3
MAX_SERIES = 5
MAX_SEQUENCES = 8
SEQUENCE_IDLE_S = 3600.0
KEYS = Keys([b"k" * 32])
SEQUENCE_NETS = (
    contract2.ACTIVITY,
    contract2.TAGS,
    contract2.VANILLA,
    contract2.VOICE,
    contract2.TOPICS,
    contract2.WINDOWED,
    contract2.WORD_TAGS,
)


@dataclass(frozen=True)
class Running:
    """A server that answers, and what it serves from; `stopping` is not empty while it says that it stops."""

    address: str
    channel: aio.Channel
    repository: Repository
    metrics: Metrics
    stopping: list[bool]
    sequences: SequenceStore
    steps: SequenceSteps


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["thread", "loop"])
async def running(models: Path, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """The server with engines in threads of their own, and with engines in the event loop."""
    async with serving(models, request.param) as found:
        yield found


@pytest.fixture(scope="session")
def sequence_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of models of contract 2, and moods."""
    folder = tmp_path_factory.mktemp("sequences")
    for net in SEQUENCE_NETS:
        contract2.export(net, folder)
    tiny.export_classifier(folder)
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sequencing(sequence_models: Path) -> AsyncIterator[Running]:
    """The server of models of contract 2, and moods."""
    async with serving(sequence_models, "thread", slots=16, chunk=8, chunk_rows=16) as found:
        yield found


@asynccontextmanager
async def serving(folder: Path, driver: Kind, **changes: Any) -> AsyncIterator[Running]:
    """Serve the models of a folder, with engines in threads of their own or in the event loop."""
    repository = load_repository(folder, engine_driver=driver, **changes)
    table = repository.table
    metrics = Metrics(CollectorRegistry())
    server = Server([])
    calls: Any = Calls(metrics)
    text_generation_pb2_grpc.add_TextGenerationServicer_to_server(GenerationApi(table, KEYS), calls)
    text_classification_pb2_grpc.add_TextClassificationServicer_to_server(
        ClassificationApi(table, IN_FLIGHT), calls
    )
    forecasting_pb2_grpc.add_ForecastingServicer_to_server(
        ForecastingApi(table, IN_FLIGHT, MAX_SERIES, KEYS), calls
    )
    sequences_pb2_grpc.add_SequencesServicer_to_server(
        SequencesApi(table, IN_FLIGHT, MAX_SERIES, KEYS), calls
    )
    models_pb2_grpc.add_ModelsServicer_to_server(ModelsApi(repository, Cards(folder)), calls)
    stopping: list[bool] = []
    store = SequenceStore(MAX_SEQUENCES, SEQUENCE_IDLE_S, calls.held)
    sequences = SequenceSteps(store, table, metrics.sequences_forgotten)
    open_inference = OpenInferenceApi(
        table, IN_FLIGHT, lambda: not stopping, lambda: bool(stopping), sequences, SEQUENCE_IDLE_S
    )
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, calls)
    add_reflection(calls, ["seqserve.v1.TextGeneration"])
    calls.register(server)
    port = server.add_port("127.0.0.1:0", None)
    server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(f"127.0.0.1:{port}", channel, repository, metrics, stopping, store, sequences)
    await server.stop(0)
    repository.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def bench() -> AsyncIterator[Bench]:
    async with bench_of() as found:
        yield found

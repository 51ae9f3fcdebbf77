"""Fixtures: the scripted server, running, and a client of it."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from seqserve import Client
from seqserve.v1 import forecasting_pb2_grpc, models_pb2_grpc, text_classification_pb2_grpc, text_generation_pb2_grpc
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    servicer = ScriptedServer()
    running = grpc.server(futures.ThreadPoolExecutor(4))
    text_generation_pb2_grpc.add_TextGenerationServicer_to_server(servicer, running)
    text_classification_pb2_grpc.add_TextClassificationServicer_to_server(servicer, running)
    forecasting_pb2_grpc.add_ForecastingServicer_to_server(servicer, running)
    models_pb2_grpc.add_ModelsServicer_to_server(servicer, running)
    servicer.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    servicer.secure_address = f"127.0.0.1:{running.add_secure_port('127.0.0.1:0', grpc.local_server_credentials())}"
    running.start()
    yield servicer
    servicer.resume.set()
    running.stop(grace=1).wait(WAIT_S)


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.address, timeout_s=WAIT_S) as connected:
        yield connected

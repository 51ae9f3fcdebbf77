"""A repository on a volume that others use as well, on a path that is not UTF-8."""

import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from seqserve.inference import grpc_service_pb2, grpc_service_pb2_grpc
from seqserve.v1 import models_pb2, models_pb2_grpc
from tests.integration.process import ServerProcess

FAILED, READY = models_pb2.MODEL_STATUS_FAILED, models_pb2.MODEL_STATUS_READY
TOKENS = "admin boss 0123456789abcdef0123456789abcdef\n"
HEADER = (("authorization", f"Bearer {TOKENS.split()[2]}"),)
CAFE = "'caf\\udce9'"


def fill(root: bytes, letters: Path) -> None:
    """Put a good model and odd entries into a repository."""
    shutil.copytree(letters, Path(os.fsdecode(root)) / "letters")
    for name in (
        b"caf\xe9/1",
        b"my model/2",
        b"lost+found",
        b".hidden/1",
        b"new\nline/1",
        b"v/v1",
        b"pipe/1",
    ):
        os.makedirs(os.path.join(root, name))
    os.makedirs(os.path.join(root, b"socket/1"))
    os.mkfifo(os.path.join(root, b"pipe/1/model.json"))
    os.mknod(os.path.join(root, b"socket/1/model.json"), stat.S_IFSOCK | 0o600)
    os.symlink(b"loop", os.path.join(root, b"loop"))


@pytest_asyncio.fixture(scope="module")
async def server(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "tokens").write_text(TOKENS)
    root = os.fsencode(folder) + b"/d\xe9p\xf4t"
    fill(root, tiny_repository / "letters")
    settings = {"TOKENS": str(folder / "tokens"), "ENGINES": "1", "WATCH_SECONDS": "0.1"}
    async with ServerProcess(Path(os.fsdecode(root)), settings) as started:
        yield started


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    try:
        await call
    except aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_odd_entries_are_listed_as_failed_beside_what_serves(server: ServerProcess) -> None:
    async with server.channel() as channel:
        stub = models_pb2_grpc.ModelsStub(channel)
        found = (await stub.List(models_pb2.ListModelsRequest(), metadata=HEADER)).models
    assert {(one.name, one.version): one.status for one in found} == {
        (CAFE, 1): FAILED,
        ("'my model'", 2): FAILED,
        ("'new\\nline'", 1): FAILED,
        ("letters", 1): READY,
        ("pipe", 1): FAILED,
        ("socket", 1): FAILED,
    }
    reasons = {one.name: one.message for one in found}
    for kind in ("pipe", "socket"):
        assert reasons[kind] == ("model.json: expected readable UTF-8 text, found a pipe, socket or device")
    [ignored] = [one for one in server.events if one["event"] == "entries of the repository are ignored"]
    assert ignored["count"] == 5


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (CAFE, grpc.StatusCode.FAILED_PRECONDITION),
        ("café", grpc.StatusCode.NOT_FOUND),
        ("lost+found", grpc.StatusCode.NOT_FOUND),
        ("../odd", grpc.StatusCode.NOT_FOUND),
        ("x" * 10_000, grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_calls_by_odd_names_are_refused_with_a_reason(
    server: ServerProcess, name: str, code: grpc.StatusCode
) -> None:
    async with server.channel() as channel:
        models = models_pb2_grpc.ModelsStub(channel)
        open_inference = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        load = models_pb2.LoadModelRequest(model=name)
        metadata = grpc_service_pb2.ModelMetadataRequest(name=name)
        found = [
            await code_of(models.Load(load, metadata=HEADER)),
            await code_of(open_inference.ModelMetadata(metadata, metadata=HEADER)),
        ]
        unload = models_pb2.UnloadModelRequest(model=name)
        assert await code_of(models.Unload(unload, metadata=HEADER)) is grpc.StatusCode.NOT_FOUND
        ready = grpc_service_pb2.ModelReadyRequest(name=name)
        assert not (await open_inference.ModelReady(ready, metadata=HEADER)).ready
    assert found == [code, code]

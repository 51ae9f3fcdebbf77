"""service.api.models, served in this process."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from seqserve.v1 import models_pb2 as pb
from seqserve.v1.models_pb2_grpc import ModelsStub
from service.api.caller import may_administer
from service.api.models import ModelsApi
from service.errors import NotFound, NotServed, PermissionDenied
from service.models.repository import Repository
from tests.service.api.conftest import Running
from tests.service.api.rich import code_of_call
from tests.service.builders import load_repository, spec_of

NO_CONTEXT: Any = None


async def test_list_names_every_version(running: Running) -> None:
    found = await ModelsStub(running.channel).List(pb.ListModelsRequest())
    assert [(one.name, one.version, one.status) for one in found.models] == [
        (name, 1, pb.MODEL_STATUS_READY) for name in ("letters", "moods", "prices")
    ]


async def test_get_tells_what_the_spec_says(running: Running, models: Path) -> None:
    found = await ModelsStub(running.channel).Get(pb.GetModelRequest(model="letters"))
    assert (found.task, found.cell, found.layers, found.hidden) == ("text-generation", "lstm", 2, 24)
    assert (found.variant, found.provider, found.batch_invariant) == ("fp32", "CPUExecutionProvider", True)
    assert dict(found.metrics) == {"held_out_loss": 1.0}
    assert found.spec_json == (models / "letters" / "1" / "model.json").read_text()
    assert 0 <= found.golden_max_error < 1e-5


async def test_get_tells_what_was_measured_at_warm_up(running: Running) -> None:
    found = await ModelsStub(running.channel).Get(pb.GetModelRequest(model="letters"))
    assert found.slots >= found.chunk_rows >= 1
    assert found.chunk_steps >= 1
    assert found.steps_per_second > 0
    [driver] = running.repository.table.find("letters", 0, "text-generation").drivers
    assert found.driver == driver.kind


async def test_unknown_model_is_not_found(running: Running) -> None:
    assert (
        await code_of_call(ModelsStub(running.channel).Get(pb.GetModelRequest(model="none")))
        is grpc.StatusCode.NOT_FOUND
    )


@pytest.mark.parametrize("method", ["Load", "Unload"])
async def test_load_and_unload_are_off_without_admin_access(running: Running, method: str) -> None:
    make = {"Load": pb.LoadModelRequest, "Unload": pb.UnloadModelRequest}[method]
    assert (
        await code_of_call(getattr(ModelsStub(running.channel), method)(make(model="letters")))
        is grpc.StatusCode.PERMISSION_DENIED
    )


async def test_refused_version_is_listed_with_the_reason(models: Path, tmp_path: Path) -> None:
    version = shutil.copytree(models / "moods" / "1", tmp_path / "moods" / "1")
    (version / "model.onnx").write_bytes(b"spoilt")
    repository = load_repository(tmp_path)
    [found] = (await ModelsApi(repository).List(pb.ListModelsRequest(), NO_CONTEXT)).models
    assert found.status == pb.MODEL_STATUS_FAILED
    assert found.message.startswith("sha256 of model.onnx: expected")
    assert found.task == ""


@pytest.mark.parametrize("version", [2**32 - 1, 2**32, 20261124235959])
async def test_large_version_number_does_not_break_the_list(
    models: Path, tmp_path: Path, version: int
) -> None:
    """A date and time is a common version number; the interface's field has 32 bits. Serving it or refusing
    it is fine, failing the list is not.
    """
    shutil.copytree(models / "moods" / "1", tmp_path / "moods" / "1")
    shutil.copytree(models / "letters" / "1", tmp_path / "letters" / str(version))
    spec_of(tmp_path / "letters" / str(version), version=version)
    repository = load_repository(tmp_path)
    repository.stop()
    found = (await ModelsApi(repository).List(pb.ListModelsRequest(), NO_CONTEXT)).models
    assert "moods" in [one.name for one in found]


# By an administrator, without a server around it.


@pytest_asyncio.fixture
async def administered(models: Path, tmp_path: Path) -> AsyncIterator[Repository]:
    """letters 1, served from a folder of its own."""
    shutil.copytree(models / "letters" / "1", tmp_path / "letters" / "1")
    repository = load_repository(tmp_path)
    yield repository
    await asyncio.to_thread(repository.stop)


async def test_load_answers_with_the_model_that_serves(administered: Repository, tmp_path: Path) -> None:
    version = shutil.copytree(tmp_path / "letters" / "1", tmp_path / "letters" / "2")
    spec_of(version, version=2)
    may_administer.set(True)
    found = await ModelsApi(administered).Load(pb.LoadModelRequest(model="letters"), NO_CONTEXT)
    assert (found.name, found.version, found.status, found.task) == (
        "letters",
        2,
        pb.MODEL_STATUS_READY,
        "text-generation",
    )


async def test_load_of_a_bad_version_tells_the_check(administered: Repository, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "letters" / "1", tmp_path / "letters" / "2")
    may_administer.set(True)
    with pytest.raises(NotServed, match="model letters version 2 was refused: version: expected 2"):
        await ModelsApi(administered).Load(pb.LoadModelRequest(model="letters", version=2), NO_CONTEXT)


async def test_version_that_drains_is_listed_as_such(administered: Repository) -> None:
    may_administer.set(True)
    api = ModelsApi(administered)
    with administered.table.find("letters", 0, "text-generation").leases:
        unloading = asyncio.create_task(api.Unload(pb.UnloadModelRequest(model="letters"), NO_CONTEXT))
        await asyncio.sleep(0)  # it is given to the worker, which takes changes one after the other
        with pytest.raises(NotFound):
            await api.Load(pb.LoadModelRequest(model="nobody"), NO_CONTEXT)
        [found] = (await api.List(pb.ListModelsRequest(), NO_CONTEXT)).models
        assert found.status == pb.MODEL_STATUS_DRAINING
    await unloading
    assert not (await api.List(pb.ListModelsRequest(), NO_CONTEXT)).models
    with pytest.raises(NotFound):
        await api.Unload(pb.UnloadModelRequest(model="letters"), NO_CONTEXT)


@pytest.mark.parametrize(
    ("method", "request_type"), [("Load", pb.LoadModelRequest), ("Unload", pb.UnloadModelRequest)]
)
async def test_nobody_else_may(administered: Repository, method: str, request_type: Any) -> None:
    may_administer.set(False)
    with pytest.raises(PermissionDenied, match="need the right admin"):
        await getattr(ModelsApi(administered), method)(request_type(model="letters"), NO_CONTEXT)

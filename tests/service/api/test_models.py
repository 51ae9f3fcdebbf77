"""service.api.models, served in this process."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from seqserve.v1 import models_pb2 as pb
from seqserve.v1.models_pb2_grpc import ModelsStub
from service.api.caller import may_administer
from service.api.errors import status_of
from service.api.models import ModelsApi
from service.errors import AnswerTooLarge, NotFound, NotServed, PermissionDenied
from service.models.cards import Cards
from service.models.repository import Repository
from service.models.table import Entry, Status, VersionTable
from tests.service.api.conftest import Running
from tests.service.api.rich import code_of_call
from tests.service.builders import load_repository, spec_of

NO_CONTEXT: Any = None
NO_CARDS: Any = None


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


async def test_card_is_the_one_on_disk(running: Running, models: Path) -> None:
    folder = models / "letters" / "1"
    text = (folder / "README.md").read_text()
    found = await ModelsStub(running.channel).GetCard(pb.GetCardRequest(model="letters"))
    assert (found.markdown, list(found.pictures), found.version) == (text, [], 1)


async def test_card_of_an_unknown_model_is_not_found(running: Running) -> None:
    call = ModelsStub(running.channel).GetCard(pb.GetCardRequest(model="none"))
    assert await code_of_call(call) is grpc.StatusCode.NOT_FOUND


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
    [found] = (await ModelsApi(repository, NO_CARDS).List(pb.ListModelsRequest(), NO_CONTEXT)).models
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
    found = (await ModelsApi(repository, NO_CARDS).List(pb.ListModelsRequest(), NO_CONTEXT)).models
    assert "moods" in [one.name for one in found]


# Lists and models that would be larger than clients take.


@dataclass(frozen=True)
class Known:
    """A repository that knows given versions and can do nothing."""

    table: VersionTable

    async def load(self, name: str, version: int, *, allow_interface_change: bool) -> Entry:
        assert not allow_interface_change
        return self.table.get(name, version)


def api_of(*entries: Entry, max_answer_bytes: int = 10_000) -> ModelsApi:
    table = VersionTable()
    table.set(*entries)
    repository: Any = Known(table)
    return ModelsApi(repository, NO_CARDS, max_answer_bytes)


def failed(count: int, message: str = "check 'golden' failed") -> list[Entry]:
    return [Entry(f"model{index}", 1, Status.FAILED, message) for index in range(count)]


def serving(running: Running, *spec_sizes: int, metrics: int = 1) -> list[Entry]:
    """Versions of letters whose model.json has so many characters, and so many metrics."""
    found = running.repository.table.get("letters", 1)
    assert found.served is not None
    spec = found.served.spec.model_copy(update={"metrics": {f"metric{n}": 1.0 for n in range(metrics)}})
    return [
        replace(found, version=version, served=replace(found.served, spec=spec, spec_text="x" * size))
        for version, size in enumerate(spec_sizes, 1)
    ]


async def list_of(api: ModelsApi, include_spec: bool = False) -> Sequence[pb.Model]:
    response = await api.List(pb.ListModelsRequest(include_spec=include_spec), NO_CONTEXT)
    assert response.ByteSize() <= 10_000
    return response.models


async def test_list_leaves_model_json_out_unless_asked(running: Running) -> None:
    small = api_of(*serving(running, 100, 200))
    assert [one.spec_json for one in await list_of(small)] == ["", ""]
    assert [len(one.spec_json) for one in await list_of(small, include_spec=True)] == [200, 100]
    large = api_of(*serving(running, 6000, 7000))
    assert [one.task for one in await list_of(large)] == ["text-generation"] * 2
    assert (
        len((await large.Get(pb.GetModelRequest(model="letters", version=1), NO_CONTEXT)).spec_json) == 6000
    )


@pytest.mark.parametrize("sizes", [(6000, 7000), (5000, 4900)], ids=["far too large", "a little too large"])
async def test_list_with_too_large_model_json_is_refused(running: Running, sizes: tuple[int, int]) -> None:
    with pytest.raises(AnswerTooLarge, match=r"^include_spec: .*; leave it out, and ask Get"):
        await list_of(api_of(*serving(running, *sizes)), include_spec=True)


async def test_long_messages_are_cut_only_in_a_list_that_would_be_too_large() -> None:
    message = "check 'golden' failed: " + "x" * 1000
    assert {one.message for one in await list_of(api_of(*failed(5, message)))} == {message}
    [cut] = {one.message for one in await list_of(api_of(*failed(30, message)))}
    assert len(cut) == 200
    assert cut.startswith("check 'golden' failed: xxx")
    assert cut.endswith("x...")


async def test_metrics_are_left_out_of_a_list_that_would_be_too_large(running: Running) -> None:
    assert [len(one.metrics) for one in await list_of(api_of(*serving(running, 9, metrics=100)))] == [100]
    many = api_of(*serving(running, 9, 9, 9, 9, metrics=200))
    assert [len(one.metrics) for one in await list_of(many)] == [0] * 4


def labelled(running: Running, count: int, *labels: int) -> list[Entry]:
    """Versions of moods with so many labels each."""
    found = running.repository.table.get("moods", 1)
    assert found.served is not None
    assert found.served.spec.classification is not None
    entries = []
    for version, size in enumerate(labels, 1):
        section = found.served.spec.classification.model_copy(
            update={"labels": [f"label {number}" for number in range(size)]}
        )
        spec = found.served.spec.model_copy(update={"classification": section})
        served = replace(found.served, spec=spec, spec_text="x" * count)
        entries.append(replace(found, version=version, served=served))
    return entries


async def test_labels_and_layers_are_the_first_that_a_too_large_list_leaves_out(running: Running) -> None:
    [small] = await list_of(api_of(*labelled(running, 9, 100)))
    assert (len(small.labels), len(small.layer_info)) == (100, 1)
    many = await list_of(api_of(*labelled(running, 9, 500, 500)))
    assert [(len(one.labels), len(one.layer_info), len(one.metrics)) for one in many] == [(0, 0, 1)] * 2


async def test_one_version_comes_with_its_model_json_and_without_the_labels_that_stand_in_it(
    running: Running,
) -> None:
    api = api_of(*labelled(running, 8000, 500))
    found = await api.Get(pb.GetModelRequest(model="moods"), NO_CONTEXT)
    assert (len(found.spec_json), len(found.labels)) == (8000, 0)


async def test_answer_of_load_arrives_however_many_labels_there_are(running: Running) -> None:
    may_administer.set(True)
    api = api_of(*labelled(running, 20_000, 2000))
    found = await api.Load(pb.LoadModelRequest(model="moods"), NO_CONTEXT)
    assert (found.status, found.spec_json, len(found.labels)) == (pb.MODEL_STATUS_READY, "", 0)


async def test_list_of_too_many_models_is_refused() -> None:
    with pytest.raises(
        AnswerTooLarge, match=r"^request: expected .* at most 10000 bytes .*; ask Get for one"
    ):
        await list_of(api_of(*failed(500)))


@pytest.mark.parametrize(("metrics", "kept"), [(10, 10), (1000, 0)])
async def test_answer_of_load_arrives_however_large_the_model_is(
    running: Running, metrics: int, kept: int
) -> None:
    may_administer.set(True)
    api = api_of(*serving(running, 20_000, metrics=metrics))
    found = await api.Load(pb.LoadModelRequest(model="letters"), NO_CONTEXT)
    assert found.ByteSize() <= 10_000
    assert (found.status, found.spec_json, len(found.metrics)) == (pb.MODEL_STATUS_READY, "", kept)


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
    found = await ModelsApi(administered, NO_CARDS).Load(pb.LoadModelRequest(model="letters"), NO_CONTEXT)
    assert (found.name, found.version, found.status, found.task) == (
        "letters",
        2,
        pb.MODEL_STATUS_READY,
        "text-generation",
    )


async def test_load_of_a_bad_version_tells_the_check(administered: Repository, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "letters" / "1", tmp_path / "letters" / "2")
    may_administer.set(True)
    with pytest.raises(
        NotServed, match="model letters version 2 was refused: version: expected 2"
    ) as refused:
        await ModelsApi(administered, NO_CARDS).Load(
            pb.LoadModelRequest(model="letters", version=2), NO_CONTEXT
        )
    assert refused.value.metadata == {
        "check": "spec",
        "place": "version",
        "expected": "2, as the folder says",
        "found": "1",
    }


async def test_load_of_another_interface_needs_the_field_that_allows_it(
    administered: Repository, tmp_path: Path
) -> None:
    version = shutil.copytree(tmp_path / "letters" / "1", tmp_path / "letters" / "2")
    section = spec_of(version, version=2)["generation"]
    text = section["text"] | {"normalization": {"line_ends": True}}
    spec_of(version, generation=section | {"text": text})
    may_administer.set(True)
    api, request = ModelsApi(administered, NO_CARDS), pb.LoadModelRequest(model="letters")
    with pytest.raises(NotServed) as refused:
        await api.Load(request, NO_CONTEXT)
    status = status_of(refused.value)
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "normalization: expected none as version 1 serves, found line ends; load it" in status.message
    details = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(details)
    assert dict(details.metadata) == {
        "check": "interface",
        "expected": "normalization: none",
        "found": "normalization: line ends",
    }
    [failed, serving] = (await api.List(pb.ListModelsRequest(), NO_CONTEXT)).models
    assert (failed.version, failed.status) == (2, pb.MODEL_STATUS_FAILED)
    assert "normalization: expected none" in failed.message
    assert (serving.version, serving.status) == (1, pb.MODEL_STATUS_READY)
    request.allow_interface_change = True
    assert (await api.Load(request, NO_CONTEXT)).version == 2


async def test_version_that_drains_is_listed_as_such(administered: Repository) -> None:
    may_administer.set(True)
    api = ModelsApi(administered, NO_CARDS)
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
        await getattr(ModelsApi(administered, NO_CARDS), method)(request_type(model="letters"), NO_CONTEXT)


# Cards.


def cards_api(root: Path, max_answer_bytes: int) -> ModelsApi:
    table = VersionTable()
    table.set(Entry("m", 1, Status.FAILED))
    repository: Any = Known(table)
    return ModelsApi(repository, Cards(root), max_answer_bytes)


async def test_card_of_a_version_that_does_not_serve_has_its_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("![](loss.png)")
    (folder / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    found = await cards_api(tmp_path, 10_000).GetCard(pb.GetCardRequest(model="m"), NO_CONTEXT)
    assert [(one.name, len(one.png)) for one in found.pictures] == [("loss.png", 1008)]
    assert found.ByteSize() <= 10_000
    less = await cards_api(tmp_path, 3000).GetCard(pb.GetCardRequest(model="m"), NO_CONTEXT)
    assert (less.markdown, list(less.pictures)) == ("![](loss.png)", [])


async def test_card_larger_than_an_answer_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("x" * 10_000)
    with pytest.raises(AnswerTooLarge):
        await cards_api(tmp_path, 10_000).GetCard(pb.GetCardRequest(model="m"), NO_CONTEXT)

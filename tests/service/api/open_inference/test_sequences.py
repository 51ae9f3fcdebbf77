"""Sequences of the protocol's extension, served in this process: state is kept by id between requests."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio
from numpy.typing import NDArray

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.api.open_inference.sequence_parameters import SequenceMark
from service.models.table import Entry, Status
from tests.integration.tensors import infer_request, numbers
from tests.service.api.conftest import MAX_SEQUENCES, Running
from tests.service.api.rich import code_of_call, fields_of, finish, refused_with, unpack

LEAST = 7
DAY = np.array([10.0, 11.0, 9.0, 10.5, 1000.0])
DAYS = np.array([[DAY * (1 + 0.01 * day + 0.001 * day * day) for day in range(20)]], np.float32)
CUTS = [(0, LEAST), (LEAST, 8), (8, 12), (12, 20)]


@pytest.fixture(autouse=True)
def no_open_sequences(running: Running) -> Iterator[None]:
    """Every test ends what it has begun."""
    yield
    for key in list(running.sequences._open):
        running.sequences.end(key)


def stub(running: Running) -> Any:
    return GRPCInferenceServiceStub(running.channel)


def push(days: NDArray[np.float32], name: object = 7, marks: str = "", **fields: Any) -> pb.ModelInferRequest:
    """A request of a sequence with the marks that are named, as start or "start end"."""
    parameters: dict[str, Any] = {"sequence_id": name}
    parameters |= {f"sequence_{mark}": True for mark in marks.split()}
    parameters |= fields.pop("parameters", {})
    return infer_request(fields.pop("model", "prices"), {"input": days}, parameters, **fields)


def start(name: object = 7, factor: float = 1.0, **fields: Any) -> pb.ModelInferRequest:
    return push(DAYS[:, :LEAST] * np.float32(factor), name, "start", **fields)


async def whole(running: Running, days: NDArray[np.float32], **parameters: Any) -> list[Any]:
    """The outputs of one request with all days."""
    return outputs_of(await stub(running).ModelInfer(infer_request("prices", {"input": days}, parameters)))


def outputs_of(response: pb.ModelInferResponse) -> list[Any]:
    return [numbers(response, name).tolist() for name in ("value", "quantiles")]


async def unary(running: Running, requests: Sequence[pb.ModelInferRequest]) -> list[pb.ModelInferResponse]:
    return [await stub(running).ModelInfer(request) for request in requests]


async def streamed(running: Running, requests: Sequence[pb.ModelInferRequest]) -> list[pb.ModelInferResponse]:
    found = await finish(stub(running).ModelStreamInfer(iter(requests)))
    assert [one.error_message for one in found] == [""] * len(requests)
    assert all(one.infer_response.parameters["triton_final_response"].bool_param for one in found)
    return [one.infer_response for one in found]


@pytest.mark.parametrize("ask", [unary, streamed])
@pytest.mark.parametrize("name", [7, 2**63 - 1, str(2**64 - 1), "café"], ids=str)
async def test_each_step_is_answered_as_all_steps_so_far_at_once(
    running: Running, name: object, ask: Any
) -> None:
    marks = ["start", "", "", "end"]
    requests = [push(DAYS[:, a:b], name, mark) for (a, b), mark in zip(CUTS, marks, strict=True)]
    found = await ask(running, requests)
    assert [outputs_of(one) for one in found] == [await whole(running, DAYS[:, :end]) for _, end in CUTS]
    assert len(running.sequences) == 0


async def test_sequences_side_by_side_know_nothing_of_each_other(running: Running) -> None:
    factors = {1: 1.0, "a": 3.0, "b": 0.5}
    scaled = {name: DAYS * np.float32(factor) for name, factor in factors.items()}
    requests = [push(days[:, :LEAST], name, "start") for name, days in scaled.items()]
    requests += [push(days[:, at : at + 1], name) for at in range(LEAST, 10) for name, days in scaled.items()]
    found = await unary(running, requests)
    for index, days in enumerate(scaled.values()):
        expected = [await whole(running, days[:, :end]) for end in range(LEAST, 11)]
        assert [outputs_of(one) for one in found[index::3]] == expected


async def test_number_and_the_text_of_its_digits_are_one_id(running: Running) -> None:
    found = await unary(running, [start(7), push(DAYS[:, LEAST:8], "7"), push(DAYS[:, 8:12], 7.0, "end")])
    assert outputs_of(found[-1]) == await whole(running, DAYS[:, :12])


async def test_parameters_count_for_each_step(running: Running) -> None:
    requests = [start(), push(DAYS[:, LEAST:9], parameters={"horizon": 2})]
    found = await unary(running, requests)
    assert outputs_of(found[1]) == await whole(running, DAYS[:, :9], horizon=2)
    lengths = infer_request(
        "prices",
        {"input": DAYS[:, 9:14], "lengths": np.array([2], np.int32)},
        {"sequence_id": "7"},
    )
    assert outputs_of(await stub(running).ModelInfer(lengths)) == await whole(running, DAYS[:, :11])


@pytest.mark.parametrize("ask", [unary, streamed])
async def test_requests_sent_ahead_are_answered_in_order(running: Running, ask: Any) -> None:
    requests = [start(), *(push(DAYS[:, day : day + 1], id=str(day)) for day in range(LEAST, 20))]
    if ask is unary:
        found = list(await asyncio.gather(*(stub(running).ModelInfer(one) for one in requests)))
    else:
        found = await streamed(running, requests)
        assert [one.id for one in found] == ["", *map(str, range(LEAST, 20))]
    assert [outputs_of(one) for one in found] == [
        await whole(running, DAYS[:, :end]) for end in range(LEAST, 21)
    ]


@pytest.mark.parametrize("ask", [unary, streamed])
async def test_timeout_counts_while_a_request_waits_for_its_turn(running: Running, ask: Any) -> None:
    await unary(running, [start()])
    [key] = running.sequences._open
    late = push(DAYS[:, LEAST:8], parameters={"timeout": 100_000})
    async with asyncio.timeout(20):
        async with running.steps.turn(key, SequenceMark(key.id, is_start=False, is_end=False)):
            refused = asyncio.create_task(ask(running, [late]))
            while running.steps._lines[key].num_requests < 2:  # noqa: ASYNC110 -- nothing tells
                await asyncio.sleep(0)
            await asyncio.sleep(0.15)  # the time itself has to pass
        with pytest.raises((aio.AioRpcError, AssertionError), match="DEADLINE_EXCEEDED"):
            await refused
    [found] = await unary(running, [push(DAYS[:, LEAST:8])])
    assert outputs_of(found) == await whole(running, DAYS[:, :8])


async def lost(running: Running, request: pb.ModelInferRequest, reason: str) -> None:
    """The request is refused, unary and in a stream, as one of a sequence that is not open."""
    status = await refused_with(stub(running).ModelInfer(request))
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert unpack(status)["ErrorInfo"].reason == "SEQUENCE_UNKNOWN"
    assert reason in status.message
    assert status.message.endswith("; begin anew with sequence_start")
    [answer] = await finish(stub(running).ModelStreamInfer(iter([request])))
    assert answer.error_message.startswith("FAILED_PRECONDITION: sequence ")


NOT_OPEN = "it was not begun with sequence_start, has ended, or was idle for too long"


@pytest.mark.parametrize("marks", ["", "end"])
async def test_step_of_a_sequence_that_was_not_begun_is_refused(running: Running, marks: str) -> None:
    await lost(running, push(DAYS[:, :9], "never", marks), NOT_OPEN)
    assert len(running.sequences) == 0


async def test_step_after_the_end_is_refused(running: Running) -> None:
    await unary(running, [start(), push(DAYS[:, LEAST:8], marks="end")])
    await lost(running, push(DAYS[:, 8:9]), NOT_OPEN)


async def test_start_that_is_the_end_keeps_nothing(running: Running) -> None:
    [found] = await unary(running, [push(DAYS, marks="start end")])
    assert outputs_of(found) == await whole(running, DAYS)
    await lost(running, push(DAYS[:, 8:9]), NOT_OPEN)


async def test_start_of_an_open_sequence_begins_anew(running: Running) -> None:
    requests = [start(factor=3.0), push(DAYS[:, LEAST:9]), start(), push(DAYS[:, LEAST:8])]
    found = await unary(running, requests)
    assert outputs_of(found[-1]) == await whole(running, DAYS[:, :8])
    assert len(running.sequences) == 1


async def test_refused_step_leaves_its_sequence_as_it_was(running: Running) -> None:
    await unary(running, [start()])
    wrong = DAYS[:, LEAST:9].copy()
    wrong[0, 1, 3] = np.nan
    assert await fields_of(stub(running).ModelInfer(push(wrong))) == ["input[0, 1, 3]"]
    assert await fields_of(stub(running).ModelInfer(push(wrong[:, :, :4], marks="end"))) == ["input"]
    assert await fields_of(stub(running).ModelInfer(push(wrong, parameters={"horizon": 99}))) == ["horizon"]
    [found] = await unary(running, [push(DAYS[:, LEAST:8])])
    assert outputs_of(found) == await whole(running, DAYS[:, :8])


async def test_refused_start_leaves_no_sequence(running: Running) -> None:
    await unary(running, [start()])
    assert await fields_of(stub(running).ModelInfer(push(DAYS[:, :6], marks="start"))) == ["input[0]"]
    await lost(running, push(DAYS[:, LEAST:8]), NOT_OPEN)
    assert len(running.sequences) == 0


async def test_request_of_several_rows_is_refused(running: Running) -> None:
    await unary(running, [start()])
    both = np.concatenate([DAYS, DAYS])
    assert await fields_of(stub(running).ModelInfer(push(both))) == ["input"]
    assert await fields_of(stub(running).ModelInfer(push(both, "new", "start"))) == ["input"]
    assert len(running.sequences) == 1


@pytest.mark.parametrize("marks", ["start", ""])
@pytest.mark.parametrize(("model", "tensor"), [("moods", "text"), ("letters", "prompt")])
async def test_model_without_kept_state_refuses_sequences_by_name(
    running: Running, model: str, tensor: str, marks: str
) -> None:
    parameters: dict[str, Any] = {"sequence_id": "a", "sequence_start": bool(marks)}
    wrong = infer_request(model, {tensor: ["a"]}, parameters)
    assert await fields_of(stub(running).ModelInfer(wrong)) == ["sequence_id"]
    [answer] = await finish(stub(running).ModelStreamInfer(iter([wrong])))
    assert f"no state of model {model} is kept between requests" in answer.error_message
    assert len(running.sequences) == 0


async def test_start_without_an_id_is_refused(running: Running) -> None:
    assert await fields_of(stub(running).ModelInfer(push(DAYS, 0, "start"))) == ["sequence_id"]
    [found] = await unary(running, [push(DAYS, 0)])  # it belongs to no sequence
    assert outputs_of(found) == await whole(running, DAYS)


@pytest.fixture
async def other(running: Running) -> AsyncIterator[Any]:
    """The stub of another connection, which is another caller."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.insecure_channel(running.address, options=options) as channel:
        yield GRPCInferenceServiceStub(channel)


async def test_id_of_one_caller_does_not_reach_the_state_of_another(running: Running, other: Any) -> None:
    await unary(running, [start()])
    assert (await refused_with(other.ModelInfer(push(DAYS[:, LEAST:8])))).message.endswith("sequence_start")
    await other.ModelInfer(start(factor=3.0))
    await other.ModelInfer(push(DAYS[:, LEAST:9] * np.float32(3.0), marks="end"))
    [found] = await unary(running, [push(DAYS[:, LEAST:8])])
    assert outputs_of(found) == await whole(running, DAYS[:, :8])


async def test_start_beyond_the_bound_is_refused_at_once_and_others_find_room(
    running: Running, other: Any
) -> None:
    await unary(running, [start(number) for number in range(1, MAX_SEQUENCES // 2 + 1)])
    status = await refused_with(stub(running).ModelInfer(start("one more")))
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    details = unpack(status)
    assert details["ErrorInfo"].reason == "SEQUENCES_EXHAUSTED"
    assert details["RetryInfo"].retry_delay.seconds > 0
    [answer] = await finish(stub(running).ModelStreamInfer(iter([start("one more")])))
    assert answer.error_message.startswith("RESOURCE_EXHAUSTED: ")
    await other.ModelInfer(start())
    await unary(running, [start(1), push(DAYS[:, LEAST:8], 1, "end"), start("one more")])


async def test_bytes_of_a_sequence_are_those_of_its_state(running: Running) -> None:
    await unary(running, [start()])
    [sequence] = running.sequences._open.values()
    state: Any = sequence.state
    assert sequence.state_bytes == sum(row.nbytes for row in state.rows) + 8 * len(state.levels)


# Versions that come and go.


@contextmanager
def entries(running: Running, *changed: Entry) -> Iterator[None]:
    """The table with other entries meanwhile."""
    table = running.repository.table
    before = table.entry("prices", 1)
    assert before is not None
    table.set(*changed)
    try:
        yield
    finally:
        table.set(before)
        for entry in changed:
            if entry.version != 1:
                table.remove(entry)


def entry_of(running: Running, **changes: Any) -> Entry:
    served = replace(running.repository.table.find("prices", 0, "forecasting"), **changes)
    return Entry("prices", served.spec.version, Status.READY, served=served)


async def test_unloaded_version_ends_its_sequences(running: Running) -> None:
    await unary(running, [start(), start(8)])
    with entries(running, Entry("prices", 1, Status.DRAINING)):
        status = await refused_with(stub(running).ModelInfer(push(DAYS[:, LEAST:8])))
        assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert "version 1 of the model, which answered it so far, serves no more" in status.message
        [answer] = await finish(stub(running).ModelStreamInfer(iter([push(DAYS[:, LEAST:8], 8)])))
        assert answer.error_message.startswith("FAILED_PRECONDITION: sequence '8': ")
        assert len(running.sequences) == 0
        # What begins now finds no version at all.
        assert await code_of_call(stub(running).ModelInfer(start())) is grpc.StatusCode.NOT_FOUND
    await lost(running, push(DAYS[:, LEAST:8]), NOT_OPEN)


async def test_version_replaced_by_another_of_its_number_ends_its_sequences(running: Running) -> None:
    await unary(running, [start()])
    with entries(running, entry_of(running, spec_text="another")):
        await lost(running, push(DAYS[:, LEAST:8]), "version 1 of the model was replaced")
    assert len(running.sequences) == 0


async def test_version_loaded_anew_as_it_was_goes_on_with_its_sequences(running: Running) -> None:
    await unary(running, [start()])
    with entries(running, entry_of(running)):
        [found] = await unary(running, [push(DAYS[:, LEAST:8])])
    assert outputs_of(found) == await whole(running, DAYS[:, :8])


async def test_newer_version_leaves_sequences_with_the_version_that_they_began_on(running: Running) -> None:
    await unary(running, [start()])
    newer = running.repository.table.find("prices", 0, "forecasting").spec.model_copy(update={"version": 2})
    with entries(running, entry_of(running, spec=newer)):
        [old] = await unary(running, [push(DAYS[:, LEAST:8])])
        [new] = await unary(running, [start("new")])
        assert (old.model_version, new.model_version) == ("1", "2")
        # Sequences of a version that is asked for by number are others.
        await lost(running, push(DAYS[:, LEAST:8], model_version="2"), NOT_OPEN)
        await unary(running, [start(model_version="2"), push(DAYS[:, LEAST:8], model_version="2")])
        [again] = await unary(running, [push(DAYS[:, 8:9])])
        assert outputs_of(again) == await whole(running, DAYS[:, :9])


async def test_no_lease_is_held_between_requests(running: Running) -> None:
    leases = running.repository.table.find("prices", 0, "forecasting").leases
    await unary(running, [start()])
    async with asyncio.timeout(20):
        await leases.wait_until_free()
    assert len(running.sequences) == 1

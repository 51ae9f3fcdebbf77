"""Sequences through the real server: networks of every kind, in any cut, in a crowd, on another server."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc import aio

from seqserve.v1 import sequences_pb2 as pb
from service.api.held_bytes import CALL_BYTES
from service.api.sessions import SESSION_BYTES
from tests import contract2
from tests.chaos.watching import metrics
from tests.contract2_graphs import Net
from tests.integration.calls import Calls, refusal, unpacked
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import sample

KEY = "5e" * 32
COUNT = 30  # time steps of a sequence
NETS = (*contract2.CHUNK_NETS, *contract2.WHOLE_NETS)
STREAMED = [net for net in contract2.CHUNK_NETS if net.window is None]
UNSTREAMED = [net for net in NETS if net not in STREAMED]
# Of float32 sums in another order, which kernels of vanilla networks have.
TOLERANCE = 1e-6
EVERY = pb.OUTPUT_STEPS_EVERY
Two = tuple[Calls, Calls]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequences")
    for net in NETS:
        contract2.export(net, folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def processes(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """Two servers that share a key, with ticks of unlike sizes."""
    (keys := tmp_path_factory.mktemp("keys") / "keys").write_text(KEY)
    common = {"STATE_KEYS": str(keys), "ENGINES": "1", "MAX_SERIES": "64"}
    sizes = [{"SLOTS": "4", "CHUNK": "4", "CHUNK_ROWS": "4"}, {"SLOTS": "7", "CHUNK": "3", "CHUNK_ROWS": "7"}]
    async with AsyncExitStack() as stack:
        started = [ServerProcess(repository, common | one) for one in sizes]
        await asyncio.gather(*(stack.enter_async_context(one) for one in started))
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def servers(processes: list[ServerProcess]) -> AsyncIterator[Two]:
    async with processes[0].channel() as first, processes[1].channel() as second:
        yield Calls(first), Calls(second)


def inputs_of(net: Net, count: int = COUNT, seed: int = 1) -> np.ndarray[Any, Any]:
    """What a caller sends: token ids, or values that all columns take."""
    [found] = contract2.sequences_of(net, (count,), seed)
    return found if net.takes_tokens else np.abs(found) + np.float32(0.1)


def one_of(net: Net, inputs: Any, *, is_first: bool = True) -> pb.SequenceInput:
    if net.takes_tokens:
        return pb.SequenceInput(tokens=pb.TokenIds(ids=inputs.tolist()))
    initial = contract2.initial_of(net, 0) if is_first else {}
    return pb.SequenceInput(
        steps=pb.StepValues(values=inputs.ravel()),
        initial={name: pb.StepValues(values=row) for name, row in initial.items()},
    )


def values_of(outputs: Sequence[pb.SequenceOutput]) -> np.ndarray[Any, Any]:
    return np.concatenate([np.reshape(one.values, (one.steps, one.width)) for one in outputs])


async def whole(calls: Calls, net: Net, inputs: Any, **fields: Any) -> pb.SequenceOutput:
    [found] = await calls.infer([one_of(net, inputs)], net.name, raw=True, **fields)
    return found


async def pushed(calls: Calls, *messages: pb.InferStreamRequest) -> list[pb.InferStreamResponse]:
    async with asyncio.timeout(30):
        return [one async for one in calls.sequences.InferStream(iter(messages))]


def message(net: Net, start: int, stop: int, **fields: Any) -> pb.InferStreamRequest:
    one = one_of(net, inputs_of(net)[start:stop], is_first=start == 0)
    asked: dict[str, Any] = {"model": net.name, "output_steps": EVERY, "raw": True} | fields
    return pb.InferStreamRequest(input=one, **asked)


def assert_same(net: Net, found: Any, expected: Any) -> None:
    if any(layer.kind == "rnn" for layer in net.layers):
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    else:
        np.testing.assert_array_equal(found, expected)


def name_of(net: Net) -> str:
    return net.name


# One answer, however it is asked for.


@pytest.mark.parametrize("net", STREAMED, ids=name_of)
async def test_stream_in_any_cut_gives_the_outputs_of_the_whole(servers: Two, net: Net) -> None:
    first, second = servers
    expected = values_of([await whole(second, net, inputs_of(net), output_steps=EVERY)])
    for seed in range(4):
        ends = sorted({0, COUNT, *random.Random(seed).sample(range(1, COUNT), seed * 3)})
        found = await pushed(first, *(message(net, *pair) for pair in pairwise(ends)))
        assert [one.position for one in found] == ends[1:]
        assert_same(net, values_of([one.output for one in found]), expected)


@pytest.mark.parametrize("net", STREAMED, ids=name_of)
async def test_sequence_goes_on_at_another_server_from_its_sealed_state(servers: Two, net: Net) -> None:
    expected = values_of([await whole(servers[0], net, inputs_of(net), output_steps=EVERY)])
    state, outputs = b"", []
    for number, pair in enumerate(pairwise((0, 7, 8, 20, COUNT))):
        calls = servers[number % 2]
        [found] = await pushed(calls, message(net, *pair, state=state, return_state=True))
        state = found.state
        outputs.append(found.output)
    assert_same(net, values_of(outputs), expected)


@pytest.mark.parametrize("net", NETS, ids=name_of)
async def test_answer_in_a_crowd_is_that_of_the_sequence_alone(servers: Two, net: Net) -> None:
    """Each has a crowd of other lengths beside it, in the same call and in others, on the other server."""
    lengths = [1, 2, 5, 8, 8, 13, 30, 3]
    given = [inputs_of(net, count, seed) for seed, count in enumerate(lengths)]
    alone = [await whole(servers[0], net, one) for one in given]
    order = random.Random(0).sample(range(len(given)), len(given))
    calls = [servers[1].infer([one_of(net, given[place]) for place in order], net.name, raw=True)] * 1
    calls += [servers[1].infer([one_of(net, one)], net.name, raw=True) for one in given * 2]
    together, *singles = await asyncio.gather(*calls)
    for place, found in [*zip(order, together, strict=True), *enumerate(one for [one] in singles[:8])]:
        assert_same(net, values_of([found]), values_of([alone[place]]))


async def test_many_callers_with_many_sequences_each_get_their_own(servers: Two) -> None:
    net, callers, names = contract2.ACTIVITY, 12, 6

    async def call(number: int) -> list[pb.InferStreamResponse]:
        chooser = random.Random(number)
        ends = dict.fromkeys(map(str, range(names)), 0)
        messages = []
        while any(end < COUNT for end in ends.values()):
            name = chooser.choice([one for one, end in ends.items() if end < COUNT])
            start, ends[name] = ends[name], min(COUNT, ends[name] + chooser.randint(1, 12))
            messages.append(message(net, start, ends[name], id=name))
        return await pushed(servers[number % 2], *messages)

    expected = values_of([await whole(servers[0], net, inputs_of(net), output_steps=EVERY)])
    for found in await asyncio.gather(*map(call, range(callers))):
        for name in map(str, range(names)):
            own = [one.output for one in found if one.id == name]
            np.testing.assert_array_equal(values_of(own), expected)


async def test_sequence_survives_the_end_of_its_server_by_force(servers: Two, tmp_path: Path) -> None:
    net, repository = contract2.TAGS, tmp_path / "exported"
    contract2.export(net, repository)
    (tmp_path / "keys").write_text(KEY)
    expected = values_of([await whole(servers[0], net, inputs_of(net), output_steps=EVERY)])
    async with ServerProcess(repository, {"STATE_KEYS": str(tmp_path / "keys")}) as dying:
        async with dying.channel() as channel:
            call = Calls(channel).sequences.InferStream()
            await call.write(message(net, 0, 11, return_state=True))
            before = await call.read()
            await call.write(message(net, 11, 12, return_state=True))
            dying.kill()
            with suppress(aio.AioRpcError, asyncio.CancelledError):
                later = await call.read()
                before = before if later is aio.EOF else later
        await dying.ended()
    outputs = [before.output]
    if before.position == 12:  # the answer came before the end
        outputs = [(await pushed(servers[0], message(net, 0, 12)))[0].output]
    [rest] = await pushed(servers[1], message(net, before.position, COUNT, state=before.state))
    np.testing.assert_array_equal(values_of([*outputs, rest.output]), expected)


# What is refused.


@pytest.mark.parametrize("net", UNSTREAMED, ids=name_of)
async def test_model_that_needs_whole_sequences_takes_no_stream(servers: Two, net: Net) -> None:
    [found] = await pushed(servers[0], message(net, 0, 3))
    kind, violations, _ = unpacked(found.error)
    assert (kind, set(violations)) == ("INVALID_ARGUMENT", {"model"})
    assert "send them to Infer" in violations["model"]


@pytest.mark.parametrize("net", [contract2.POOLED, contract2.EQUAL], ids=name_of)
async def test_model_with_one_output_a_sequence_has_none_for_every_step(servers: Two, net: Net) -> None:
    found = await refusal(servers[0].infer([one_of(net, inputs_of(net))], net.name, output_steps=EVERY))
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert found.violations == {
        "output_steps": (
            f"expected the last step for {net.name}, which has one output a sequence, found every step"
        )
    }


async def test_init_graph_needs_its_inputs_at_the_start_alone(servers: Two) -> None:
    net = contract2.BEGUN
    without = pb.SequenceInput(steps=pb.StepValues(values=[1, 2]))
    found = await refusal(servers[0].infer([without], net.name))
    assert "(image, speaker)" in found.violations["inputs[0].initial"]
    start = message(net, 0, 2, return_state=True)
    again = pb.InferStreamRequest(input=start.input)
    _, second = await pushed(servers[0], start, again)
    assert set(unpacked(second.error)[1]) == {"input.initial"}


# What operators see.


async def test_calls_are_counted_by_method(processes: list[ServerProcess], servers: Two) -> None:
    async def count(method: str) -> float:
        name = f'seqserve_requests_total{{code="OK",method="/seqserve.v1.Sequences/{method}"}}'
        return await sample(processes[0], name)

    net = contract2.ACTIVITY
    await whole(servers[0], net, inputs_of(net))
    await pushed(servers[0], message(net, 0, 1))
    before = [await count(method) for method in ("Infer", "InferStream")]
    await whole(servers[0], net, inputs_of(net))
    await pushed(servers[0], message(net, 0, 1))
    assert [await count(method) for method in ("Infer", "InferStream")] == [one + 1 for one in before]


async def test_open_sequences_are_held_until_their_end(processes: list[ServerProcess], servers: Two) -> None:
    net, count = contract2.ACTIVITY, 50

    async def held() -> float:
        return float((await metrics(processes[0]))["seqserve_held_bytes"])

    call = servers[0].sequences.InferStream()
    sizes = []
    for fields in ({}, {"end": True}):
        for number in range(count):
            await call.write(message(net, 0, 1, id=str(number), **fields))
            assert not (await call.read()).HasField("error")
        sizes.append(await held())
    await call.done_writing()
    assert sizes[0] >= CALL_BYTES + count * SESSION_BYTES
    assert sizes[1] <= sizes[0] - count * SESSION_BYTES

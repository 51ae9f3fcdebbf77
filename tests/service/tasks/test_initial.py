"""service.tasks.initial."""

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.contract.spec import InitGraph, Network, SourceSpec, State, TokenInput
from service.engine.request import ANYONE, Caller
from service.errors import DeadlineExceeded, InvalidArgument, ModelFailure, Overloaded, ServiceError
from service.tasks.initial import FirstState, Init
from service.tasks.inline_time import InlineTime
from service.tasks.pending import Pending
from service.tasks.sequence_inputs import SequenceInput
from service.tasks.source import SourceReader
from service.tasks.text_work import TextWork
from service.tasks.workers import Workers
from tests.service.builders import LIMITS

INIT = InitGraph.model_validate(
    {"file": "init.onnx", "inputs": [{"name": "image", "size": 3}, {"name": "speaker", "size": 2}]}
)
STATES = (
    State(input="h", output="h.next", size=3),
    State(input="c", output="c.next", size=2, start=[0.5, -0.5]),
    State(input="g", output="g.next", size=2, start=0.25),
)
FIELD = "inputs[0].initial"


class Doubling:
    """An init graph that computes the first state alone: twice the image."""

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        assert {name: one.shape for name, one in inputs.items()} == {"image": (1, 3), "speaker": (1, 2)}
        return {"h": 2 * inputs["image"]}


def given(**initial: list[float]) -> dict[str, NDArray[np.float32]]:
    return {name: np.array(values, np.float32) for name, values in initial.items()}


def first(init: bool) -> FirstState:
    network = Network("chunk", (), STATES, INIT if init else None)
    return FirstState(network, Doubling() if init else None, Workers(1))


async def refusal(initial: Any, init: bool = True) -> tuple[str, str]:
    with pytest.raises(InvalidArgument) as refused:
        await first(init).row(initial, FIELD, ANYONE)
    [violation] = refused.value.violations
    return violation.field, violation.description


async def test_states_are_those_of_the_graph_and_else_constant() -> None:
    row = await first(init=True).row(given(image=[1, 2, 3], speaker=[0, 0]), FIELD, ANYONE)
    assert row is not None
    assert [one.tolist() for one in row] == [[2, 4, 6], [0.5, -0.5], [0.25, 0.25]]
    assert all(one.dtype == np.float32 for one in row)


async def test_without_a_graph_the_engine_starts_with_its_constants() -> None:
    assert await first(init=False).row({}, FIELD, ANYONE) is None


@pytest.mark.parametrize("names", [[], ["image"], ["image", "speaker", "other"], ["other"]])
async def test_inputs_of_other_names_are_refused_with_both(names: list[str]) -> None:
    field, text = await refusal(given(**{name: [1.0] for name in names}))
    found = ", ".join(map(repr, names)) or "none"
    assert (field, text) == (
        FIELD,
        f"expected the inputs of the init graph (image, speaker), found {found}",
    )


async def test_inputs_for_a_model_without_a_graph_are_refused() -> None:
    _, text = await refusal(given(image=[1.0]), init=False)
    assert "none, since the model has no init graph" in text


async def test_many_strange_names_are_shown_briefly() -> None:
    _, text = await refusal(given(**{"n" * 10_000 + str(index): [1.0] for index in range(60)}))
    assert len(text) < 2500


async def test_input_of_another_size_is_refused() -> None:
    assert await refusal(given(image=[1, 2], speaker=[0, 0])) == (
        f"{FIELD}[image].values",
        "expected 3 values, found 2",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_input_that_is_not_finite_is_refused_with_its_place(value: float) -> None:
    found = await refusal(given(image=[1, 2, value], speaker=[0, 0]))
    assert found == (f"{FIELD}[image].values[2]", f"expected a finite number, found {value}")


async def test_failure_of_the_graph_ends_the_request() -> None:
    class Failing:
        def run(self, _: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
            raise ServiceError("failed")

    task = FirstState(Network("chunk", (), STATES, INIT), Failing(), Workers(1))
    with pytest.raises(ServiceError, match="failed"):
        await task.row(given(image=[1, 2, 3], speaker=[0, 0]), FIELD, ANYONE)


@pytest.mark.parametrize("state", [[[np.inf, 0, 0]], [[np.nan, 0, 0]], [[1.0]]])
async def test_state_that_no_sequence_can_begin_with_is_the_failure_of_the_graph(state: Any) -> None:
    class Wrong:
        def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:  # noqa: ARG002
            return {"h": np.array(state, np.float32)}

    begin = FirstState(Network("chunk", (), STATES, INIT), Wrong(), Workers(1))
    with pytest.raises(ModelFailure, match="must give 1 x 3 finite numbers for h"):
        await begin.row(given(image=[1, 2, 3], speaker=[0, 0]), FIELD, ANYONE)


class Encoding:
    """An init graph that is an encoder: the state is the sum of what it reads."""

    def __init__(self) -> None:
        self.read: list[Mapping[str, NDArray[Any]]] = []

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        self.read.append(inputs)
        return {"h": np.full((1, 3), inputs["source"].sum(), np.float32)}


SOURCE = SourceSpec(input=TokenInput(kind="tokens", size=9), max_steps=5)
READER = SourceReader("model", SOURCE, None, 5, LIMITS, TextWork(Workers(1), InlineTime()))


def encoding(graph: Init, max_pending: int = 8) -> FirstState:
    init = InitGraph(file="init.onnx", source=SOURCE)
    pending = Pending("model", max_pending)
    return FirstState(Network("chunk", (), STATES, init), graph, Workers(1), READER, pending)


def source(*ids: int) -> SequenceInput:
    return SequenceInput(None, np.array(ids, np.int64), None, {})


async def test_encoder_reads_the_source_as_one_row() -> None:
    graph = Encoding()
    row = await encoding(graph).row({}, "initial", ANYONE, source(3, 1, 4))
    assert row is not None
    assert [one.tolist() for one in row] == [[8, 8, 8], [0.5, -0.5], [0.25, 0.25]]
    [inputs] = graph.read
    assert inputs.keys() == {"source"}
    assert (str(inputs["source"].dtype), inputs["source"].tolist()) == ("int64", [[3, 1, 4]])


async def test_encoder_without_a_source_is_not_run() -> None:
    graph = Encoding()
    with pytest.raises(InvalidArgument, match="source: expected tokens"):
        await encoding(graph).row({}, "initial", ANYONE)
    assert not graph.read


@pytest.mark.parametrize("init", [False, True])
async def test_source_for_a_model_without_an_encoder_is_refused(init: bool) -> None:
    initial = given(image=[1, 2, 3], speaker=[0, 0]) if init else {}
    with pytest.raises(InvalidArgument, match="source: expected none, since the model has no encoder"):
        await first(init).row(initial, "initial", ANYONE, source(1))


async def test_encoder_is_not_run_after_the_deadline() -> None:
    graph = Encoding()
    with pytest.raises(DeadlineExceeded):
        await encoding(graph).row({}, "initial", Caller(deadline=time.monotonic() - 1), source(1))
    assert not graph.read


class Held(Encoding):
    """An encoder that does not end before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.end = threading.Event()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        assert self.end.wait(20)
        return super().run(inputs)


async def test_sources_beyond_the_bound_are_refused_at_once_and_a_client_with_none_is_not() -> None:
    graph = Held()
    begin, one, other = encoding(graph, max_pending=3), Caller(client="one"), Caller(client="other")
    try:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(begin.row({}, "initial", one, source(1))) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="at most 3 sources that wait for its encoder, found 3 and"):
                await begin.row({}, "initial", one, source(2))
            waiting.append(group.create_task(begin.row({}, "initial", other, source(3))))
            await asyncio.sleep(0)
            graph.end.set()
    finally:
        graph.end.set()
    assert all(task.result() is not None for task in waiting)
    assert await begin.row({}, "initial", one, source(4)) is not None

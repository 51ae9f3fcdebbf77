"""service.tasks.generation from a first state that an init graph computes, on the fake cell."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from service.contract import spec
from service.contract.network import InitGraph, NamedWidth, Network, State
from service.engine.request import ANYONE, Final, Goal, Request, StateRow
from service.engine.streaming import Submitter, run_one
from service.errors import InvalidArgument
from service.tasks.generation import GenerationOptions, GenerationTask
from service.tasks.initial import FirstState, Start
from service.tasks.states import TextState
from service.tasks.workers import Workers
from tests.service.builders import generation_task
from tests.service.engine.fakes import running_engine

CHARACTERS = "abcdefg"
SPEC = spec.Generation(
    text=spec.Characters(kind="characters", vocabulary=CHARACTERS), start_token=2, max_tokens=10
)
IMAGE = np.array([0.5, -1, 2], np.float32)
WORKERS = Workers(1)


class Init:
    """An init graph that gives one row, whatever it gets, and keeps what it got."""

    def __init__(self, rows: StateRow) -> None:
        self.rows = rows
        self.inputs: list[Mapping[str, NDArray[np.float32]]] = []

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        self.inputs.append(inputs)
        return {f"state{index}": row[None] for index, row in enumerate(self.rows)}


def task_of(engine: Submitter, init: Init) -> GenerationTask:
    states = tuple(
        State(input=f"state{index}", output=f"state{index}.next", size=len(row))
        for index, row in enumerate(init.rows)
    )
    graph = InitGraph(file="init.onnx", inputs=[NamedWidth(name="image", size=len(IMAGE))])
    first = FirstState(Network("chunk", (), states, graph), init, WORKERS)
    return generation_task("letters", SPEC, engine, first=first)


async def row_after(engine: Submitter, text: str) -> StateRow:
    tokens = np.array([CHARACTERS.index(one) for one in text])
    final: Final = await run_one(engine, Request(tokens, Goal.LAST, keeps_state=True), ANYONE)
    return final.state


async def text_of(task: GenerationTask, options: GenerationOptions) -> str:
    return "".join([piece.text async for piece in task.generate(options, ANYONE)])


async def test_text_goes_on_from_the_state_that_the_init_graph_gives() -> None:
    async with running_engine() as engine:
        init = Init(await row_after(engine, "abc"))
        found = await text_of(
            task_of(engine, init), GenerationOptions("de", temperature=0, start=Start({"image": IMAGE}))
        )
        whole = await text_of(
            generation_task("letters", SPEC, engine), GenerationOptions("abcde", temperature=0)
        )
        other = await text_of(
            generation_task("letters", SPEC, engine), GenerationOptions("de", temperature=0)
        )
    assert found == whole != other
    assert [one["image"].tolist() for one in init.inputs] == [[IMAGE.tolist()]]


async def test_a_generation_that_broke_off_goes_on_from_its_text_and_the_same_inputs() -> None:
    async with running_engine() as engine:
        task = task_of(engine, Init(await row_after(engine, "abc")))
        options = {"prompt": "de", "seed": 5, "start": Start({"image": IMAGE})}
        whole = await text_of(task, GenerationOptions(**options))  # type: ignore[arg-type]
        rest = await text_of(task, GenerationOptions(**options, generated=whole[:4]))  # type: ignore[arg-type]
    assert whole[:4] + rest == whole


async def test_a_kept_state_goes_on_without_them() -> None:
    async with running_engine() as engine:
        task = task_of(engine, Init(await row_after(engine, "abc")))
        first = GenerationOptions("de", 4, seed=5, wants_state=True, start=Start({"image": IMAGE}))
        pieces = [piece async for piece in task.generate(first, ANYONE)]
        state = pieces[-1].state
        assert state is not None
        rest = await text_of(task, GenerationOptions("", 6, state=state))
        whole = await text_of(task, GenerationOptions("de", seed=5, start=Start({"image": IMAGE})))
        assert "".join(piece.text for piece in pieces) + rest == whole
        with pytest.raises(InvalidArgument, match="initial: expected none beside a state, found both"):
            await text_of(task, GenerationOptions("", state=state, start=Start({"image": IMAGE})))
    assert isinstance(state, TextState)


@pytest.mark.parametrize(
    ("initial", "text"),
    [
        ({}, r"initial: expected the inputs of the init graph \(image\), found none"),
        ({"picture": IMAGE}, r"initial: expected the inputs of the init graph \(image\), found 'picture'"),
        ({"image": IMAGE[:2]}, r"initial\[image\]\.values: expected 3 values, found 2"),
    ],
)
async def test_wrong_inputs_are_refused(initial: dict[str, NDArray[np.float32]], text: str) -> None:
    async with running_engine() as engine:
        task = task_of(engine, Init(await row_after(engine, "a")))
        with pytest.raises(InvalidArgument, match=text):
            await text_of(task, GenerationOptions("a", start=Start(initial)))


async def test_inputs_for_a_model_without_init_graph_are_refused() -> None:
    async with running_engine() as engine:
        with pytest.raises(InvalidArgument, match="none, since the model has no init graph"):
            await text_of(
                generation_task("letters", SPEC, engine),
                GenerationOptions("a", start=Start({"image": IMAGE})),
            )


async def test_texts_alone_are_not_scored() -> None:
    async with running_engine() as engine:
        task = task_of(engine, Init(await row_after(engine, "a")))
        with pytest.raises(InvalidArgument, match="found one that computes it from image"):
            await task.encode_texts(["abc"], ANYONE)

"""Sequences through both clients: what is sent and what comes back, whole and in streams."""

import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest

from seqserve import (
    AsyncClient,
    Client,
    ClientClosed,
    InvalidArgument,
    Retry,
    SequenceOutput,
    TextSpan,
    Unavailable,
    WrongType,
    WrongValue,
)
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import sequences_pb2 as sequences
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer
from tests.seqserve.test_continuation import FULL, LOST, QUICK, RESET

Script = Callable[[Any], Awaitable[None]]
Ask = Callable[..., Awaitable[Any]]
Follow = Callable[..., Awaitable[None]]


class _Awaited:
    """A blocking stream whose methods are awaited, so that one script serves both clients."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **fields: Any) -> Any:
            return getattr(self._stream, name)(*arguments, **fields)

        return call


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, server: ScriptedServer) -> Ask:
    """Calls `infer` of the client under test."""

    async def sync(*arguments: Any, **options: Any) -> Any:
        with Client(server.address, timeout_s=WAIT_S, retry=QUICK) as client:
            return client.infer(*arguments, **options)

    async def aio(*arguments: Any, **options: Any) -> Any:
        async with AsyncClient(server.address, timeout_s=WAIT_S, retry=QUICK) as client:
            return await client.infer(*arguments, **options)

    return sync if request.param == "sync" else aio


@pytest.fixture(params=["sync", "aio"])
def follow(request: pytest.FixtureRequest, server: ScriptedServer) -> Follow:
    """Opens a stream of the client under test, with options, and hands it to a script."""

    async def sync(script: Script, *, retry: Retry | None = QUICK, **options: Any) -> None:
        with (
            Client(server.address, retry=retry) as client,
            client.infer_stream(**{"model": "activity"} | options) as stream,
        ):
            await script(_Awaited(stream))

    async def aio(script: Script, *, retry: Retry | None = QUICK, **options: Any) -> None:
        async with (
            AsyncClient(server.address, retry=retry) as client,
            client.infer_stream(**{"model": "activity"} | options) as stream,
        ):
            await script(stream)

    return sync if request.param == "sync" else aio


async def test_options_are_sent_and_outputs_come_typed(ask: Ask, server: ScriptedServer) -> None:
    first, second = await ask(
        ["to be or", [[1.0, 9.0], [7.0, 9.0]]], model="tagger", version=2, every=True, raw=True
    )
    assert server.requests == [
        sequences.InferRequest(
            model="tagger",
            version=2,
            inputs=[
                sequences.SequenceInput(text="to be or"),
                sequences.SequenceInput(steps=sequences.StepValues(features=2, values=[1, 9, 7, 9])),
            ],
            output_steps=sequences.OUTPUT_STEPS_EVERY,
            raw=True,
        )
    ]
    assert (first.labels, first.spans) == (("small",) * 3, (TextSpan(0, 2), TextSpan(3, 5), TextSpan(6, 8)))
    assert (second.steps, second.width, second.label, second.version) == (2, 1, "big", 4)
    assert second.values.dtype == np.float32
    assert second.values.tolist() == second.value_rows == [[1.0], [7.0]]
    assert second.probabilities.tolist() == second.probability_rows == [[0.25, 0.75], [0.75, 0.25]]
    assert not second.values.flags.writeable


@pytest.mark.parametrize(
    ("every", "sent"),
    [
        (None, sequences.OUTPUT_STEPS_UNSPECIFIED),
        (False, sequences.OUTPUT_STEPS_LAST),
        (np.bool_(True), sequences.OUTPUT_STEPS_EVERY),
    ],
    ids=str,
)
async def test_steps_are_the_models_unless_named(
    ask: Ask, server: ScriptedServer, every: Any, sent: int
) -> None:
    await ask("to be", model="tagger", every=every)
    assert [request.output_steps for request in server.requests] == [sent]  # type: ignore[attr-defined]


async def test_tables_are_matched_to_the_features_of_the_model(ask: Ask, server: ScriptedServer) -> None:
    server.models.models.add(
        name="activity", version=3, features=[models.FeatureInfo(name="ax"), models.FeatureInfo(name="ay")]
    )
    await ask(pd.DataFrame({"ay": [2.0, 4.0], "ax": [1.0, 3.0]}), model="activity")
    request = server.calls[-1]
    assert request == sequences.InferRequest(
        model="activity",
        version=3,
        inputs=[sequences.SequenceInput(steps=sequences.StepValues(features=2, values=[1, 2, 3, 4]))],
    )


async def test_a_refusal_of_the_server_names_the_sequence(ask: Ask) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await ask(["to be", " "], model="tagger")
    assert caught.value.violations[0].field == "inputs[1]"


async def test_a_lost_call_is_tried_again(ask: Ask, server: ScriptedServer) -> None:
    server.breaks.append((0, LOST))
    assert len(await ask("to be", model="tagger")) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", None), ("version", -1), ("every", 1), ("every", "last"), ("raw", None), ("timeout_s", 0)],
    ids=str,
)
async def test_wrong_options_are_refused_by_name(
    ask: Ask, server: ScriptedServer, field: str, value: object
) -> None:
    with pytest.raises((WrongType, WrongValue), match=rf"^{field}: expected"):
        await ask("to be", **{"model": "tagger"} | {field: value})
    assert server.requests == []


async def test_outputs_are_tables(ask: Ask) -> None:
    outputs = await ask(["to understand"], model="tagger", every=True)
    frame = outputs[0].to_frame()
    assert frame.columns.tolist() == ["step", "start", "end", "label", "probability 0", "probability 1"]
    assert frame["label"].tolist() == ["small", "big"]
    assert outputs.to_frame()["sequence"].tolist() == [0, 0]
    assert repr(outputs) == "[SequenceOutput(steps=2, labels='small, big')]"


async def test_outputs_compare_and_travel(ask: Ask) -> None:
    once, again = [(await ask([[1.5, 2]], model="numbers"))[0] for _ in range(2)]
    assert once == again == pickle.loads(pickle.dumps(once))  # noqa: S301 - written here
    assert hash(once) == hash(again)
    other = (await ask([[1.5, 3]], model="numbers"))[0]
    assert once != other


async def test_options_are_sent_with_the_first_push_of_a_sequence_alone(
    follow: Follow, server: ScriptedServer
) -> None:
    async def script(stream: Any) -> None:
        for step in range(2):
            for name in ("a", "b"):
                output = await stream.push([[step, 0.0]], sequence_id=name)
                assert (output.value_rows, output.position, output.state) == ([[step]], step + 1, b"")

    await follow(script, version=2, every=True, raw=True, retry=None)
    first = {"model": "activity", "version": 2, "output_steps": sequences.OUTPUT_STEPS_EVERY, "raw": True}
    assert [_without_input(request) for request in server.requests] == [
        sequences.InferStreamRequest(id=name, **(first if step == 0 else {}))  # type: ignore[arg-type]
        for step in range(2)
        for name in ("a", "b")
    ]


async def test_sequences_go_on_from_their_last_states(follow: Follow, server: ScriptedServer) -> None:
    server.breaks.extend([(3, LOST), (0, LOST), (1, RESET)])

    async def script(stream: Any) -> None:
        for value in range(1, 5):
            for name in "ab":
                output = await stream.push([[value]], sequence_id=name, return_state=value == 4)
                assert (output.value_rows, output.position) == ([[value]], value)
                assert output.state == (b"1;2;3;4;" if value == 4 else b"")

    await follow(script, model="numbers")
    first = [request for request in server.requests if request.model]  # type: ignore[attr-defined]
    assert [(each.id, each.version, each.state) for each in first] == [  # type: ignore[attr-defined]
        ("a", 0, b""),
        ("b", 0, b""),
        ("b", 4, b"1;"),
        ("b", 4, b"1;"),
        ("a", 4, b"1;2;"),
        ("a", 4, b"1;2;"),
        ("b", 4, b"1;2;"),
    ]


@pytest.mark.parametrize("broken", [0, 3, 5, 70], ids=lambda each: f"break at message {each}")
async def test_many_sequences_go_side_by_side_over_broken_calls(
    follow: Follow, server: ScriptedServer, broken: int
) -> None:
    server.breaks.extend([(broken, LOST)])
    names = [f"s{number}" for number in range(40)]

    async def script(stream: Any) -> None:
        for value in range(1, 4):
            answers = await stream.push_all({name: [[value]] for name in names}, return_state=True)
            assert [answer.id for answer in answers] == names
            states = b"".join(b"%d;" % each for each in range(1, value + 1))
            assert {(answer.output.state, answer.output.position) for answer in answers} == {(states, value)}

    await follow(script, model="numbers")


async def test_a_message_that_fails_has_an_answer_of_its_own(follow: Follow) -> None:
    async def script(stream: Any) -> None:
        good, bad = await stream.push_all({"good": "to understand", "bad": " "})
        assert (good.output.label, good.error) == ("big", None)
        assert bad.output is None
        assert isinstance(bad.error, InvalidArgument)
        with pytest.raises(InvalidArgument, match="found none"):
            await stream.push(" ", sequence_id="bad")
        assert (await stream.push("to", sequence_id="bad")).position == 1

    await follow(script)


async def test_overload_in_a_message_is_waited_for(follow: Follow, server: ScriptedServer) -> None:
    async def script(stream: Any) -> None:
        server.breaks.append((0, FULL))
        assert (await stream.push([[1.0]])).position == 1

    await follow(script)


async def test_without_retries_a_lost_call_closes_the_stream(follow: Follow, server: ScriptedServer) -> None:
    async def script(stream: Any) -> None:
        await stream.push([[1.0]])
        server.failure = LOST
        with pytest.raises(Unavailable):
            await stream.push([[2.0]])
        with pytest.raises(ClientClosed, match="the stream is closed"):
            await stream.push([[3.0]])

    await follow(script, retry=None)


async def test_an_ended_sequence_begins_anew(follow: Follow, server: ScriptedServer) -> None:
    async def script(stream: Any) -> None:
        await stream.push([[1.0]], sequence_id="a")
        assert (await stream.push([[2.0]], sequence_id="a", end=True)).position == 2
        assert (await stream.push([[3.0]], sequence_id="a")).position == 1
        await stream.end("a")
        await stream.end("unknown")
        assert (await stream.push([[4.0]], sequence_id="a")).position == 1

    await follow(script)
    assert [bool(request.model) for request in server.requests] == [True, False, True, False, True]  # type: ignore[attr-defined]


async def test_a_state_and_initial_rows_begin_a_sequence(follow: Follow, server: ScriptedServer) -> None:
    async def script(stream: Any) -> None:
        output = await stream.push([[3.0]], state=b"1;2;", return_state=True)
        assert (output.state, output.position) == (b"1;2;3;", 3)
        await stream.push("ab", sequence_id="caption", initial={"image": np.array([1.0, 2.0])})

    await follow(script)
    assert server.requests[-1].input.initial["image"].values == [1.0, 2.0]  # type: ignore[attr-defined]


async def test_a_table_pushed_to_a_sequence_keeps_its_version(follow: Follow, server: ScriptedServer) -> None:
    server.models.models.add(name="activity", version=4, features=[models.FeatureInfo(name="ax")])

    async def script(stream: Any) -> None:
        for step in range(2):
            await stream.push([{"ax": float(step)}])

    await follow(script)
    asked = [each.version for each in server.requests if isinstance(each, models.GetModelRequest)]
    assert asked == [0, 4]


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("push", {"steps": None}, "steps"),
        ("push", {"steps": [[1.0]], "sequence_id": 5}, "sequence_id"),
        ("push", {"steps": [[1.0]], "state": "sealed"}, "state"),
        ("push", {"steps": [[1.0]], "return_state": 1}, "return_state"),
        ("push", {"steps": [[1.0]], "end": None}, "end"),
        ("push", {"steps": [[1.0]], "initial": {"a": None}}, "initial[a]"),
        ("push_all", {"inputs": [[1.0]]}, "inputs"),
        ("push_all", {"inputs": {}}, "inputs"),
        ("push_all", {"inputs": {"a": [[1.0]], "b": None}}, "inputs['b']"),
    ],
    ids=str,
)
async def test_wrong_arguments_of_a_push_leave_the_stream_open(
    follow: Follow, server: ScriptedServer, name: str, arguments: dict[str, Any], field: str
) -> None:
    async def script(stream: Any) -> None:
        with pytest.raises((WrongType, WrongValue)) as caught:
            await getattr(stream, name)(**arguments)
        assert caught.value.violations[0].field == field
        assert (await stream.push([[1.0]])).position == 1

    await follow(script)
    assert len(server.requests) == 1


def test_numpy_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    (output,) = client.infer([[1.5, 2.5]], model="numbers")
    monkeypatch.setitem(__import__("sys").modules, "numpy", None)
    with pytest.raises(ImportError, match="need the package numpy"):
        _ = output.values
    assert output.value_rows == [[2.5]]


def test_an_answer_that_belongs_to_no_message_closes_the_stream(
    client: Client, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = server._stepped

    def elsewhere(*arguments: Any) -> sequences.InferStreamResponse:
        answer = original(*arguments)
        answer.id = "other"
        return answer

    monkeypatch.setattr(server, "_stepped", elsewhere)
    with client.infer_stream(model="numbers") as stream:
        with pytest.raises(Exception, match="belongs to no message") as caught:
            stream.push([[1.0]])
        assert caught.value.code is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]
        with pytest.raises(ClientClosed):
            stream.push([[1.0]])


def test_rows_without_width_are_empty() -> None:
    from array import array  # noqa: PLC0415

    empty = SequenceOutput(0, 0, (), (), array("f"), array("f"))
    assert (empty.value_rows, empty.values.shape, empty.label) == ([], (0, 0), "")


def _without_input(request: Any) -> Any:
    request.ClearField("input")
    return request

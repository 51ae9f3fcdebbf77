"""service.api.forecast_stream, served in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve.v1 import forecasting_pb2 as pb
from seqserve.v1.forecasting_pb2_grpc import ForecastingStub
from tests.service.api.conftest import IN_FLIGHT, MAX_SERIES, Running
from tests.service.api.rich import fields_of, finish, unpack

MODEL = "prices"
LEAST = 7
PATIENCE_S = 20.0

Days = list[list[float]]


def days(count: int, factor: float = 1.0) -> Days:
    """A series whose every day differs."""
    return [
        [value * factor * (1 + 0.01 * day + 0.001 * day * day) for value in (10.0, 11.0, 9.0, 10.5, 1000.0)]
        for day in range(count)
    ]


def push(observed: Days, name: str = "", **fields: Any) -> pb.ForecastStreamRequest:
    return pb.ForecastStreamRequest(
        observations=[pb.Observation(values=values) for values in observed], id=name, **fields
    )


def first(observed: Days, name: str = "", **fields: Any) -> pb.ForecastStreamRequest:
    return push(observed, name, **{"model": MODEL} | fields)


async def answers(
    running: Running, requests: Iterable[pb.ForecastStreamRequest]
) -> list[pb.ForecastStreamResponse]:
    async with asyncio.timeout(PATIENCE_S):
        return list(await finish(ForecastingStub(running.channel).ForecastStream(iter(list(requests)))))


async def unary(running: Running, observed: Days, **fields: Any) -> pb.Forecast:
    series = pb.Series(observations=[pb.Observation(values=values) for values in observed])
    response = await ForecastingStub(running.channel).Forecast(
        pb.ForecastRequest(model=MODEL, series=[series], **fields)
    )
    return response.forecasts[0]


def code(response: pb.ForecastStreamResponse) -> grpc.StatusCode:
    return next(one for one in grpc.StatusCode if one.value[0] == response.error.code)


def field_of(response: pb.ForecastStreamResponse) -> str:
    """The field that an answer's error names."""
    assert code(response) is grpc.StatusCode.INVALID_ARGUMENT, response.error
    assert not response.HasField("forecast")
    [violation] = unpack(response.error)["BadRequest"].field_violations
    return str(violation.field)


# Forecasts.


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(LEAST, 20), max_size=6))
async def test_forecast_after_each_message_is_the_unary_one_of_the_series_so_far(
    running: Running, cuts: list[int]
) -> None:
    series, ends = days(20), sorted({LEAST, 20, *cuts})
    found = await answers(
        running, [first(series[:LEAST]), *(push(series[one:other]) for one, other in pairwise(ends))]
    )
    assert [one.forecast for one in found] == [await unary(running, series[:end]) for end in ends]


async def test_horizon_and_quantiles_of_the_first_message_hold_for_the_series(running: Running) -> None:
    wanted: dict[str, Any] = {"horizon": 2, "quantiles": [0.9, 0.1]}
    series = days(9)
    found = await answers(running, [first(series[:8], **wanted), push(series[8:])])
    assert [one.forecast for one in found] == [
        await unary(running, series[:count], **wanted) for count in (8, 9)
    ]


async def test_series_of_one_stream_know_nothing_of_each_other(running: Running) -> None:
    names = {"a": days(10), "b": days(12, 3.0), "": days(9, 0.5)}
    starts = [first(series[:LEAST], name) for name, series in names.items()]
    later = [
        push([series[day]], name)
        for day in range(LEAST, 12)
        for name, series in names.items()
        if day < len(series)
    ]
    found = await answers(running, [*starts, *later])
    for name, series in names.items():
        own = [one.forecast for one in found if one.id == name]
        assert own == [await unary(running, series[:count]) for count in range(LEAST, len(series) + 1)]


async def test_messages_sent_ahead_are_answered_in_order(running: Running) -> None:
    series = days(60)
    found = await answers(running, [first(series[:LEAST]), *(push([day]) for day in series[LEAST:])])
    assert [one.forecast.last_value for one in found] == [day[3] for day in series[LEAST - 1 :]]


async def test_answer_comes_while_the_stream_is_open(running: Running) -> None:
    is_answered = asyncio.Event()

    async def ask() -> AsyncIterator[pb.ForecastStreamRequest]:
        yield first(days(LEAST))
        await is_answered.wait()
        yield push(days(LEAST + 1)[LEAST:])

    found = 0
    async with asyncio.timeout(PATIENCE_S):
        async for _ in ForecastingStub(running.channel).ForecastStream(ask()):
            found += 1
            is_answered.set()
    assert found == 2


async def test_stream_without_a_message_ends(running: Running) -> None:
    assert await answers(running, []) == []


async def test_later_message_may_say_again_what_the_first_said(running: Running) -> None:
    series = days(9)
    explicit: dict[str, Any] = {"model": MODEL, "version": 1, "horizon": 5, "quantiles": [0.1, 0.5, 0.9]}
    found = await answers(running, [first(series[:LEAST]), push(series[7:8], **explicit), push(series[8:])])
    assert [one.HasField("error") for one in found] == [False] * 3
    assert found[-1].forecast == await unary(running, series)


# What is wrong with a message is its own answer.


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(push(days(LEAST)), "model", id="no model"),
        pytest.param(first(days(LEAST), model="letters"), "model", id="a model of another task"),
        pytest.param(first(days(LEAST - 1)), "observations", id="too few observations"),
        pytest.param(first([]), "observations", id="no observation"),
        pytest.param(first(days(LEAST), horizon=6), "horizon", id="too far"),
        pytest.param(first(days(LEAST), quantiles=[0.3]), "quantiles", id="unknown quantile"),
        pytest.param(first([*days(LEAST), [1.0]]), f"observations[{LEAST}].values", id="too narrow"),
        pytest.param(
            first([*days(LEAST), [1.0, 1.0, 1.0, 0.0, 1.0]]),
            f"observations[{LEAST}].values[3]",
            id="zero price",
        ),
    ],
)
async def test_wrong_first_message_opens_nothing_and_the_next_is_the_first(
    running: Running, wrong: pb.ForecastStreamRequest, field: str
) -> None:
    found = await answers(running, [wrong, first(days(LEAST))])
    assert field_of(found[0]) == field
    assert found[1].forecast == await unary(running, days(LEAST))


@pytest.mark.parametrize(
    ("fields", "observed", "field"),
    [
        pytest.param({"model": "letters"}, 1, "model", id="another model"),
        pytest.param({"version": 2}, 1, "version", id="another version"),
        pytest.param({"horizon": 3}, 1, "horizon", id="another horizon"),
        pytest.param({"quantiles": [0.5]}, 1, "quantiles", id="other quantiles"),
        pytest.param({}, 0, "observations", id="no observation"),
    ],
)
async def test_wrong_later_message_leaves_its_series_as_it_was(
    running: Running, fields: dict[str, Any], observed: int, field: str
) -> None:
    series = days(LEAST + 1)
    wrong = push(days(LEAST, 9.0)[:observed], **fields)
    found = await answers(running, [first(series[:LEAST]), wrong, push(series[LEAST:])])
    assert field_of(found[1]) == field
    assert found[2].forecast == await unary(running, series)


async def test_endless_id_ends_the_call(running: Running) -> None:
    call = ForecastingStub(running.channel).ForecastStream(iter([first(days(LEAST), "i" * 1025)]))
    assert await fields_of(call) == ["id"]


async def test_many_quantiles_in_a_later_message_are_shown_briefly(running: Running) -> None:
    messages = [first(days(LEAST)), push(days(1), quantiles=[0.123456789] * 10_000)]
    [_, found] = await answers(running, messages)
    assert field_of(found) == "quantiles"
    assert len(found.error.message) < 200


async def test_error_names_its_series_and_leaves_the_others_alone(running: Running) -> None:
    series = days(LEAST + 1)
    found = await answers(
        running, [first(series[:LEAST], "good"), first([], "bad"), push(series[LEAST:], "good")]
    )
    assert {one.id: one.HasField("error") for one in found} == {"good": False, "bad": True}
    assert found[-1].forecast == await unary(running, series)


async def test_error_has_its_turn_among_the_answers_of_its_series(running: Running) -> None:
    series = days(LEAST + 2)
    found = await answers(
        running, [first(series[:LEAST]), push([series[LEAST]]), push([]), push([series[LEAST + 1]])]
    )
    assert [one.HasField("error") for one in found] == [False, False, True, False]


async def test_version_is_in_every_answer_but_that_of_a_failed_message(running: Running) -> None:
    found = await answers(running, [first([]), first(days(LEAST)), push(days(1))])
    assert [one.version for one in found] == [0, 1, 1]


# Sealed states.


@settings(max_examples=15)
@given(cut=st.integers(LEAST, 19), pieces=st.lists(st.integers(1, 3), min_size=1, max_size=3))
async def test_series_goes_on_from_a_sealed_state_bit_for_bit(
    running: Running, cut: int, pieces: list[int]
) -> None:
    series = days(cut + sum(pieces))
    [before] = await answers(running, [first(series[:cut], return_state=True)])
    ends = [cut + sum(pieces[: index + 1]) for index in range(len(pieces))]
    starts = [cut, *ends[:-1]]
    requests = [push(series[start:end], return_state=True) for start, end in zip(starts, ends, strict=True)]
    requests[0].model, requests[0].state = MODEL, before.state
    found = await answers(running, requests)
    assert [one.forecast for one in found] == [await unary(running, series[:end]) for end in ends]
    assert [one.state for one in found] == [
        (await answers(running, [first(series[:end], return_state=True)]))[0].state for end in ends
    ]


async def test_state_is_sent_when_asked_for_alone(running: Running) -> None:
    found = await answers(
        running,
        [first(days(LEAST)), push(days(1), return_state=True), push(days(1)), push([], return_state=True)],
    )
    assert [bool(one.state) for one in found] == [False, True, False, False]


async def test_what_is_asked_of_a_continued_series_is_in_its_own_first_message(running: Running) -> None:
    series = days(LEAST + 1)
    [before] = await answers(running, [first(series[:LEAST], horizon=1, return_state=True)])
    [found] = await answers(running, [first(series[LEAST:], state=before.state, horizon=3, quantiles=[0.9])])
    assert found.forecast == await unary(running, series, horizon=3, quantiles=[0.9])


async def test_wrong_state_opens_nothing_and_the_next_message_is_the_first(running: Running) -> None:
    series = days(LEAST + 1)
    [before] = await answers(running, [first(series[:LEAST], return_state=True)])
    altered = before.state[:-1] + bytes([before.state[-1] ^ 1])
    found = await answers(
        running,
        [
            first(series[LEAST:], state=altered),
            first([], state=before.state),
            first(series[LEAST:], state=before.state),
            push(series[:1], state=before.state),
            push(series[:1]),
        ],
    )
    assert [field_of(found[place]) for place in (0, 1, 3)] == ["state", "observations", "state"]
    assert found[2].forecast == await unary(running, series)
    assert found[4].forecast == await unary(running, [*series, series[0]])


async def test_series_beyond_the_limit_are_refused_and_failed_ones_do_not_count(running: Running) -> None:
    failed = [first([], f"failed {index}") for index in range(MAX_SERIES)]
    starts = [first(days(LEAST), str(index)) for index in range(MAX_SERIES + 1)]
    found = {one.id: one for one in await answers(running, [*failed, *starts, push(days(8)[7:], "0")])}
    assert field_of(found[str(MAX_SERIES)]) == "id"
    assert f"at most {MAX_SERIES} series" in found[str(MAX_SERIES)].error.message
    assert not any(found[str(index)].HasField("error") for index in range(MAX_SERIES))


async def test_unknown_model_is_not_found(running: Running) -> None:
    [found] = await answers(running, [first(days(LEAST), model="nobody")])
    assert code(found) is grpc.StatusCode.NOT_FOUND


# Ends.


async def test_more_messages_than_places_are_all_answered(running: Running) -> None:
    count = IN_FLIGHT * 10
    requests = [first(days(LEAST), str(index % MAX_SERIES)) for index in range(count)]
    assert len(await answers(running, requests)) == count


async def test_cancelled_stream_leaves_the_server_answering(running: Running) -> None:
    async def ask() -> AsyncIterator[pb.ForecastStreamRequest]:
        yield first(days(LEAST))
        while True:
            yield push(days(1))

    call = ForecastingStub(running.channel).ForecastStream(ask())
    await call.read()
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert (await unary(running, days(LEAST))).steps


async def test_passed_deadline_ends_the_stream(running: Running) -> None:
    async def ask() -> AsyncIterator[pb.ForecastStreamRequest]:
        yield first(days(LEAST))
        await asyncio.Event().wait()

    with pytest.raises(aio.AioRpcError) as refusal:
        await finish(ForecastingStub(running.channel).ForecastStream(ask(), timeout=0.2))
    assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

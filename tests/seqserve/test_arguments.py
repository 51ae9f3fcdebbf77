"""Every argument that cannot be sent is refused by name, by both clients alike, and nothing is sent."""

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from seqserve import (
    USE_CLIENT_TIMEOUT,
    AsyncClient,
    Client,
    InvalidArgument,
    Retry,
    WrongType,
    WrongValue,
    messages,
    tls,
)
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, started, text_pieces

SURROGATE = "broken \ud800"
ROWS = [[1.0, 2.0], [3.0, 4.0]]
NOT_TEXT: tuple[Any, ...] = (None, b"ab", 3, ["ab"], math.nan, SURROGATE)
NOT_COUNT: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**32,
    10**5000,
    1.5,
    "3",
    math.nan,
    np.float64(2),
    np.int64(-1),
    [1],
)
NOT_NUMBER: tuple[Any, ...] = (
    True,
    "0.5",
    b"1",
    math.nan,
    -math.inf,
    10**400,
    1j,
    [0.5],
    np.bool_(True),
    np.datetime64("2020"),
)
NOT_TEXTS: tuple[Any, ...] = (
    None,
    b"ab",
    5,
    {"a": "b"},
    {"ab"},
    [None],
    [b"ab"],
    ["ab", SURROGATE],
    [["ab"]],
    ["ab", math.nan],
    pd.DataFrame({"text": ["ab"]}),
    np.array(0),
)
NOT_FLAG: tuple[Any, ...] = (None, 1, "yes", math.nan)
NOT_STATE: tuple[Any, ...] = ("sealed", 5, ["a"], True)
NOT_TIMEOUT: tuple[Any, ...] = (
    math.nan,
    -1,
    0,
    True,
    1e10,
    9e9,
    1e300,
    10**400,
    "5",
    np.datetime64("2020"),
    -math.inf,
)
NOT_SERIES: tuple[Any, ...] = (
    None,
    5,
    "ab",
    b"ab",
    {"a": ROWS},
    [],
    [1, 2, 3],
    [[1, 2, 3]],
    [ROWS, None],
    [[[[1.0]]]],
    [["ab"]],
    [[b"ab"]],
    [[{1.0, 2.0}]],
    [[[1.0, None]]],
    [[[1.0, "2"]]],
    [[[1.0, True]]],
    [[[1.0, math.nan]]],
    [[[1.0, 2.0], [3.0]]],
    np.ones(3),
    np.ones((2, 3)),
    np.ones((1, 2, 3, 4)),
    np.array([[[1 + 1j]]]),
    np.array([[["2020-01-01"]]], dtype="datetime64[ns]"),
    np.ones((1, 2, 3), dtype=bool),
    torch.ones(2, 3),
    pd.Series([1.0, 2.0]),
)
NOT_LEVELS: tuple[Any, ...] = (None, 0.5, "0.5", [True], ["0.5"], [0.0], [1.0], [math.nan], {0.5}, [[0.5]])

NAMES = [
    *[(method, "model", value) for method in ("generate", "score", "classify") for value in NOT_TEXT],
    *[("forecast", "model", value) for value in NOT_TEXT],
    *[(method, "name", value) for method in ("model", "load_model", "unload_model") for value in NOT_TEXT],
]
COUNTS = [
    *[
        (method, "version", value)
        for method in ("generate", "score", "classify", "forecast", "model", "load_model", "unload_model")
        for value in NOT_COUNT
    ],
    *[("generate", field, value) for field in ("max_tokens", "top_k") for value in NOT_COUNT],
    *[("generate", "seed", value) for value in (-1, 2**64, 1.5, "7", True)],
    *[("forecast", "horizon", value) for value in NOT_COUNT],
]
OPTIONS = [
    *[("generate", "temperature", value) for value in (*NOT_NUMBER, -0.1, 1e39)],
    *[("generate", "top_p", value) for value in (*NOT_NUMBER, 0.0, 1.1)],
    *[("generate", field, value) for field in ("logprobs", "return_state") for value in NOT_FLAG],
    *[("models", "include_spec", value) for value in NOT_FLAG],
    *[("load_model", "allow_interface_change", value) for value in NOT_FLAG],
    *[("generate", "state", value) for value in NOT_STATE],
    *[("generate", "prompt", value) for value in NOT_TEXT],
    *[("generate", "stop", value) for value in NOT_TEXTS],
    *[("forecast", "quantiles", value) for value in NOT_LEVELS],
    *[(method, "timeout_s", value) for method in ("generate", "score", "models") for value in NOT_TIMEOUT],
]
INPUTS = [
    *[(method, "texts", value) for method in ("score", "classify") for value in (*NOT_TEXTS, [])],
    *[("forecast", "series", value) for value in NOT_SERIES],
]
REQUIRED: dict[str, dict[str, Any]] = {
    "score": {"texts": ["ab"]},
    "classify": {"texts": ["ab"]},
    "forecast": {"series": [ROWS]},
    "model": {"name": "stock"},
    "load_model": {"name": "stock"},
    "unload_model": {"name": "stock"},
}


@pytest.fixture(scope="module")
def quiet_server() -> Iterator[ScriptedServer]:
    """A server that is to get no request, shared by all refusals."""
    servicer = ScriptedServer()
    running = started(servicer)
    yield servicer
    assert servicer.requests == []
    running.stop(grace=None).wait(WAIT_S)


def is_refusal(error: InvalidArgument, field: str) -> bool:
    """Whether the error is the client's own, and names the field or a place in it."""
    named = error.violations[0].field
    return (
        named.startswith(field)
        and str(error) == f"{named}: {error.violations[0].description}"
        and "expected" in str(error)
        and "found" in str(error)
        and isinstance(error, TypeError if isinstance(error, WrongType) else ValueError)
    )


@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "aio"])
async def test_what_cannot_be_sent_is_refused_by_name(quiet_server: ScriptedServer, kind: Any) -> None:
    client = kind(quiet_server.address)
    accepted = []
    for method, field, value in (*NAMES, *COUNTS, *OPTIONS, *INPUTS):
        try:
            answer = getattr(client, method)(**REQUIRED.get(method, {}) | {field: value})
            if kind is AsyncClient:
                await (answer.read() if method == "generate" else answer)
        except (WrongType, WrongValue) as error:
            if not is_refusal(error, field):
                accepted.append((method, field, repr(value)[:40], str(error)))
        except Exception as error:
            accepted.append((method, field, repr(value)[:40], repr(error)))
        else:
            accepted.append((method, field, repr(value)[:40], "accepted"))
    closed = client.close()
    if kind is AsyncClient:
        await closed
    assert accepted == []


STREAM_OPTIONS = [
    *[("model", value) for value in NOT_TEXT],
    *[("version", value) for value in NOT_COUNT],
    *[("timeout_s", value) for value in (*NOT_TIMEOUT, "5")],
]


@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "aio"])
async def test_options_of_streams_are_refused_by_name(quiet_server: ScriptedServer, kind: Any) -> None:
    client = kind(quiet_server.address)
    for field, value in STREAM_OPTIONS:
        with pytest.raises((WrongType, WrongValue), match=rf"^{field}: expected"):
            client.classify_stream([], **{field: value})
        with pytest.raises((WrongType, WrongValue), match=rf"^{field}: expected"):
            client.forecast_stream(**{field: value})
    for value in NOT_COUNT:
        with pytest.raises((WrongType, WrongValue), match=r"^horizon: expected"):
            client.forecast_stream(horizon=value)
    for value in NOT_LEVELS:
        with pytest.raises((WrongType, WrongValue), match=r"^quantiles(\[0\])?: expected"):
            client.forecast_stream(quantiles=value)
    for value in (None, "ab", b"ab", 5, {"id": "text"}, pd.DataFrame({"a": [1]})):
        with pytest.raises(WrongType, match=r"^requests: expected pairs"):
            client.classify_stream(value)
    closed = client.close()
    if kind is AsyncClient:
        await closed


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("ab", "requests[1]"),
        (None, "requests[1]"),
        (("id",), "requests[1]"),
        ((7, "text"), "requests[1].id"),
        (("id", None), "requests[1].texts"),
        (("id", ["text", b"ab"]), "requests[1].texts[1]"),
    ],
)
def test_wrong_items_of_a_classify_stream_are_named(client: Client, item: Any, field: str) -> None:
    with pytest.raises(WrongType) as caught:
        list(client.classify_stream([("first", "good"), item]))
    assert caught.value.violations[0].field == field


def test_wrong_arguments_of_a_push_leave_the_stream_open(client: Client, server: ScriptedServer) -> None:
    with client.forecast_stream() as stream:
        stream.push([[1.0]])
        for field, options in (
            ("observations[0]", {"observations": [1.0, 2.0]}),
            ("observations[0].values[1]", {"observations": [[1.0, None]]}),
            ("observations", {"observations": None}),
            ("series_id", {"observations": [[1.0]], "series_id": None}),
            ("state", {"observations": [[1.0]], "state": "sealed"}),
            ("return_state", {"observations": [[1.0]], "return_state": 1}),
        ):
            with pytest.raises(WrongType) as caught:
                stream.push(**options)
            assert caught.value.violations[0].field == field
        assert stream.push([[2.0]]).last_value == 2.0
    assert len(server.requests) == 2


@pytest.mark.parametrize("kind", [Client, AsyncClient], ids=["sync", "aio"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("timeout_s", value) for value in (*NOT_TIMEOUT, USE_CLIENT_TIMEOUT)],
        *[("retry", value) for value in (5, True, "yes")],
        *[("credentials", value) for value in ("tls", True)],
        *[("token", value) for value in (5, b"ab", "", "two\nlines", " ab", "schl\u00fcssel")],
        *[("options", value) for value in (None, "ab", [("a",)], [(1, 2)], ["ab"])],
    ],
    ids=lambda each: repr(each)[:20],
)
async def test_arguments_of_a_client_are_refused_by_name(kind: Any, field: str, value: object) -> None:
    with pytest.raises((WrongType, WrongValue), match=rf"^{field}(\[0\])?: expected"):
        kind("127.0.0.1:1", **{field: value})


def test_a_token_is_not_in_its_refusal() -> None:
    with pytest.raises(WrongValue) as caught:
        Client("127.0.0.1:1", token="s3cret \u00fc")
    assert "s3cret" not in str(caught.value)


def test_neither_are_texts_and_states() -> None:
    for options in ({"prompt": "s3cret \ud800"}, {"state": "s3cret"}, {"stop": ["s3cret \udfff"]}):
        with Client("127.0.0.1:1") as client, pytest.raises(InvalidArgument) as caught:
            client.generate(**options)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts": True},
        {"attempts": 1.5},
        {"attempts": None},
        {"first_backoff_s": math.nan},
        {"most_backoff_s": math.inf},
        {"most_backoff_s": 1e10},
        {"most_backoff_s": "2"},
    ],
    ids=str,
)
def test_retries_that_cannot_be_waited_for_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises((WrongType, WrongValue), match="expected"):
        Retry(**fields)


def test_paths_of_credentials_are_refused_by_name() -> None:
    with pytest.raises(WrongType, match=r"^ca: expected Path, str or None, found an int"):
        tls(ca=5)  # type: ignore[arg-type]


def _sent(series: Any) -> list[list[list[float]]]:
    request, _ = messages.forecast_request(series, model="stock", version=0, horizon=0, quantiles=())
    return [[list(row.values) for row in each.observations] for each in request.series]


@pytest.mark.parametrize(
    "series",
    [
        np.array([ROWS]),
        np.array([ROWS], dtype=np.float16),
        np.array([ROWS], dtype=np.int8),
        np.array([ROWS], dtype=object),
        torch.tensor([ROWS]),
        torch.tensor([ROWS], requires_grad=True),
        np.array([ROWS]).data,
        [np.array(ROWS)],
        [[[np.float32(1), np.int8(2)], [Decimal(3), Fraction(4)]]],
        (iter(map(iter, rows)) for rows in [ROWS]),
        [[pd.Series([1, 2]), pd.Series([3, 4])]],
        [map(torch.tensor, ROWS)],
    ],
    ids=lambda each: type(each).__name__,
)
def test_arrays_and_numbers_of_any_kind_are_taken_by_value(series: Any) -> None:
    assert _sent(series) == [ROWS]


@pytest.mark.parametrize("make", [list, tuple, iter, np.array, pd.Series, lambda each: (one for one in each)])
async def test_texts_of_any_ordered_kind_are_taken(client: Client, make: Callable[..., Any]) -> None:
    assert len(client.classify(make(["so good", "bad"]))) == 2


def test_numbers_of_numpy_are_taken(client: Client, server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    client.generate(
        max_tokens=np.int64(9),  # type: ignore[arg-type]
        seed=np.uint64(2**64 - 1),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        logprobs=np.bool_(True),  # type: ignore[arg-type]
        timeout_s=np.float64(WAIT_S),
        version=np.uint8(3),  # type: ignore[arg-type]
    ).read()
    (sent,) = server.requests
    values = (9, 2**64 - 1, 0.5, True, 3)
    assert (sent.max_tokens, sent.seed, sent.temperature, sent.logprobs, sent.version) == values  # type: ignore[attr-defined]


@example([[{}]])
@given(
    value=st.recursive(
        st.one_of(
            st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=2), st.binary(max_size=2)
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=1), inner, max_size=2)
        ),
        max_leaves=8,
    )
)
def test_series_are_sent_as_given_or_refused(value: object) -> None:
    try:
        sent: Any = _sent(value)
    except InvalidArgument as error:
        sent = error
    if isinstance(sent, InvalidArgument):
        assert is_refusal(sent, "series")
    else:
        assert isinstance(value, list)
        if any(isinstance(row, dict) for rows in value for row in rows):
            return  # values with names, of which the model that answers has none: test_tabular.py
        assert sent == [[[float(number) for number in row] for row in rows] for rows in value]

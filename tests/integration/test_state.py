"""Sealed states between real servers: what one seals another with the key goes on from, and what is wrong
with a state is said.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from seqserve.v1 import forecasting_pb2 as forecasting
from tests.integration.calls import Calls, refusal, unpacked
from tests.integration.process import ServerProcess
from tests.tiny import edit_spec, export_all, export_generator

OLD, NEW = "0a" * 32, "b1" * 48
OPTIONS: dict[str, Any] = {"prompt": "abc", "temperature": 0.9, "top_p": 0.95, "seed": 11, "logprobs": True}
AT_A_TIME = 32
WARNING = "state tokens will not survive a restart nor open on another replica; set SEQSERVE_STATE_KEYS"
DAYS = [
    [value * (1 + 0.01 * day + 0.001 * day * day) for value in (10.0, 11.0, 9.0, 10.5, 1000.0)]
    for day in range(12)
]


@dataclass(frozen=True)
class Servers:
    """Two that share a key, one that has a newer key before it, one without, and one with the key that serves
    int8 weights.
    """

    first: Calls
    second: Calls
    rotated: Calls
    alone: Calls
    int8: Calls
    of_alone: ServerProcess
    of_first: ServerProcess


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """letters in two versions and under two names, letters-gru, letters-int8, moods, prices."""
    folder = tmp_path_factory.mktemp("exported")
    export_all(folder)
    export_generator(folder, "letters-gru", "gru")
    export_generator(folder, "letters-int8", int8=True)
    shutil.copytree(folder / "letters" / "1", folder / "letters" / "2")
    edit_spec(folder / "letters" / "2", version=2)
    shutil.copytree(folder / "letters" / "1", folder / "letters-twin" / "1")
    edit_spec(folder / "letters-twin" / "1", name="letters-twin")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    folder = tmp_path_factory.mktemp("keys")
    (old := folder / "old").write_text(f"# the only one\n{OLD}\n")
    (newer := folder / "newer").write_text(f"{NEW}\n{OLD}\n")
    common = {"VERSIONS": "2", "SLOTS": "4", "CHUNK": "4", "CHUNK_ROWS": "4", "ENGINES": "1"}
    settings = [
        {"STATE_KEYS": str(old)},
        {"STATE_KEYS": str(old), "SLOTS": "7", "CHUNK": "3"},
        {"STATE_KEYS": str(newer)},
        {},
        {"STATE_KEYS": str(old), "VARIANT": "int8"},
    ]
    async with AsyncExitStack() as stack:
        processes = [ServerProcess(repository, common | one) for one in settings]
        await asyncio.gather(*(stack.enter_async_context(one) for one in processes))
        first, second, rotated, alone, int8 = [
            Calls(await stack.enter_async_context(one.channel())) for one in processes
        ]
        yield Servers(first, second, rotated, alone, int8, of_alone=processes[3], of_first=processes[0])


async def state_of(calls: Calls, model: str = "letters", version: int = 1) -> bytes:
    found = await calls.generate(model, version=version, max_tokens=12, return_state=True, **OPTIONS)
    return bytes(found.last.state)


async def reason(calls: Calls, state: bytes, model: str = "letters", version: int = 1) -> str:
    """Why a state is refused."""
    found = await refusal(calls.generate(model, version=version, state=state))
    assert (found.code, found.reason, set(found.violations)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
        {"state"},
    )
    return found.violations["state"]


async def push(
    calls: Calls, *requests: forecasting.ForecastStreamRequest
) -> list[forecasting.ForecastStreamResponse]:
    return [one async for one in calls.forecasting.ForecastStream(iter(requests))]


def days(start: int, end: int, **fields: Any) -> forecasting.ForecastStreamRequest:
    return forecasting.ForecastStreamRequest(
        observations=[forecasting.Observation(values=row) for row in DAYS[start:end]], **fields
    )


# What goes on.


@pytest.mark.parametrize("model", ["letters", "letters-gru"])
async def test_text_goes_on_from_server_to_server_as_if_undisturbed(servers: Servers, model: str) -> None:
    whole = await servers.first.generate(model, version=1, max_tokens=60, **OPTIONS)
    found, state = "", b""
    logprobs: tuple[float, ...] = ()
    for calls in (servers.first, servers.second, servers.rotated):
        more = {**OPTIONS, "prompt": "", "state": state} if state else OPTIONS
        piece = await calls.generate(model, version=1, max_tokens=20, return_state=True, **more)
        found, logprobs, state = found + piece.text, logprobs + piece.logprobs, piece.last.state
    assert (found, logprobs) == (whole.text, whole.logprobs)


async def test_state_after_a_stop_string_goes_on_behind_it(servers: Servers) -> None:
    whole = await servers.first.generate(version=1, max_tokens=60, **OPTIONS)
    stop = whole.text[20:23]
    stopped = await servers.first.generate(
        version=1, max_tokens=60, stop=[stop], return_state=True, **OPTIONS
    )
    count = stopped.last.usage.generated_tokens
    rest = await servers.second.generate(
        version=1, max_tokens=60 - count, state=stopped.last.state, **{**OPTIONS, "prompt": ""}
    )
    assert stopped.text + stop + rest.text == whole.text
    assert rest.logprobs == whole.logprobs[count:]


async def test_broken_text_goes_on_at_another_server(servers: Servers) -> None:
    whole = await servers.first.generate(version=1, max_tokens=60, **OPTIONS)
    for cut in (1, 30, 59):
        rest = await servers.second.generate(version=1, max_tokens=60, generated=whole.text[:cut], **OPTIONS)
        assert whole.text[:cut] + rest.text == whole.text
        assert rest.logprobs == whole.logprobs[cut:]
        assert rest.last.usage == whole.last.usage


async def test_series_goes_on_at_another_server(servers: Servers) -> None:
    [before] = await push(servers.first, days(0, 8, model="prices", return_state=True))
    found = await push(servers.second, days(8, 9, model="prices", state=before.state), days(9, 12))
    assert [one.forecast for one in found] == [
        (await servers.first.forecast([DAYS[:end]]))[0] for end in (9, 12)
    ]


async def test_state_sealed_with_the_older_key_opens_where_a_newer_one_seals(servers: Servers) -> None:
    state = await state_of(servers.first)
    found = await servers.rotated.generate(version=1, max_tokens=5, state=state, return_state=True)
    assert found.text == (await servers.first.generate(version=1, max_tokens=5, state=state)).text
    assert "a key that it does not know" in await reason(servers.first, found.last.state)


# What does not.


async def test_server_without_keys_warns_and_opens_its_own_states_alone(servers: Servers) -> None:
    [warning] = [one for one in servers.of_alone.events if one["event"] == WARNING]
    assert warning["level"] == "warning"
    assert not any(one["event"] == WARNING for one in servers.of_first.events)
    assert "a key that it does not know" in await reason(servers.alone, await state_of(servers.first))
    assert "a key that it does not know" in await reason(servers.first, await state_of(servers.alone))
    assert (await servers.alone.generate(version=1, max_tokens=5, state=await state_of(servers.alone))).text


async def test_damaged_state_is_refused_with_the_reason(servers: Servers) -> None:
    state = await state_of(servers.first)
    for place in (4, 5, 20, 30, 50, 80, len(state) // 2, len(state) - 33, len(state) - 1):
        assert "altered" in await reason(
            servers.first, state[:place] + bytes([state[place] ^ 0x10]) + state[place + 1 :]
        )
    for length in (1, 3, 40, len(state) // 2, len(state) - 1):
        assert "truncated" in await reason(servers.first, state[:length])
    for more in (1, 3 << 20):
        assert "too long" in await reason(servers.first, state + bytes(more))
    assert "another format" in await reason(servers.first, b"\x00" + state[1:])


def flipped(state: bytes) -> list[bytes]:
    """Return the state with one bit flipped, another one for each of its bytes."""
    return [
        state[:place] + bytes([state[place] ^ 1 << place % 8]) + state[place + 1 :]
        for place in range(len(state))
    ]


async def test_state_of_a_text_with_a_flipped_bit_is_refused_at_every_byte(servers: Servers) -> None:
    states = flipped(await state_of(servers.first))
    assert len(states) > 400
    for start in range(0, len(states), AT_A_TIME):
        found = await asyncio.gather(
            *(reason(servers.first, state) for state in states[start : start + AT_A_TIME])
        )
        assert all("altered" in one for one in found)


async def test_state_of_a_series_with_a_flipped_bit_is_refused_at_every_byte(servers: Servers) -> None:
    """On one stream, where each refused message leaves the stream open for the next."""
    [before] = await push(servers.first, days(0, 8, model="prices", return_state=True))
    states = flipped(before.state)
    requests = [
        days(8, 9, model="prices", id=f"{number}", state=state) for number, state in enumerate(states)
    ]
    found = await push(servers.first, *requests)
    assert len(found) == len(states) > 150
    for one in found:
        kind, violations, _ = unpacked(one.error)
        assert kind == "INVALID_ARGUMENT"
        assert "altered" in violations["state"]


async def test_state_of_something_else_is_refused_with_what_it_is_of(servers: Servers) -> None:
    state = await state_of(servers.first)
    for other in ("letters-gru", "letters-twin"):
        assert (
            await reason(servers.first, state, other)
            == f"expected a sealed state of model {other}, found one of another model"
        )
    assert (
        await reason(servers.first, state, version=2)
        == "expected a sealed state of version 2 of model letters, found one of version 1"
    )
    int8 = await state_of(servers.int8, "letters-int8")
    assert (
        await reason(servers.first, int8, "letters-int8")
        == "expected a sealed state of variant fp32, found one of int8"
    )
    assert (await servers.int8.generate("letters-int8", version=1, max_tokens=5, state=int8)).text


async def test_state_of_another_rpc_is_refused(servers: Servers) -> None:
    [series] = await push(servers.first, days(0, 8, model="prices", return_state=True))
    assert "of the rpc Generate, found one of ForecastStream" in await reason(servers.first, series.state)
    [found] = await push(servers.first, days(8, 9, model="prices", state=await state_of(servers.first)))
    kind, violations, _ = unpacked(found.error)
    assert kind == "INVALID_ARGUMENT"
    assert "of the rpc ForecastStream, found one of Generate" in violations["state"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# none\n", "expected at least one key, found none"),
        (f"{OLD}\n{OLD[:-2]}\n", "line 2: expected at least 32 bytes"),
        (None, "No such file"),
    ],
    ids=["no key", "short key", "no file"],
)
async def test_unusable_keys_stop_the_start_and_do_not_show(
    repository: Path, tmp_path: Path, text: str | None, found: str
) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    server = ServerProcess(repository, {"STATE_KEYS": str(path)})
    assert await server.run_to_end() == 1
    [line] = server.other_output
    assert line.startswith("SEQSERVE_STATE_KEYS: ")
    assert found in line
    assert str(path) in line
    assert "0a0a" not in line

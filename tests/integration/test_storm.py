"""A storm of calls to every rpc, cancelled, late, cut off or not read, beside texts that must be right.

Versions are loaded meanwhile, each by six callers at a time.
"""

import asyncio
import itertools
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from grpc import aio

from seqserve.v1 import (
    forecasting_pb2,
    models_pb2,
    sequences_pb2,
    text_classification_pb2,
    text_generation_pb2,
)
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.chaos.readers import SMALL_WINDOW
from tests.chaos.watching import metrics, open_files, until_idle
from tests.half_sent import half_sent
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.integration.tensors import infer_request
from tests.integration.test_fuzz import RPCS, Rpc
from tests.integration.test_state import DAYS
from tests.tiny import edit_spec, export_all

SECONDS = 5.0
SIZES = {"SLOTS": "16", "CHUNK": "8", "CHUNK_ROWS": "8", "ENGINES": "1", "WATCH_SECONDS": "0"}
LINE = "admin storm keeper-90ac2b71ffe3d586"
METADATA = (("authorization", f"Bearer {LINE.split()[2]}"),)
WITNESSES, TEXTS, TEXT_TOKENS = 4, 6, 60
# A busy machine takes longer for them than the seconds of the storm.
MIN_TEXTS = 4 * TEXTS
LOADERS = 6
PATIENCE_S = 60
# The first load starts what further loads use; the storm itself makes hundreds of connections.
MAX_FILES = 15
# Administration has a loop of its own.
STORMED = [rpc for rpc in RPCS if not rpc.path.endswith(("/Load", "/Unload"))]
OBSERVED = [forecasting_pb2.Observation(values=row) for row in DAYS]
MESSAGES: dict[str, Sequence[Message]] = {
    "GenerateRequest": [
        text_generation_pb2.GenerateRequest(model="letters", prompt="abc", max_tokens=5_000, seed=3)
    ],
    "ScoreRequest": [text_generation_pb2.ScoreRequest(model="letters", texts=["abc" * 500] * 8)],
    "ClassifyRequest": [text_classification_pb2.ClassifyRequest(model="moods", texts=["a good film"] * 50)],
    "ForecastRequest": [
        forecasting_pb2.ForecastRequest(
            model="prices", series=[forecasting_pb2.Series(observations=OBSERVED)] * 20
        )
    ],
    "ForecastStreamRequest": [
        forecasting_pb2.ForecastStreamRequest(model="prices", id=str(number), observations=OBSERVED)
        for number in range(5)
    ],
    "InferRequest": [
        sequences_pb2.InferRequest(
            model="moods",
            inputs=[sequences_pb2.SequenceInput(text="a good film " * 50)] * 20,
            output_steps=sequences_pb2.OUTPUT_STEPS_EVERY,
        )
    ],
    "InferStreamRequest": [
        sequences_pb2.InferStreamRequest(
            model="moods", id=str(number), input=sequences_pb2.SequenceInput(text="a good film " * 5)
        )
        for number in range(5)
    ],
    "WatchEngineRequest": [models_pb2.WatchEngineRequest(model="letters")],
    "GetModelRequest": [models_pb2.GetModelRequest(model="letters")],
    "ModelInferRequest": [
        infer_request("letters", {"prompt": ["abc"]}, {"max_tokens": 500, "seed": 1}),
        infer_request("moods", {"text": ["good", "bad film"]}),
        infer_request("prices", {"input": np.ones((1, 9, 5), np.float32)}),
    ],
}
MISTAKES = ("INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAUTHENTICATED")
Disturbance = Callable[[random.Random], Awaitable[None]]


def begin(channel: aio.Channel, rpc: Rpc, timeout: float | None = None) -> Any:
    """Begin a call of any rpc with valid messages."""
    messages = [one.SerializeToString() for one in MESSAGES.get(rpc.request.name, [])] or [b""]
    make: Any = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[rpc.is_streamed, rpc.is_answered_in_stream]
    given = iter(messages) if rpc.is_streamed else messages[0]
    return make(rpc.path)(given, timeout=timeout, metadata=METADATA)


async def end_of(call: Any) -> grpc.StatusCode:
    """Read a call to its end."""
    with suppress(aio.AioRpcError, asyncio.CancelledError, aio.UsageError):
        if hasattr(call, "read"):
            while await call.read() is not aio.EOF:
                pass
        else:
            await call
    return await call.code()  # type: ignore[no-any-return]


class Storm:
    """The loops of a storm against one server, until `over`.

    Attributes:
        codes: how the disturbed calls ended.
        wrong: what nobody should have seen.
    """

    def __init__(self, server: ServerProcess, channel: aio.Channel, right: dict[int, str]) -> None:
        self._server, self._channel, self._right = server, channel, right
        self._end = time.monotonic() + SECONDS
        self.codes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.texts = 0

    @property
    def is_over(self) -> bool:
        late_s = time.monotonic() - self._end
        return late_s > (0 if self.texts >= MIN_TEXTS else PATIENCE_S)

    async def witness(self, channel: aio.Channel) -> None:
        """Generate texts, each of which must come out as on the quiet server."""
        for seed in itertools.cycle(self._right):
            if self.is_over:
                return
            try:
                text = await text_of(channel, seed)
            except aio.AioRpcError as error:
                self.wrong.append(f"{error.code().name}: {error.details()}")
                return
            self.texts += 1
            if text != self._right[seed]:
                self.wrong.append(f"seed {seed}: {text!r}")

    async def repeat(self, disturb: Disturbance, seed: int) -> None:
        draw = random.Random(seed)
        while not self.is_over:
            await disturb(draw)

    async def cancel(self, draw: random.Random) -> None:
        """Begin a call of every rpc and cancel each after some milliseconds."""
        calls = [begin(self._channel, rpc) for rpc in draw.sample(STORMED, 8)]
        await asyncio.sleep(draw.uniform(0, 0.02))
        for call in calls:
            call.cancel()
        self.codes.update([(await end_of(call)).name for call in calls])

    async def be_late(self, draw: random.Random) -> None:
        """Call with deadlines that pass before, while or after the call is answered."""
        calls = [
            begin(self._channel, rpc, timeout=10 ** draw.uniform(-4, -1)) for rpc in draw.sample(STORMED, 8)
        ]
        self.codes.update([(await end_of(call)).name for call in calls])

    async def kill_channel(self, draw: random.Random) -> None:
        """Close a channel with calls of several rpcs in flight."""
        async with self._server.channel(use_local_subchannel_pool=1) as channel:
            calls = [begin(channel, rpc) for rpc in draw.sample(STORMED, 8)]
            await asyncio.sleep(draw.uniform(0, 0.03))
        self.codes.update([(await end_of(call)).name for call in calls])

    async def cut_connection(self, draw: random.Random) -> None:
        """Announce messages and cut the connection instead of sending them."""
        async with half_sent(self._server.grpc_port) as connection:
            for rpc in draw.sample(STORMED, 8):
                connection.begin(rpc.path, 1 << 20, METADATA)
            await asyncio.sleep(draw.uniform(0, 0.03))

    async def stop_reading(self, draw: random.Random) -> None:
        """Read one message of several long texts, and no more for a while."""
        async with self._server.channel(**SMALL_WINDOW, use_local_subchannel_pool=1) as channel:
            long = next(rpc for rpc in STORMED if rpc.path.endswith("/Generate"))
            calls = [begin(channel, long) for _ in range(4)]
            await asyncio.gather(*(call.read() for call in calls))
            await asyncio.sleep(draw.uniform(0, 0.5))

    async def load(self, made: Path, repository: Path, versions: list[int]) -> None:
        """Load version after version, several callers at a time; each gets the version as it serves."""
        calls = Calls(self._channel)
        for version in versions:
            (made / str(version)).rename(repository / "letters" / str(version))
            request = models_pb2.LoadModelRequest(model="letters", version=version)
            hasty = calls.models.Load(request, metadata=METADATA)
            loading = [calls.models.Load(request, metadata=METADATA) for _ in range(LOADERS)]
            await asyncio.sleep(0.02)  # so that most of the cancelled loads have begun
            hasty.cancel()
            found = await asyncio.gather(*loading)
            wanted = (version, models_pb2.MODEL_STATUS_READY)
            self.wrong += [f"load: {one}" for one in found if (one.version, one.status) != wanted]


async def text_of(channel: aio.Channel, seed: int) -> str:
    request = text_generation_pb2.GenerateRequest(
        model="letters", prompt="abcd"[seed % 4 :], max_tokens=TEXT_TOKENS, seed=seed
    )
    call: Any = TextGenerationStub(channel).Generate(request, timeout=PATIENCE_S, metadata=METADATA)
    return "".join([one.text async for one in call])


def further_versions(repository: Path, made: Path, versions: list[int]) -> None:
    """Make versions of letters with the weights, and so the texts, of the first."""
    for version in versions:
        edit_spec(shutil.copytree(repository / "letters" / "1", made / str(version)), version=version)


async def test_texts_come_out_right_in_a_storm_of_calls_and_loads(tmp_path: Path) -> None:
    repository, made, tokens = tmp_path / "exported", tmp_path / "made", tmp_path / "tokens"
    export_all(repository)
    versions = [2, 3, 4]
    further_versions(repository, made, versions)
    tokens.write_text(LINE + "\n")
    server = ServerProcess(repository, SIZES | {"TOKENS": str(tokens)})
    async with server, server.channel() as channel, server.channel(use_local_subchannel_pool=1) as own:
        right = {seed: await text_of(channel, seed) for seed in range(TEXTS)}
        files = open_files(server)
        storm = Storm(server, channel, right)
        disturbances = [
            storm.cancel,
            storm.cancel,
            storm.be_late,
            storm.be_late,
            storm.kill_channel,
            storm.cut_connection,
            storm.stop_reading,
        ]
        await asyncio.gather(
            *(storm.witness(own) for _ in range(WITNESSES)),
            *(storm.repeat(disturb, seed) for seed, disturb in enumerate(disturbances)),
            storm.load(made, repository, versions),
        )
        await until_idle(server)
        await check_after(server, storm, files)
        server.terminate()
        assert await server.ended() == 0


async def check_after(server: ServerProcess, storm: Storm, files: int) -> None:
    """The server holds nothing of the storm, has logged no error, and has loaded each version once."""
    assert storm.wrong == []
    assert storm.texts >= MIN_TEXTS
    assert {"OK", "CANCELLED", "DEADLINE_EXCEEDED"} <= set(storm.codes)
    # Of the server's own codes: grpc's client calls a write to a stream that has ended INTERNAL.
    served = [name for name in await metrics(server) if name.startswith("seqserve_requests_total")]
    assert not [name for name in served if any(code in name for code in MISTAKES)]
    async with asyncio.timeout(PATIENCE_S):
        while (await metrics(server))["seqserve_held_bytes"]:  # noqa: ASYNC110 -- it has to be asked for
            await asyncio.sleep(0.05)
        while open_files(server) > files + MAX_FILES:  # noqa: ASYNC110 -- gRPC closes sockets later
            await asyncio.sleep(0.05)
    ready = [(one["model"], one["version"]) for one in server.events if one["event"] == "model ready"]
    assert sorted(one for one in ready if one[0] == "letters") == [("letters", n) for n in range(1, 5)]
    assert [one for one in server.events if one["level"] == "error"] == []
    assert server.other_output == []

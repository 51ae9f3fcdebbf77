"""Take one optimisation of the serving core out, in this process or in a server of its own.

python -m benchmarks.without NAME    # python -m service without it; flags of the service may follow the name

Each entry of `NAMES` is a context manager. It patches names that exist, so a renamed one raises
AttributeError instead of leaving the optimisation in.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from grpc._cython import cygrpc  # type: ignore[attr-defined]
from numpy.typing import NDArray

from service import program
from service.api.yielding import yield_before_write
from service.engine import decode
from service.engine.cell import BoundChunk
from service.engine.decode import Decode
from service.engine.driver import ThreadDriver
from service.engine.prefill import _Arrays
from service.engine.request import Output
from service.engine.sampling import Options, pick
from service.engine.slots import Pool
from service.models import tuning
from service.settings import Settings
from service.signals import StopSignals
from service.tasks.feature_transform import FeatureTransform
from service.transport import loop as transport_loop
from service.transport.loop import CompletionLoop

TakenOut = AbstractContextManager[Any]


def with_setting(name: str, value: str) -> TakenOut:
    """Set an environment variable of the service; read at its start, so only a server notices."""
    assert name in Settings.model_fields, f"no setting {name}"
    return patch.dict(os.environ, {f"SEQSERVE_{name.upper()}": value})


@contextmanager
def everywhere(original: Callable[..., Any], new: Callable[..., Any]) -> Iterator[None]:
    """Replace a function in every module of the service that has imported it."""
    name = original.__name__
    holders = [
        module
        for path, module in list(sys.modules.items())
        if path.startswith("service.") and vars(module).get(name) is original
    ]
    assert holders, f"no module of the service uses {name}"
    with ExitStack() as stack:
        for holder in holders:
            stack.enter_context(patch.object(holder, name, new))
        yield


def chunk_rows() -> TakenOut:
    """Give a chunk tick one row."""
    return with_setting("chunk_rows", "1")


@dataclass(frozen=True, slots=True)
class _EveryStep:
    """A binding that asks for the head at every step, and picks the wanted positions afterwards."""

    bound: BoundChunk
    arrays: _Arrays
    positions: int
    count: int

    def run(self) -> None:
        """Run the tick; leave the outputs of the wanted positions where `Prefill.run` looks for them."""
        arrays = self.arrays
        wanted = arrays.wanted[: self.count].copy()
        arrays.wanted[: self.positions] = np.arange(self.positions)
        self.bound.run()
        arrays.outputs[: self.count] = arrays.outputs[wanted]


def head() -> TakenOut:
    """Ask for the head at every step of a chunk tick."""
    bind = _Arrays.bind

    def bind_every_step(self: _Arrays, pool: Pool, steps: int, count: int) -> _EveryStep:
        positions = len(pool) * steps
        return _EveryStep(bind(self, pool, steps, positions), self, positions, count)

    return patch.object(_Arrays, "bind", bind_every_step)


@contextmanager
def bindings() -> Iterator[None]:
    """Bind the arrays to the graph anew in each tick."""
    bind_chunk, bind_step = _Arrays.bind, Decode._bind

    def chunk(self: _Arrays, pool: Pool, steps: int, count: int) -> BoundChunk:
        self._bindings.clear()
        return bind_chunk(self, pool, steps, count)

    def step(self: Decode, rows: int) -> BoundChunk:
        self._bindings.clear()
        return bind_step(self, rows)

    with patch.object(_Arrays, "bind", chunk), patch.object(Decode, "_bind", step):
        yield


class _OneByOne(Exception):
    """Refusal to sample several rows at once, upon which `Decode.run` samples each alone."""


def sampler() -> TakenOut:
    """Sample one row at a time."""
    refusal = _OneByOne()

    def pick_one(
        logits: NDArray[np.float32], options: Options, keys: NDArray[np.uint64], positions: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        if len(logits) > 1:
            raise refusal
        return pick(logits, options, keys, positions)

    return patch.object(decode, "pick", pick_one)


@contextmanager
def token_batches() -> Iterator[None]:
    """Hand each token over in the turn in which it is sampled."""
    with with_setting("stream_interval_ms", "0"), patch.object(tuning, "WRITE_S", 0.0):
        yield


def prompt_cache() -> TakenOut:
    """Keep no states of prompts."""
    return with_setting("prompt_cache_bytes", "0")


def loop_driver() -> TakenOut:
    """Run the turns in a thread."""
    return with_setting("engine_driver", "thread")


def idle() -> TakenOut:
    """Start a turn in the next pass of the event loop, however much else waits there."""

    return patch.object(CompletionLoop, "call_when_idle", CompletionLoop.call_soon)


@dataclass(frozen=True, slots=True)
class _PostsEach:
    """An event loop to which a turn's outputs are posted one by one."""

    loop: asyncio.AbstractEventLoop

    def call_soon_threadsafe(self, deliver: Callable[[list[Output]], None], outputs: list[Output]) -> None:
        """Post a call for each output."""
        for output in outputs:
            self.loop.call_soon_threadsafe(deliver, [output])


def delivery() -> TakenOut:
    """Post each output of an engine's thread to the event loop by itself."""
    make = ThreadDriver.__init__

    def make_posting(self: ThreadDriver, engine: Any, loop: asyncio.AbstractEventLoop, *rest: Any) -> None:
        make(self, engine, loop, *rest)
        assert self._loop is loop, "the loop that a turn's outputs are posted to"
        posting: Any = _PostsEach(loop)
        self._loop = posting

    return patch.object(ThreadDriver, "__init__", make_posting)


def plain_numbers() -> TakenOut:
    """Leave every series to arrays."""

    def none(*_: object) -> None:
        return None

    return patch.multiple(FeatureTransform, plain_features=none, plain_values=none)


def yielding() -> TakenOut:
    """Write an answer as soon as it is made."""

    async def write_now() -> None:
        pass

    as_declared: Callable[[], Awaitable[None]] = write_now
    return everywhere(yield_before_write, as_declared)


class _PostingLoop(CompletionLoop):
    """An event loop to which a thread that waits for gRPC's core posts each event."""

    def __init__(self) -> None:
        asyncio.SelectorEventLoop.__init__(self)
        self.queue = cygrpc.CompletionQueue()
        self.users = set()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while (event := self.queue.poll()).completion_type != cygrpc.CompletionType.queue_shutdown:
            self.call_soon_threadsafe(event.tag, event)

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """Call a function in the next pass."""
        self.call_soon(call)

    def _write_to_self(self) -> None:
        asyncio.SelectorEventLoop._write_to_self(self)  # type: ignore[attr-defined]


def core() -> TakenOut:
    """Wait for gRPC's core in a thread, which posts each event into the event loop, as grpc.aio does."""
    return patch.object(transport_loop, "CompletionLoop", _PostingLoop)


def collector() -> TakenOut:
    """Leave the garbage collector as Python starts it."""

    def nothing(*_: object) -> None:
        pass

    stand_in = SimpleNamespace(collect=nothing, freeze=nothing, set_threshold=nothing)
    return patch.object(program, "gc", stand_in)


def nothing() -> TakenOut:
    """Take nothing out: what two servers differ by where they should not."""
    return nullcontext()


NAMES: Mapping[str, Callable[[], TakenOut]] = {
    "chunk-rows": chunk_rows,
    "head": head,
    "bindings": bindings,
    "sampler": sampler,
    "token-batches": token_batches,
    "prompt-cache": prompt_cache,
    "loop-driver": loop_driver,
    "idle": idle,
    "delivery": delivery,
    "plain-numbers": plain_numbers,
    "yield": yielding,
    "core": core,
    "collector": collector,
    "nothing": nothing,
}


def main() -> int:
    """Run the service without an optimisation; return its exit code, 2 for an unknown name."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in NAMES:
        sys.stderr.write(f"NAME: expected one of {', '.join(NAMES)}, found {name!r}\n")
        return 2
    with NAMES[name]():
        return program.main(StopSignals())


if __name__ == "__main__":
    sys.exit(main())

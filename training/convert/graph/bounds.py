"""Bounds what a foreign file makes a conversion do: how large its graph becomes, and how long a run takes."""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxruntime as ort

from training.convert.foreign import Refused
from training.convert.graph.copying import every_node
from training.errors import TrainingError

# Nodes with those of functions in place of each call; exporters write thousands.
MAX_NODES = 20_000
# A thousand steps of a network of 500 MB take a minute.
MAX_RUN_SECONDS = 120.0
# A network of 500 MB takes a quarter of it.
MAX_MEMORY_BYTES = 8 << 30
_MEMORY_SHARE = 0.8

_Key = tuple[str, str]


def check_expansion(model: onnx.ModelProto, most: int = MAX_NODES) -> None:
    """Raise Refused if a graph has too many nodes with its functions, or one calls itself."""
    bodies = {(one.domain, one.name): one.node for one in model.functions}
    sizes: dict[_Key, int] = {}
    # A stack instead of recursion: functions may call each other in a long row.
    stack: list[tuple[_Key, bool]] = [(key, False) for key in bodies]
    is_open: set[_Key] = set()
    while stack:
        key, is_done = stack.pop()
        calls = [(node.domain, node.op_type) for node in every_node(bodies[key])]
        if is_done:
            is_open.discard(key)
            sizes[key] = sum(sizes.get(one, 1) for one in calls)
        elif key not in sizes:
            is_open.add(key)
            stack.append((key, True))
            for one in dict.fromkeys(calls):
                if one in is_open:
                    raise Refused(f"function {one[1]} of the graph calls itself")
                if one in bodies and one not in sizes:
                    stack.append((one, False))
    found = sum(sizes.get((node.domain, node.op_type), 1) for node in every_node(model.graph.node))
    if found > most:
        raise Refused(f"expected a graph of at most {most} nodes with its functions, found {found}")


@contextmanager
def bounded_memory(most: int = MAX_MEMORY_BYTES) -> Iterator[None]:
    """Let allocations fail beyond a bound, or beyond most of the machine's memory where that is less.

    A graph of a few bytes can ask for more than any machine has, and the system would end other programs.

    Raises:
        TrainingError: Python itself was refused memory.
    """
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    bound = min(most, int(_MEMORY_SHARE * physical))
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [one for one in (bound, before, hard) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    except MemoryError as error:
        raise TrainingError(f"the conversion needs more than {min(bounds) >> 20} MiB of memory") from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


@contextmanager
def bounded_run(options: ort.RunOptions, seconds: float = MAX_RUN_SECONDS) -> Iterator[None]:
    """Let a run of onnxruntime with these options fail once it has taken too long, as an endless loop does.

    Raises:
        TrainingError: it has; no other rung of the ladder is tried then, as it would be after a refusal.
    """

    def end() -> None:
        options.terminate = True

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if options.terminate:
            raise TrainingError(f"a run of the network takes more than {seconds:g} seconds") from error
        raise
    finally:
        timer.cancel()

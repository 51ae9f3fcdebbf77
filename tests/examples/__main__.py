"""Prints the table of the examples: how each was made, and what it scores through every door.

python -m tests.examples
"""

import asyncio
import tempfile
from pathlib import Path

from grpc import aio

from seqserve.v1 import models_pb2
from seqserve.v1.models_pb2_grpc import ModelsStub
from tests.examples import doors
from tests.examples.every import NAMES, example
from tests.integration.process import ServerProcess
from training.export.sequences.export import export_sequences

_TITLES = ("network", "task", "kind", "made", "admitted", "baseline", "typed", "OIP", "command", "same bits")


async def main() -> None:
    """Serve all examples, ask each through every door, and print a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            export_sequences(example(name).package, Path(folder))
        print(_row(*_TITLES))
        print(_row(*["---"] * len(_TITLES)))
        async with ServerProcess(Path(folder)) as server, server.channel() as channel:
            for name in NAMES:
                print(await _facts(server, channel, name))


async def _facts(server: ServerProcess, channel: aio.Channel, name: str) -> str:
    made = example(name)
    questions = made.questions
    model = await ModelsStub(channel).Get(models_pb2.GetModelRequest(model=name))
    typed = await doors.typed(channel, name, questions)
    together = await doors.typed(channel, name, questions, raw=True)
    alone = [(await doors.typed(channel, name, [one], raw=True))[0] for one in questions]
    layers = made.package.network.config.layers
    words = ", ".join(f"{one.kind} {one.width} {one.direction}" for one in layers)
    is_ready = model.status == models_pb2.MODEL_STATUS_READY
    scores = [typed, await doors.open_inference(channel, name, questions)]
    if name == "captions":
        with tempfile.NamedTemporaryFile() as file:
            image = Path(file.name)
            scores.append([doors.captioned(server.address, one, image) for one in questions])
    elif name == "dates":
        scores.append([doors.dated(server.address, one) for one in questions])
    else:
        scores.append(doors.inferred(server.address, name, questions))
    return _row(
        f"{name}: {words}",
        model.task,
        model.kind,
        "trained by the test",
        f"yes, {model.golden_max_error:.0e} from PyTorch" if is_ready else model.message,
        f"{made.baseline:.2f}",
        *(f"{made.score(found):.3f}" for found in scores),
        "yes" if model.batch_invariant and all(map(doors.same, together, alone)) else "no",
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    asyncio.run(main())

"""Tasks for sequences over the small networks of contract 2, with an engine that answers as it is asked."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.engine.request import Row
from service.models.checks import shape_of
from service.runtime import Runtime
from service.tasks.inline_time import InlineTime
from service.tasks.limits import Limits
from service.tasks.sequences import SequenceInput, SequencesTask
from service.tasks.text_work import TextWork
from service.tasks.workers import Workers
from tests import contract2
from tests.contract2_graphs import Net
from tests.service.builders import LIMITS
from tests.service.engine.fakes import Bench


class AtOnce:
    """An engine whose turns run, until it is idle, whenever something is submitted."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.num_rows = 0

    def submit(self, rows: list[Row]) -> None:
        self.num_rows += len(rows)
        self.bench.group.submit(rows)
        self.bench.tick_until_idle()

    def cancel(self, rows: list[Row]) -> None:
        self.bench.group.cancel(rows)

    def resume(self, row: Row) -> None:
        self.bench.group.resume(row)


class Init:
    """An init graph in bare onnxruntime."""

    def __init__(self, graph: bytes) -> None:
        self._session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        names = [one.name for one in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


@cache
def reference(net: Net) -> contract2.Reference:
    """The network in bare onnxruntime."""
    return contract2.Reference(net)


@cache
def model_of(net: Net) -> spec.ModelSpec:
    return contract2.model_of(reference(net))


def task_of(net: Net, limits: Limits = LIMITS) -> tuple[SequencesTask, AtOnce]:
    """The task of a network, and its engine."""
    model, known = model_of(net), reference(net)
    states = [(one.input, one.output) for one in model.network.states]
    runtime = Runtime(known.graph, states, "cpu", 1)
    engine = AtOnce(Bench(4, 4, 8, runtime, shape_of(model)))
    data = net.files.get(contract2.TOKENIZER)
    tokenizer = Tokenizer.from_str(data.decode()) if data is not None else None
    init = Init(known.init) if known.init else None
    text_work = TextWork(Workers(1), InlineTime())
    return SequencesTask(model, tokenizer, init, engine, limits, text_work), engine


def steps(values: Any, initial: Mapping[str, NDArray[np.float32]] | None = None) -> SequenceInput:
    return SequenceInput(None, None, np.array(values, np.float32), initial or {})


def tokens(ids: Any) -> SequenceInput:
    return SequenceInput(None, np.array(ids, np.int64), None, {})


def text(said: str) -> SequenceInput:
    return SequenceInput(said, None, None, {})


def given(net: Net, inputs: NDArray[Any], seed: int = 0) -> SequenceInput:
    """A sequence as a caller sends it, of what the network is to get; for models without columns."""
    if net.takes_tokens:
        return tokens(inputs)
    return steps(inputs, contract2.initial_of(net, seed))

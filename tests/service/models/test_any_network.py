"""Networks of every kind are admitted, and their answers have the same bits alone and in a crowd.

Each network is a random one, exported by training, prepared with every check, and asked through its engines.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from service.contract import spec
from service.engine.request import ANYONE
from service.models.interface import accept_any
from service.models.loading import Loader, Served
from service.observability.metrics import Metrics
from service.tasks.sequences import SequenceInput, SequenceOutput, SequencesTask
from tests.service.builders import TrialHere, settings_of
from tests.training.export.sequences.random_networks import examples_of, network_of
from training.export.card import CardFacts
from training.export.export import provenance
from training.export.sequences.compare import Example, reference
from training.export.sequences.export import SequencePackage, export_sequences
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

# Of float32 sums in another order, over the few dozen terms of these networks.
TOLERANCE = 1e-5
LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34)
CROWD = 3 * LENGTHS
EQUAL = (4, 9) * 12
IMAGE = (("image", 5),)
LAST_OF_FIVE = spec.Window(to=5, side="left", value=0.0, longer="keep_last")
FIRST_OF_NINE = spec.Window(to=9, side="right", value=2.0, longer="keep_first")

lstm, gru, rnn = (partial(LayerConfig, kind) for kind in ("lstm", "gru", "rnn"))


@dataclass(frozen=True, slots=True)
class Case:
    """A network, and how it is exported.

    Attributes:
        config: the network.
        window: length that sequences are brought to; None: any length.
        padding: of a whole network.
    """

    config: SequenceConfig
    window: spec.Window | None = None
    padding: spec.Padding = "lengths"

    @property
    def is_invariant(self) -> bool:
        return all(layer.kind != "rnn" for layer in self.config.layers)

    @property
    def lengths(self) -> tuple[int, ...]:
        return EQUAL if self.padding == "none" else CROWD


def chunk(*layers: LayerConfig, **fields: object) -> SequenceConfig:
    return SequenceConfig("chunk", layers, 3, **fields)  # type: ignore[arg-type]


def whole(*layers: LayerConfig, **fields: object) -> SequenceConfig:
    return SequenceConfig("whole", layers, 3, **fields)  # type: ignore[arg-type]


TOKENS: dict[str, object] = {"vocabulary": 9, "embedding": 6}
ROWS: dict[str, object] = {"features": 4}
CASES = {
    "chunk, lstm, tokens": Case(chunk(lstm(12), **TOKENS)),
    "chunk, gru, rows, constant start": Case(chunk(gru(16), **ROWS, starts="learned")),
    "chunk, rnn with relu, rows": Case(chunk(LayerConfig("rnn", 9, nonlinearity="relu"), **ROWS)),
    "chunk, lstm 20 and gru 7, rows, init graph": Case(chunk(lstm(20), gru(7), **ROWS, initial=IMAGE)),
    "chunk, gru 5, lstm 9, gru 3, tokens, constant start": Case(
        chunk(gru(5), lstm(9), gru(3), **TOKENS, starts="learned", has_norm=True)
    ),
    "chunk, rnn 6 and lstm 8, tokens, init graph": Case(chunk(rnn(6), lstm(8), **TOKENS, initial=IMAGE)),
    "chunk, gru, rows, error of its forecast": Case(chunk(gru(10), features=4, is_error=True)),
    "chunk, lstm, rows, window": Case(chunk(lstm(8), **ROWS), LAST_OF_FIVE),
    "chunk, gru, tokens, window, init graph": Case(chunk(gru(8), **TOKENS, initial=IMAGE), FIRST_OF_NINE),
    "whole, lstm, tokens, every": Case(whole(lstm(12, "both"), **TOKENS)),
    "whole, gru backward, rows, every": Case(whole(gru(9, "backward"), **ROWS, embedding=5)),
    "whole, rnn, rows, every": Case(whole(rnn(7, "both"), **ROWS)),
    "whole, lstm 10 and gru 6, rows, every": Case(whole(lstm(10, "both"), gru(6), **ROWS, has_norm=True)),
    "whole, gru, rows, mean": Case(whole(gru(12, "both"), **ROWS, pooling="mean")),
    "whole, lstm 9 and gru 5, tokens, max": Case(
        whole(lstm(9, "both"), gru(5, "backward"), **TOKENS, pooling="max", has_norm=True)
    ),
    "whole, lstm, rows, last": Case(whole(lstm(11, "both"), **ROWS, pooling="last")),
    "whole, gru forward, tokens, mean": Case(whole(gru(8), **TOKENS, pooling="mean")),
    "whole, lstm, rows, equal lengths, every": Case(whole(lstm(8, "both"), **ROWS), padding="none"),
    "whole, gru, tokens, equal lengths, mean": Case(
        whole(gru(8, "both"), **TOKENS, pooling="mean"), padding="none"
    ),
    "whole, lstm, tokens, window, mean": Case(
        whole(lstm(8, "both"), **TOKENS, pooling="mean"), FIRST_OF_NINE
    ),
    "whole, gru, rows, window, every": Case(whole(gru(8, "both"), **ROWS), LAST_OF_FIVE),
}


def export(case: Case, network: SequenceNetwork, repository: Path) -> Path:
    steps = "last" if case.config.pooling else "every"
    goldens = (case.window.to,) * 2 if case.window else sorted(set(case.lengths))[:4]
    package = SequencePackage(
        name="any",
        network=network,
        section=spec.SequencesSpec(output=spec.OutputSpec(kind="embedding", steps=steps)),  # type: ignore[arg-type]
        examples=examples_of(case.config, tuple(goldens), seed=1),
        metrics={},
        provenance=provenance("nothing", "none", "0" * 64, seed=0),
        card=CardFacts("Summary.", "Split.", "None.", "All."),
        padding=case.padding,
        window=case.window,
    )
    return export_sequences(package, repository)


def ignore_failure(name: str, version: int) -> None:
    """Take the news that a version's engine has failed and do nothing; its callers fail as well."""


@asynccontextmanager
async def served_of(folder: Path) -> AsyncIterator[Served]:
    settings = settings_of(folder.parents[1])
    metrics = Metrics(CollectorRegistry())
    loader = Loader(settings, metrics, asyncio.get_running_loop(), ignore_failure, TrialHere(settings))
    served = await asyncio.to_thread(loader.load, folder, accept_any)
    served.start()
    try:
        yield served
    finally:
        served.stop()
        loader.stop()


def asked(example: Example) -> SequenceInput:
    inputs = example.inputs.numpy()
    initial = {name: row.numpy() for name, row in example.initial.items()}
    if example.inputs.is_floating_point():
        return SequenceInput(None, None, inputs, initial)
    return SequenceInput(None, inputs, None, initial)


async def alone(task: SequencesTask, examples: list[Example], every: bool | None) -> list[SequenceOutput]:
    return [(await task.infer([asked(one)], every, True, ANYONE))[0] for one in examples]


async def in_a_crowd(
    task: SequencesTask, examples: list[Example], every: bool | None
) -> list[SequenceOutput]:
    """Ask half of them in one request and the others one by one, at once, with as many others beside them."""
    half = len(examples) // 2
    others = task.infer([asked(one) for one in reversed(examples)], None, True, ANYONE)
    first = task.infer([asked(one) for one in examples[:half]], every, True, ANYONE)
    rest = [task.infer([asked(one)], every, True, ANYONE) for one in examples[half:]]
    found = await asyncio.gather(others, first, *rest)
    return [output for outputs in found[1:] for output in outputs]


def rows_of(outputs: list[SequenceOutput]) -> list[NDArray[np.float32]]:
    found = [one.values for one in outputs]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]


def right(case: Case, network: SequenceNetwork, example: Example) -> NDArray[np.float32]:
    """Return PyTorch's outputs of an example's own steps, after what the window does to it."""
    window, inputs = case.window, example.inputs
    if window is None:
        return reference(network, example)
    kept = inputs[-window.to :] if window.longer == "keep_last" else inputs[: window.to]
    padding = torch.full((window.to - len(kept), *inputs.shape[1:]), window.value).to(inputs.dtype)
    is_left = window.side == "left"
    fitted = torch.cat([padding, kept] if is_left else [kept, padding])
    rows = reference(network, Example(fitted, initial=example.initial))
    if len(rows) != window.to:
        return rows
    return rows[len(padding) :] if is_left else rows[: len(kept)]


def assert_same(found: list[SequenceOutput], expected: list[SequenceOutput], case: Case) -> None:
    for one, other in zip(rows_of(found), rows_of(expected), strict=True):
        if case.is_invariant:
            np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))
        else:
            np.testing.assert_allclose(one, other, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_network_is_admitted_and_gives_the_same_bits_alone_and_in_a_crowd(
    tmp_path: Path, case: Case
) -> None:
    network = network_of(case.config)
    folder = export(case, network, tmp_path)
    examples = examples_of(case.config, case.lengths, seed=2)
    async with served_of(folder) as served:
        task = served.sequences
        assert task is not None
        assert served.batch_invariant == case.is_invariant
        separate = await alone(task, examples, None)
        assert_same(await in_a_crowd(task, examples, None), separate, case)
        for example, found in zip(examples, rows_of(separate), strict=True):
            np.testing.assert_allclose(found, right(case, network, example), atol=TOLERANCE)
        if not case.config.pooling:
            last = await alone(task, examples, False)
            assert_same(await in_a_crowd(task, examples, False), last, case)
            # The last step of a window that is padded on the right is none of the caller's.
            if case.window is None or case.window.side == "left":
                for ends, steps in zip(rows_of(last), rows_of(separate), strict=True):
                    np.testing.assert_allclose(ends, steps[-1:], atol=TOLERANCE)


def test_cases_cover_every_kind() -> None:
    configs = [case.config for case in CASES.values()]
    assert {one.kind for one in configs} == {"chunk", "whole"}
    assert {one.pooling for one in configs} == {None, "last", "mean", "max"}
    layers = {(one.kind, layer.kind) for one in configs for layer in one.layers}
    assert layers == {(kind, cell) for kind in ("chunk", "whole") for cell in ("lstm", "gru", "rnn")}
    assert {layer.direction for one in configs for layer in one.layers} == {"forward", "backward", "both"}

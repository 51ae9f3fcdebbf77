"""Converts many random networks of Keras, judges each by Keras itself, and prints what came out.

    python -m tests.training.convert.keras.many 300 --first 0

Exit status 1: a conversion was accepted that is not the network.
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.training.convert.judging import Verdict, rows_of, rung_of
from tests.training.convert.keras.models import run_keras
from tests.training.convert.keras.networks import Plan, build, random_plan
from tests.training.convert.many import table
from training.convert.cases import Case, Drawing
from training.convert.converted import Converted
from training.convert.foreign import Foreign, Refused
from training.convert.keras import read_keras
from training.convert.ladder import climb
from training.convert.options import Choices

# Keras on PyTorch runs a layer step by step, so that few sequences are compared.
_LENGTHS = (1, 4, 11, 11, 20)
# Of networks that take sequences of one length in a batch.
_PAIRS = (4, 4, 11, 11)
# Steps of a sequence after which a network of the last step is asked, as shares.
_ASKED = (0.0, 0.3, 0.6, 1.0)


def main() -> int:
    """Convert, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="number of networks")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    given = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "torch"
    warnings.simplefilter("ignore")
    import keras  # noqa: PLC0415 - the backend must be chosen before

    found = {}
    for seed in range(given.first, given.first + given.count):
        plan = random_plan(seed)
        found[f"{plan.given} {seed}"] = judged(plan, keras)
        keras.backend.clear_session()
    for line in table(found):
        print(line)
    return 1 if any(one.is_wrong for one in found.values()) else 0


def judged(plan: Plan, keras: Any) -> Verdict:
    """Save the network of a plan, convert the file, and judge what comes out."""
    model = build(plan, keras)
    with tempfile.TemporaryDirectory() as folder:
        path, work = Path(folder) / "model.keras", Path(folder) / "work"
        work.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path)
        try:
            foreign = read_keras(path, work)
            converted = climb(foreign, Choices(), work)
        except Refused as error:
            return Verdict("refused", 0.0, str(error))
        return Verdict(rung_of(converted), difference(converted, foreign, model, work))


def difference(converted: Converted, foreign: Foreign, model: Any, folder: Path) -> float:
    """Return the largest difference of converted graphs from Keras, on sequences of their own."""
    drawing = Drawing(converted.input, skipped_value=foreign.skipped_value, needs_a_step=foreign.needs_a_step)
    rng = np.random.default_rng(10_000)
    takes_lengths = converted.kind == "chunk" or converted.padding == "lengths"
    cases = [drawing.case(rng, steps) for steps in (_LENGTHS if takes_lengths else _PAIRS)]
    try:
        found = rows_of(converted, cases, drawing, folder, rng)
    except Refused:
        return float("inf")
    return float(
        np.max([_off(converted, rows, model, case) for case, rows in zip(cases, found, strict=True)])
    )


def _off(converted: Converted, rows: NDArray[np.float32], model: Any, case: Case) -> float:
    """Return how far the outputs for one sequence are from those of Keras for it alone."""
    if converted.every_step or converted.kind == "whole":
        return _largest(rows, _answer(model, case))
    last = len(case.inputs) - 1
    asked = sorted({round(share * last) for share in _ASKED})
    expected = np.concatenate([_answer(model, case.prefix(step + 1)) for step in asked])
    return _largest(rows[asked], expected)


def _answer(model: Any, case: Case) -> NDArray[np.float32]:
    """Return what Keras gives for a sequence alone, float32 (T, outputs) or (1, outputs)."""
    (found, *_) = run_keras(model, case.inputs[None])
    return np.asarray(found.reshape(-1, found.shape[-1]))


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(found - expected))) / max(1.0, float(np.abs(expected).max()))


if __name__ == "__main__":
    sys.exit(main())

"""Compares candidates with their originals, which run each sequence alone.

A chunk cell is run on whole sequences, in chunks of several lengths, beside others and with garbage behind
the ends; a network of the last step is compared at every prefix. A difference is that of the largest output
where outputs are larger than 1.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from service.contract import spec
from training.convert.candidate import Candidate, Reference
from training.convert.cases import Case
from training.convert.converted import Comparison, Example
from training.convert.foreign import Refused
from training.convert.graph.copying import every_node, read_by
from training.convert.graph.session import Session
from training.convert.original.roles import RECURRENT
from training.convert.proofs.running import CellRunner, Rows, Take, run_whole

TOLERANCE = 2e-5
_LENGTHS = (1, 2, 5, 9, 14, 31)
_EXAMPLES = (5, 14, 31)
_EXAMPLE_STEPS = 5
_SCALES = (0.1, 10.0)
_LONG = 1000
_LONG_CHUNK = 64
_LONG_EVERY = 250
_EQUAL = (4, 17)
_ROWS = 5
# Steps of sequences with tokens and features that random ones hardly have.
_MARKED = (1, 6, 23, 23, 40)
_SHORT = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """What a comparison gave: one way after the other, and golden examples."""

    comparisons: tuple[Comparison, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A sequence, and what the original computed for it alone, float32 (T, outputs) or (1, outputs)."""

    case: Case
    outputs: NDArray[np.float32]


def prove_chunk(reference: Reference, candidate: Candidate, folder: Path) -> Proof:
    """Prove a chunk cell.

    Raises:
        Refused: it differs from the original; the sentence says where.
    """
    _check_head(candidate.graph.graph)
    runner = CellRunner(candidate, reference.drawing, folder)
    known = list(_known(reference, at_every_step=True))
    comparisons = []
    for way, run in _ways(runner):
        comparisons.append(_compared(way, known, run([one.case for one in known])))
    marked = list(_marked(reference, at_every_step=True))
    found = runner.outputs([one.case for one in marked], _steps(4))
    comparisons.append(_compared("unusual values, in chunks of 4", marked, found))
    for steps in (_LONG, *(turn + 1 for turn in reference.turns)):
        comparisons.append(_long_run(reference, runner, steps))
    return Proof(tuple(comparisons), _examples(reference, known))


def _check_head(graph: onnx.GraphProto) -> None:
    """Raise Refused if a recurrent node runs in the head: without a row onnxruntime ends the process."""
    wanted = {spec.WANTED}
    for node in graph.node:
        if node.op_type != "Shape" and wanted.intersection(read_by(node)):
            if any(one.op_type in RECURRENT for one in every_node([node])):
                raise Refused(
                    f"the head needs more of a recurrent layer ({node.op_type}) than its hidden state at its "
                    "step, such as the cell",
                )
            wanted.update(node.output)


def prove_whole(reference: Reference, candidate: Candidate, folder: Path) -> Proof:
    """Prove a whole network, padded where the candidate takes lengths.

    Raises:
        Refused: it differs from the original; the sentence says where.
    """
    session = Session(candidate.graph, folder)
    known = list(_known(reference, at_every_step=False))

    def run(cases: Sequence[Case]) -> Rows:
        return run_whole(session, cases, reference.drawing, not candidate.pooled)

    alone = [run([one.case])[0] for one in known]
    comparisons = [_compared("each alone", known, alone)]
    for steps in reference.lengths or _EQUAL:
        equal = _equal(reference, steps)
        comparisons.append(
            _compared(f"{_ROWS} of {steps} steps in one batch", equal, run([one.case for one in equal]))
        )
    if candidate.padding == "lengths":
        padded = run([one.case for one in known])
        comparisons.append(_compared("all in one batch, garbage behind the ends", known, padded))
        marked = list(_marked(reference, at_every_step=False))
        found = run([one.case for one in marked])
        comparisons.append(_compared("unusual values, all in one batch", marked, found))
        if not reference.lengths:
            comparisons.extend(_beside_long(reference, run))
    return Proof(tuple(comparisons), _examples(reference, known))


def _ways(runner: CellRunner) -> Iterator[tuple[str, Callable[[Sequence[Case]], Rows]]]:
    """Yield the ways to run a chunk cell, in words and as functions of the sequences."""
    whole = _steps(_LONG)

    def alone(cases: Sequence[Case]) -> Rows:
        return [runner.outputs([case], whole)[0] for case in cases]

    yield "each alone", alone
    yield "all in one batch, garbage behind the ends", lambda cases: runner.outputs(cases, whole)
    yield "in chunks of 1", lambda cases: runner.outputs(cases, _steps(1))
    yield "in chunks of 4", lambda cases: runner.outputs(cases, _steps(4))
    yield "in unequal chunks", lambda cases: runner.outputs(cases, lambda row, tick: 1 + (row + tick) % 3)


def _steps(steps: int) -> Take:
    return lambda row, tick: steps  # noqa: ARG005


def _known(reference: Reference, at_every_step: bool) -> Iterator[Known]:
    """Yield sequences of several lengths and scales with the original's outputs."""
    rng = np.random.default_rng(42)
    own = reference.lengths or ()
    lengths = sorted({*own, *(() if reference.is_fixed else _LENGTHS)})
    for index, steps in enumerate(lengths):
        # Some of the golden examples skip steps, where the network does.
        case = reference.drawing.case(rng, steps, skips=index % 2 == 0)
        yield _finite(reference, case, at_every_step)
    if reference.drawing.input.kind == "features":
        for scale in _SCALES:
            longest = max(own) if reference.is_fixed else max(_EXAMPLES)
            yield _finite(reference, reference.drawing.case(rng, longest, scale), at_every_step)


def _finite(reference: Reference, case: Case, at_every_step: bool) -> Known:
    outputs = answers(reference, case) if at_every_step else reference.answer(case)
    if not np.isfinite(outputs).all():
        raise Refused("the original gives numbers that are not finite for random sequences")
    return Known(case, outputs)


def answers(reference: Reference, case: Case) -> NDArray[np.float32]:
    """Return the original's outputs after each step, float32 (T, outputs), by prefixes if need be."""
    if reference.every_step:
        return reference.answer(case)
    return np.concatenate([reference.answer(case.prefix(end + 1)) for end in range(len(case.inputs))])


def _marked(reference: Reference, at_every_step: bool) -> Iterator[Known]:
    """Yield sequences of unusual values with the original's outputs."""
    rng = np.random.default_rng(46)
    for steps in reference.lengths or _MARKED:
        yield _finite(reference, reference.drawing.marked(rng, steps), at_every_step)


def _beside_long(reference: Reference, run: Callable[[Sequence[Case]], Rows]) -> Iterator[Comparison]:
    """Yield comparisons of short sequences in a batch with long ones.

    Raises:
        Refused: they differ, or the network does not take long ones, so that these would fail for all.
    """
    rng = np.random.default_rng(47)
    for steps in (_LONG, *(turn + 1 for turn in reference.turns)):
        cases = [reference.drawing.case(rng, one) for one in (steps, _SHORT)]
        known = [_finite(reference, case, at_every_step=False) for case in cases]
        yield _compared(f"{_SHORT} steps beside {steps} in one batch", known, run(cases))


def _long_run(reference: Reference, runner: CellRunner, steps: int) -> Comparison:
    case = reference.drawing.case(np.random.default_rng(43), steps)
    asked = sorted({*range(0, steps, _LONG_EVERY), steps - 1})
    if reference.every_step:
        outputs = reference.answer(case)[asked]
    else:
        outputs = np.concatenate([reference.answer(case.prefix(step + 1)) for step in asked])
    found = runner.outputs([case], _steps(_LONG_CHUNK), _LONG_EVERY)
    return _compared(f"{steps} steps in chunks of {_LONG_CHUNK}", [Known(case, outputs)], found)


def _equal(reference: Reference, steps: int) -> list[Known]:
    rng = np.random.default_rng(44)
    cases = [reference.drawing.case(rng, steps) for _ in range(_ROWS)]
    return [_finite(reference, case, at_every_step=False) for case in cases]


def _compared(way: str, known: Sequence[Known], found: Sequence[NDArray[np.float32]]) -> Comparison:
    """Return the largest difference of a way, which must be within the tolerance."""
    differences = []
    for one, output in zip(known, found, strict=True):
        expected = one.outputs
        if output.shape != expected.shape:
            raise Refused(f"{way}: expected outputs of shape {expected.shape}, found {output.shape}")
        scale = max(1.0, float(np.abs(expected).max()))
        differences.append(float(np.max(np.abs(output - expected))) / scale)
    # Not max(): it passes over NaN.
    largest = float(np.max(differences))
    steps = sum(len(one.case.inputs) for one in known)
    if not largest <= TOLERANCE:
        index = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
        raise Refused(
            f"{way}: off by {largest:.1e} from the original alone, on a sequence of "
            f"{len(known[index].case.inputs)} steps"
        )
    return Comparison(way, len(known), steps, largest)


def _examples(reference: Reference, known: Sequence[Known]) -> tuple[Example, ...]:
    """Return golden examples, of middle lengths or of the one that was asked for."""
    steps, lengths = reference.example_steps, reference.lengths
    if steps is not None and (lengths is None or steps in lengths):
        rng = np.random.default_rng(45)
        cases = [reference.drawing.case(rng, steps, skips=index % 2 == 0) for index in range(len(_EXAMPLES))]
        return tuple(_example(_finite(reference, case, at_every_step=False)) for case in cases)
    lengths = lengths or _EXAMPLES
    found, seen = [], set()
    for one in known:
        steps = len(one.case.inputs)
        if steps not in lengths or steps in seen:
            continue
        seen.add(steps)
        found.append(_example(one))
    return tuple(found)


def _example(one: Known) -> Example:
    """Return a golden example with some of its steps."""
    steps = len(one.case.inputs)
    if len(one.outputs) == steps:
        share = np.linspace(0, steps - 1, min(steps, _EXAMPLE_STEPS))
        asked = tuple(sorted({round(step) for step in share}))
        outputs = one.outputs[list(asked)]
    else:
        asked, outputs = (steps - 1,), one.outputs
    return Example(one.case.inputs, asked, outputs, one.case.initial, one.case.source)

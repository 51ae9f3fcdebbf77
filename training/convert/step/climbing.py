"""Converts step graphs: proves the chunk cells that can be made of one, and takes the fastest."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from service.contract import spec
from training.convert.candidate import Candidate
from training.convert.converted import Converted
from training.convert.foreign import Array, Foreign, Refused
from training.convert.graph.session import Session
from training.convert.graph.weights import move_out, with_weights
from training.convert.options import Choices
from training.convert.proofs.proving import Proof, prove_chunk
from training.convert.step.candidates import WAYS, candidate
from training.convert.step.graphs import StepGraph
from training.convert.step.original import StepOriginal
from training.convert.step.reading import read_step

# Batches that a server runs, as rows, time steps and wanted outputs: one caller, many streams, long sequences
# with outputs at every time step, and at the last one alone.
_BATCHES: Final = ((1, 1, 1), (32, 1, 32), (16, 16, 256), (16, 16, 16))
_RUNS = 15
# What a later way must cost of an earlier one's time to be taken: timing varies by less.
_FASTER = 0.9


def climb_step(foreign: Foreign, choices: Choices, folder: Path) -> Converted:
    """Convert a graph that takes one time step a call.

    Args:
        foreign: the network.
        choices: what the user said about it.
        folder: a folder for the file of its weights alone.

    Raises:
        Refused: it is no such graph, or no way to run it equals the original.
    """
    # Folding needs the values of weights, and step graphs are small.
    foreign = replace(foreign, graph=with_weights(foreign.graph, folder))
    step = read_step(foreign, choices)
    reference = StepOriginal(foreign, choices, step)
    step = with_weights_in(step, folder)
    proven: list[tuple[Candidate, Proof]] = []
    tried: list[tuple[str, str]] = []
    for way in WAYS:
        try:
            made = candidate(step, way)
            proven.append((made, prove_chunk(reference, made, folder)))
        except Refused as error:
            tried.append((way, str(error)))
    if not proven:
        raise Refused("; ".join(f"{way}: {why}" for way, why in tried))
    costs = costs_of([made for made, _ in proven], step, folder)
    best = 0
    for index, cost in enumerate(costs):
        best = index if cost < _FASTER * costs[best] else best
    made, proof = proven[best]
    return _converted(step, reference, made, proof, folder, foreign.assumed, tuple(tried))


def with_weights_in(step: StepGraph, folder: Path) -> StepGraph:
    """Return a step graph whose large weights are moved into a file in a folder."""
    graph, _ = move_out(step.graph, folder)
    return replace(step, graph=graph, folder=folder)


def costs_of(candidates: Sequence[Candidate], step: StepGraph, folder: Path) -> list[float]:
    """Return for each candidate the seconds of a time step, summed over the batches that a server runs."""
    if len(candidates) == 1:
        return [0.0]
    sessions = [Session(one.graph, folder) for one in candidates]
    costs = [0.0] * len(candidates)
    for rows, steps, wanted in _BATCHES:
        feeds = [_feeds(one, step, rows, steps, wanted) for one in candidates]
        # The candidates alternate, so that what else the machine does slows none of them alone.
        runs = [[_seconds(*pair) for pair in zip(sessions, feeds, strict=True)] for _ in range(_RUNS)]
        costs = [
            cost + min(took) / (rows * steps)
            for cost, took in zip(costs, zip(*runs, strict=True), strict=True)
        ]
    return costs


def _seconds(session: Session, feeds: Mapping[str, Array]) -> float:
    began = time.perf_counter()
    session.run(feeds)
    return time.perf_counter() - began


def _feeds(made: Candidate, step: StepGraph, rows: int, steps: int, wanted: int) -> dict[str, Array]:
    is_tokens = step.vocabulary is not None
    data: Array = (
        np.zeros((rows, steps), np.int64) if is_tokens else np.ones((rows, steps, step.features), np.float32)
    )
    states = {one.input: np.zeros((rows, one.size), np.float32) for one in made.states}
    return {
        spec.INPUT: data,
        spec.LENGTHS: np.full(rows, steps, np.int32),
        spec.WANTED: np.arange(wanted, dtype=np.int64) * (rows * steps // wanted),
        **states,
    }


def _converted(
    step: StepGraph,
    reference: StepOriginal,
    made: Candidate,
    proof: Proof,
    folder: Path,
    assumed: tuple[str, ...],
    tried: tuple[tuple[str, str], ...],
) -> Converted:
    states = ", ".join(f"{one.input} to {one.output} as {one.name}" for one in step.states)
    kind = f"{step.vocabulary} token ids" if step.vocabulary is not None else f"{step.features} features"
    rows = "at every time step" if reference.every_step else "of the last time step"
    found = [
        f"layers: {', '.join(f'{one.kind} {one.width} {one.direction}' for one in made.layers)}",
        f"input {step.data}: {kind}, one time step a call",
        f"output {step.output}: {step.width} numbers {rows}",
        f"states: {states}",
        *made.notes,
    ]
    if step.overlap:
        found.append(
            f"the last {step.overlap} numbers of a time step stand before the next one, zeros at first"
        )
    return Converted(
        kind=made.kind,
        graph=made.graph,
        layers=made.layers,
        input=step.input,
        outputs=step.width,
        every_step=reference.every_step,
        examples=proof.examples,
        comparisons=proof.comparisons,
        weights_folder=str(folder),
        states=made.states,
        found=tuple(found),
        assumed=(*assumed, *step.assumed),
        tried=tried,
    )

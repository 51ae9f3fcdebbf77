"""Runs candidates on sequences: chunk cells cut in many ways, whole networks padded with garbage."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.candidate import Candidate
from training.convert.cases import Case, Drawing
from training.convert.foreign import Array, Refused
from training.convert.graph.session import Session
from training.convert.rungs.start import SOURCE

Rows = list[NDArray[np.float32]]
# Number of steps to take of a row in a tick.
Take = Callable[[int, int], int]


class CellRunner:
    """A chunk cell with its states.

    Args:
        candidate: the cell.
        drawing: what it takes.
        folder: folder of its weights; None: the graphs hold them.
    """

    def __init__(self, candidate: Candidate, drawing: Drawing, folder: Path | None) -> None:
        self._session = Session(candidate.graph, folder)
        self._init = None if candidate.init is None else Session(candidate.init, folder)
        self._states, self._drawing = candidate.states, drawing
        self._rng = np.random.default_rng(5)

    def outputs(self, cases: Sequence[Case], take: Take, every: int = 1) -> Rows:
        """Run sequences in one batch, cut in time, with garbage behind the ends of the rows of each chunk.

        Args:
            cases: sequences.
            take: returns the steps that a row gets in a tick.
            every: ask for the outputs of every so many steps alone, and for those of each last step.

        Returns:
            Rows of outputs of each sequence, in the order of its steps.
        """
        state = [self._first(case) for case in cases]
        done, tick = [0] * len(cases), 0
        pieces: list[Rows] = [[] for _ in cases]
        while rows := [row for row, case in enumerate(cases) if done[row] < len(case.inputs)]:
            parts = [cases[row].inputs[done[row] : done[row] + take(row, tick)] for row in rows]
            wanted = [
                [
                    at
                    for at in range(len(part))
                    if self._is_asked(done[row] + at, len(cases[row].inputs), every)
                ]
                for row, part in zip(rows, parts, strict=True)
            ]
            found, after = self._tick(parts, [state[row] for row in rows], wanted)
            for row, part, output, new in zip(rows, parts, found, after, strict=True):
                pieces[row].append(output)
                state[row] = new
                done[row] += len(part)
            tick += 1
        return [np.concatenate(one) for one in pieces]

    @staticmethod
    def _is_asked(step: int, steps: int, every: int) -> bool:
        return step % every == 0 or step == steps - 1

    def _first(self, case: Case) -> list[NDArray[np.float32]]:
        """Return the states before the first step, float32 (size,) each."""
        found: dict[str, Array] = {}
        if self._init is not None:
            feeds: dict[str, Array] = {name: row[None] for name, row in case.initial.items()}
            if case.source is not None:
                feeds[SOURCE] = case.source[None]
            found = dict(zip(self._init.outputs, self._init.run(feeds), strict=True))
        return [
            found[one.input][0]
            if one.input in found
            else np.broadcast_to(np.asarray(one.start, np.float32), one.size)
            for one in self._states
        ]

    def _tick(
        self, parts: Sequence[Array], states: Sequence[Rows], wanted: Sequence[list[int]]
    ) -> tuple[Rows, list[Rows]]:
        padded, lengths = padded_batch(self._rng, self._drawing, parts)
        steps = padded.shape[1]
        feeds: dict[str, Array] = {
            spec.INPUT: padded,
            spec.LENGTHS: lengths,
            spec.WANTED: np.array(
                [row * steps + at for row, one in enumerate(wanted) for at in one], np.int64
            ),
        }
        for place, one in enumerate(self._states):
            feeds[one.input] = np.stack([row[place] for row in states])
        names = [spec.OUTPUT, *(one.output for one in self._states)]
        output, *after = self._session.run(feeds, names)
        if len(output) != len(feeds[spec.WANTED]):
            raise Refused(f"the head gives {len(output)} rows for {len(feeds[spec.WANTED])} steps")
        ends = np.cumsum([len(one) for one in wanted])[:-1]
        return np.split(output, ends), [list(row) for row in zip(*after, strict=True)]


def run_whole(session: Session, cases: Sequence[Case], drawing: Drawing, every_step: bool) -> Rows:
    """Run whole sequences in one batch, with garbage behind the ends of shorter ones."""
    rng = np.random.default_rng(6)
    padded, lengths = padded_batch(rng, drawing, [case.inputs for case in cases])
    (output,) = session.run({spec.INPUT: padded, spec.LENGTHS: lengths}, [spec.OUTPUT])
    if len(output) != len(cases):
        raise Refused(f"expected {len(cases)} rows of outputs for as many sequences, found {len(output)}")
    return [row[:length] if every_step else row[None] for row, length in zip(output, lengths, strict=True)]


def padded_batch(
    rng: np.random.Generator, drawing: Drawing, parts: Sequence[Array]
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return sequences as one batch, (B, T) or (B, T, F), and their lengths, int32 (B,)."""
    lengths = np.array([len(part) for part in parts], np.int32)
    longest = int(lengths.max())
    rows = [np.concatenate([part, drawing.padding(rng, longest - len(part))]) for part in parts]
    dtype = np.int64 if drawing.input.kind == "tokens" else np.float32
    return np.stack(rows).astype(dtype), lengths

"""The live part of the page Sequences: rows go to a stream at a rate, and outputs are drawn as they come."""

import asyncio
from collections.abc import Callable

from nicegui import ui

from seqserve.cli.given import Given
from seqserve.playground.drawing import OKABE_ITO
from seqserve.playground.live import MAX_RATE, MIN_RATE, Live
from seqserve.playground.live_run import LiveRun
from seqserve.playground.pieces import line_names
from seqserve.playground.sequence_inputs import time_steps, typed_sequences
from seqserve.playground.widgets import LineChart
from seqserve.playground.work import Work
from seqserve.results import ModelInfo
from seqserve.sequence_results import SequenceOutput


class LivePanel:
    """Controls of a stream, and the chart of its outputs.

    Args:
        model: The model.
        work: Runs the stream, whose task holds it open.
        sequence: Returns the sequence to send.
        initial: Returns what the init graph takes, or None.
    """

    def __init__(
        self,
        model: ModelInfo,
        work: Work,
        sequence: Callable[[], Given],
        initial: Callable[[], dict[str, list[float]] | None],
    ) -> None:
        self._model, self._work = model, work
        self._sequence, self._initial = sequence, initial
        self._run: LiveRun | None = None
        self._task: asyncio.Task[None] | None = None
        self._live = Live([])
        ui.label("Live stream").props("role=heading aria-level=2").classes("text-h6")
        if model.kind == "whole" or model.spec.get("window"):
            ui.label(f"{model.name} needs whole sequences, so it has no stream.").classes("sq-quiet")
            return
        ui.label(
            "The time steps above, sent one after the other; the server keeps the state, so that each costs "
            "one step of the network."
        ).classes("sq-quiet")
        self._show_controls()
        self._told = ui.label().props("role=status").classes("sq-live")
        self._chart = LineChart("time step", "")

    def _show_controls(self) -> None:
        action = self._work.action
        with ui.row().classes("items-center"):
            self._rate = (
                ui.number("Rows per second", value=10, min=MIN_RATE, max=MAX_RATE)
                .props("dense")
                .classes("w-36")
            )
            ui.button("Play", icon="play_arrow", on_click=action(self._play)).props("no-caps").classes(
                "sq-play"
            )
            ui.button("Pause", icon="pause", on_click=self._pause).props("outline no-caps")
            ui.button("One step", icon="skip_next", on_click=action(self._step)).props(
                "outline no-caps"
            ).classes("sq-step")
            ui.button("Begin anew", icon="replay", on_click=self.reset).props("flat no-caps").classes(
                "sq-cancel"
            )
        with ui.row().classes("w-full items-center no-wrap"):
            self._next = ui.input("Further time step").classes("grow")
            ui.button("Push", on_click=action(self._push)).props("outline no-caps")

    async def _play(self) -> None:
        self._begun().play(self._rate.value)

    async def _step(self) -> None:
        self._begun().step()

    async def _push(self) -> None:
        [given] = typed_sequences(self._model, self._next.value or "")[:1]
        for part in time_steps(given):
            self._begun().add(part)

    def _pause(self) -> None:
        if self._run is not None:
            self._run.pause()

    def reset(self) -> None:
        """Let the server forget the sequence, so that the next step is the first of another one."""
        if self._task is not None:
            self._task.cancel()
            self._told.set_text("")
        self._run = self._task = None

    def _begun(self) -> LiveRun:
        """Return the run that goes on; begin one where none is, or the last one's call has ended."""
        if self._run is None or self._task is None or self._task.done():
            self._run = LiveRun(self._model, time_steps(self._sequence()), self._initial())
            self._live = Live([])
            self._task = self._work.start(
                self._run.follow(self._work.context.client, self._show, self._work.context.fail)
            )
        return self._run

    def _show(self, output: SequenceOutput) -> None:
        assert self._run is not None
        is_probability = bool(output.flat_probabilities)
        rows = output.probability_rows if is_probability else output.value_rows
        if not self._live.names:
            self._live = Live(line_names(self._model, len(rows[0]), is_probability=is_probability))
        self._live.add(output.position, rows)
        label = f": {output.label}" if output.label else ""
        self._told.set_text(
            f"step {output.position:,}{label} ({self._run.sent:,} of {self._run.total:,} sent)"
        )
        steps = [str(step) for step in self._live.steps]
        self._chart.show(
            steps,
            self._live.series(OKABE_ITO),
            self._live.names,
            "probability" if is_probability else "value",
        )

"""The page Sequences: what any model makes of steps, tokens or text, whole or as a live stream."""

import asyncio
from collections.abc import Sequence
from pathlib import PurePath

from nicegui import ui

from seqserve.cli.given import Given
from seqserve.cli.infer_output import Answered
from seqserve.playground.context import Context
from seqserve.playground.examples import example_initial, init_inputs
from seqserve.playground.live_panel import LivePanel
from seqserve.playground.output_view import show_output
from seqserve.playground.sequence_inputs import (
    Takes,
    example_input,
    file_sequences,
    parse_initial,
    typed_sequences,
)
from seqserve.playground.sequence_run import Asked, run_sequences, table_of
from seqserve.playground.uploads import short_name
from seqserve.playground.widgets import Reading, download_button, drop_file
from seqserve.playground.work import Work, choose
from seqserve.results import ModelInfo

TASKS = ("sequences", "text-classification")
MAX_LISTED = 200
"""Sequences of a file that can be looked at one by one; the download has all."""

_STEPS = {None: "as the model was made for", True: "every time step", False: "the last time step"}


async def build(context: Context) -> None:
    """Let the user choose a model, and run sequences through it."""
    await choose(context, "sequences", lambda model: model.task in TASKS, SequencesPanel)


class SequencesPanel:
    """A field and a file for sequences, their outputs, and the live stream.

    Args:
        model: The model.
        work: Runs the calls.
    """

    def __init__(self, model: ModelInfo, work: Work) -> None:
        self._model, self._work = model, work
        self._given: list[Given] = []
        self._name = "sequence"
        self._run: asyncio.Task[None] | None = None
        self._shown = self._example = 0
        takes = Takes.of(model)
        ui.label(f"Takes {takes.what}; gives {model.output or 'outputs'}. {takes.hint}").classes("sq-quiet")
        self._box = (
            ui.textarea(takes.what.capitalize())
            .classes("w-full sq-sequence")
            .props("outlined autogrow counter")
        )
        self._initial = self._show_initial()
        with ui.row().classes("items-center"):
            ui.button("Run", icon="play_arrow", on_click=work.action(self._typed)).props("no-caps").classes(
                "sq-send"
            )
            ui.button("Try an example", icon="lightbulb", on_click=work.action(self._try)).props(
                "outline no-caps"
            )
            self._every = ui.select(_STEPS, value=None, label="Answer").props("dense").classes("w-56")
            self._raw = ui.switch("Raw outputs")
        drop_file("Drop a file with sequences here", work, self._read)
        self._reading = Reading(has_rows=model.input == "steps", has_sequences=model.input == "steps")
        self._told = ui.label().props("role=status").classes("sq-answer")
        self._results = ui.column().classes("w-full")
        self._live = LivePanel(model, work, self._sequence, self._initial_values)

    def _show_initial(self) -> dict[str, ui.input]:
        """Show a field for each input of the init graph, filled with a golden example's values."""
        examples = example_initial(self._model)
        found = {}
        for name, size in init_inputs(self._model).items():
            text = ", ".join(f"{value:.6g}" for value in examples.get(name, ()))
            found[name] = ui.input(f"Initial {name} ({size} numbers)", value=text).classes("w-full")
        return found

    def _initial_values(self) -> dict[str, list[float]] | None:
        return parse_initial({name: field.value or "" for name, field in self._initial.items()})

    def _sequence(self) -> Given:
        """Return the sequence for the live stream: that in the field, or the file's one that is shown."""
        if self._given and not self._box.value:
            return self._given[self._shown]
        return typed_sequences(self._model, self._box.value or "")[0]

    async def _try(self) -> None:
        text = example_input(self._model, self._example)
        self._example += 1
        if not text:
            self._work.context.alert.show("The model has no golden example of what callers send.")
            return
        self._box.set_value(text)
        await self._typed()

    async def _typed(self) -> None:
        text = self._box.value or ""
        self._begin("sequence", await asyncio.to_thread(typed_sequences, self._model, text))

    async def _read(self, name: str, data: bytes) -> None:
        given = await asyncio.to_thread(file_sequences, self._model, name, data, self._reading.how)
        self._box.set_value("")
        self._begin(PurePath(short_name(name)).stem, given)

    def _begin(self, name: str, given: list[Given]) -> None:
        """Run sequences instead of those that still run."""
        if self._run is not None:
            self._run.cancel()
        self._live.reset()
        self._name, self._given, self._shown = name, given, 0
        self._run = self._work.start(self._infer(given))

    async def _infer(self, given: list[Given]) -> None:
        asked = Asked(self._model, self._every.value, self._raw.value, self._initial_values())
        answers: list[Answered] = []
        self._results.clear()
        self._told.set_text("")
        async for each in run_sequences(self._work.context.client, given, asked):
            answers.append(each)
            if len(answers) % 50 == 0:
                self._told.set_text(f"{len(answers):,} of {len(given):,} sequences")
        self._show(answers)

    def _show(self, answers: Sequence[Answered]) -> None:
        failed = sum(each.output is None for each in answers)
        told = "1 sequence" if len(answers) == 1 else f"{len(answers):,} sequences"
        self._told.set_text(f"{told}, {failed:,} refused" if failed else told)
        with self._results:
            download_button(
                "Download the outputs", f"{self._name}-outputs.csv", lambda: table_of(answers, self._model)
            ).classes("sq-download")
            if len(answers) == 1:
                show_output(self._model, answers[0])
                return
            titles = {place: _title(each) for place, each in enumerate(answers[:MAX_LISTED])}
            select = ui.select(titles, value=0, label="Sequence").classes("w-64")
            body = ui.column().classes("w-full")

        def show() -> None:
            self._shown = select.value
            body.clear()
            with body:
                show_output(self._model, answers[select.value])

        select.on_value_change(show)
        show()


def _title(answered: Answered) -> str:
    label = answered.output.label if answered.output else "refused"
    return f"{answered.given.name}: {label}" if label else answered.given.name

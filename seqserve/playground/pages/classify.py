"""The page Classify: probabilities of labels while one types, and the lines of a file as a table."""

import asyncio
from pathlib import PurePath

from nicegui import ui

from seqserve.errors import SeqserveError
from seqserve.playground.bars import bars_of
from seqserve.playground.class_lines import ClassifiedLine, classify_lines, table_of
from seqserve.playground.context import Context
from seqserve.playground.examples import example_texts
from seqserve.playground.newest import Newest
from seqserve.playground.uploads import Line, read_lines, short_name
from seqserve.playground.widgets import BarRows, Reading, download_button, drop_file, show_table
from seqserve.playground.work import Work, choose
from seqserve.results import Classification, ModelInfo
from seqserve.tabular import Record

DEBOUNCE_S = 0.15
TASK = "text-classification"
_NO_EXAMPLES = "The model has no golden example with a text."


async def build(context: Context) -> None:
    """Let the user choose a model, and classify with it."""
    await choose(context, "text classification", lambda model: model.task == TASK, _show)


def _show(model: ModelInfo, work: Work) -> None:
    TypedText(model, work)
    ui.separator()
    LinesOfFile(model, work)


class TypedText:
    """A text that is classified while it is typed.

    Args:
        model: The model.
        work: Runs the calls.
    """

    def __init__(self, model: ModelInfo, work: Work) -> None:
        self._model, self._work = model, work
        self._newest: Newest[list[Classification]] = Newest(DEBOUNCE_S)
        self._examples = example_texts(model)
        self._example = 0
        self._box = (
            ui.textarea("Text", on_change=self._typed).classes("w-full").props("autogrow outlined counter")
        )
        ui.button("Try an example", icon="lightbulb", on_click=self._try).props("outline no-caps")
        self._told = ui.label().props("role=status").classes("text-h6 sq-answer")
        self._bars = BarRows()

    def _typed(self) -> None:
        self._newest.cancel()
        if self._box.value:
            self._work.start(self._classify(self._box.value))
        else:
            self._told.set_text("")
            self._bars.show([])

    def _try(self) -> None:
        if not self._examples:
            self._work.context.alert.show(_NO_EXAMPLES)
            return
        self._box.set_value(self._examples[self._example % len(self._examples)])
        self._example += 1

    async def _classify(self, text: str) -> None:
        found = await self._newest.run(
            lambda: self._work.context.client.classify(
                [text], model=self._model.name, version=self._model.version
            )
        )
        if found is None:
            return
        self._work.context.alert.clear()
        [answer] = found
        shares = {each.label: each.probability for each in answer.probabilities}
        tokens = "1 token" if answer.token_count == 1 else f"{answer.token_count:,} tokens"
        self._told.set_text(f"{answer.label}, {100 * answer.probability:.1f} %, of {tokens}")
        self._bars.show(bars_of((label, shares[label]) for label in self._model.labels or shares))


class LinesOfFile:
    """The lines of a file, classified over one stream, with progress and a table to download.

    Args:
        model: The model.
        work: Runs the call.
    """

    def __init__(self, model: ModelInfo, work: Work) -> None:
        self._model, self._work = model, work
        self._run: asyncio.Task[None] | None = None
        ui.label("Lines of a file").props("role=heading aria-level=2").classes("text-h6")
        drop_file("Drop a file with a text on each line here", work, self._read)
        self._reading = Reading(has_rows=False)
        with ui.row().classes("items-center"):
            ui.button("Try example lines", icon="lightbulb", on_click=work.action(self._try)).props(
                "outline no-caps"
            )
            self._stop = ui.button("Cancel", on_click=self._cancel).props("flat no-caps").classes("sq-cancel")
        self._progress = ui.linear_progress(0, show_value=False).props("aria-label='Lines answered'")
        self._told = ui.label().props("role=status")
        self._results = ui.column().classes("w-full")
        self._show_running(False)

    def _cancel(self) -> None:
        if self._run is not None:
            self._run.cancel()

    async def _read(self, name: str, data: bytes) -> None:
        lines = await asyncio.to_thread(read_lines, name, data, self._reading.how.encoding)
        self._begin(PurePath(short_name(name)).stem, lines)

    async def _try(self) -> None:
        lines = [Line(number, text) for number, text in enumerate(example_texts(self._model), 1)]
        if lines:
            self._begin("example", lines)
        else:
            self._work.context.alert.show(_NO_EXAMPLES)

    def _begin(self, name: str, lines: list[Line]) -> None:
        """Classify lines instead of those that still run."""
        self._cancel()
        self._run = self._work.start(self._classify(name, lines))

    async def _classify(self, name: str, lines: list[Line]) -> None:
        found: list[ClassifiedLine] = []
        self._results.clear()
        self._show_running(True)
        answers = classify_lines(self._work.context.client, lines, self._model.name, self._model.version)
        try:
            async for each in answers:
                found.append(each)
                if len(found) % max(1, len(lines) // 100) == 0:
                    self._show_progress(len(found), len(lines))
        except (SeqserveError, asyncio.CancelledError):
            self._told.set_text(f"Stopped after {len(found):,} of {len(lines):,} lines.")
            raise
        finally:
            await answers.aclose()
            if asyncio.current_task() is self._run:
                self._show_running(False)
        self._show_found(name, found)

    def _show_running(self, is_running: bool) -> None:
        self._stop.set_visibility(is_running)
        self._progress.set_visibility(is_running)

    def _show_progress(self, answered: int, total: int) -> None:
        self._progress.set_value(answered / total)
        self._told.set_text(f"{answered:,} of {total:,} lines")

    def _show_found(self, name: str, found: list[ClassifiedLine]) -> None:
        ordered = sorted(found, key=lambda each: each.line.number)
        self._told.set_text(summary(ordered))
        with self._results:
            download_button(
                "Download the table", f"{name}-classified.csv", lambda: table_of(ordered, self._model.labels)
            ).classes("sq-download")
            show_table([shown(each) for each in ordered])


def summary(found: list[ClassifiedLine]) -> str:
    """Return how many lines got each label, and how many were refused, the most frequent first."""
    counts: dict[str, int] = {}
    for each in found:
        if each.result is not None:
            counts[each.result.label] = counts.get(each.result.label, 0) + 1
    failed = len(found) - sum(counts.values())
    told = [f"{label} {count:,}" for label, count in sorted(counts.items(), key=lambda pair: -pair[1])[:10]]
    counted = "1 line" if len(found) == 1 else f"{len(found):,} lines"
    return f"{counted}: {', '.join([*told, *([f'{failed:,} refused'] if failed else [])])}"


def shown(each: ClassifiedLine) -> Record:
    """Return a line as a row of the table on the page."""
    label, probability = (each.result.label, f"{each.result.probability:.4f}") if each.result else ("", "")
    return {
        "line": each.line.number,
        "label": label,
        "probability": probability,
        "text": each.line.text[:200],
        "error": each.error,
    }

"""Shows the output of one sequence: coloured tags, bars, numbers over the steps, or an embedding."""

from nicegui import ui

from seqserve.cli.infer_output import Answered
from seqserve.playground.bars import bars_of, labelled, short_label
from seqserve.playground.drawing import OKABE_ITO, category_color, text_on
from seqserve.playground.live import Live
from seqserve.playground.pieces import Piece, line_names, output_names, pieces_of, records_of
from seqserve.playground.widgets import BarRows, LineChart, show_table
from seqserve.results import ModelInfo
from seqserve.sequence_results import SequenceOutput

MAX_LEGEND = 24
MAX_SHOWN_NUMBERS = 16


def show_output(model: ModelInfo, answered: Answered) -> None:
    """Show an output as what it is, and then its rows as a table; of a refused sequence the reason.

    Args:
        model: The model.
        answered: A sequence and its output, or its error.
    """
    output, text = answered.output, answered.given.text or ""
    if output is None:
        ui.label(answered.description).props("role=alert").classes("sq-alert w-full")
        return
    if output.steps == 1:
        _show_row(model, output)
        return
    if text and output.labels and output.spans:
        _show_tags(model, pieces_of(text, output, model.labels))
    else:
        _show_lines(model, output)
    show_table(records_of(output, model, text))


def _show_row(model: ModelInfo, output: SequenceOutput) -> None:
    """Show one row: a class as bars, and numbers as a sentence."""
    [shares], [values] = output.probability_rows, output.value_rows
    if shares:
        ui.label(short_label(output.label) or "No label holds").classes("text-h6")
        # Labels that hold for themselves do not add up to one.
        exclusive = abs(sum(shares) - 1) < 1e-3
        BarRows().show(bars_of(labelled(model.labels, shares), exclusive=exclusive))
    if values:
        names = output_names(model, len(values), is_probability=False)
        kind = "An embedding" if model.output == "embedding" else "A row"
        ui.label(f"{kind} of {len(values):,} numbers; the download has all digits.").classes("sq-quiet")
        shown = [f"{name} {value:.6g}" for name, value in zip(names, values, strict=True)][:MAX_SHOWN_NUMBERS]
        rest = len(values) - len(shown)
        ui.label(", ".join(shown) + (f", and {rest:,} more" if rest else "")).classes("sq-numbers")


def _show_tags(model: ModelInfo, pieces: list[Piece]) -> None:
    """Show a text with its labelled pieces in colours; each names its label, so that no colour is needed."""
    with ui.row().classes("gap-1 sq-legend").props("role=list aria-label=Labels"):
        for place, label in enumerate(model.labels[:MAX_LEGEND]):
            _tag(short_label(label), place).props("role=listitem")
    with ui.element("div").classes("w-full sq-tags"):
        for piece in pieces:
            if piece.label and piece.place is not None:
                _show_piece(piece, piece.place)
            else:
                ui.label(piece.text)


def _show_piece(piece: Piece, place: int) -> None:
    label = short_label(piece.label)
    told = label if piece.probability is None else f"{label} {100 * piece.probability:.0f} %"
    style = f"border-color: {category_color(place)}"
    with ui.element("span").classes("sq-piece").props("tabindex=0").style(style):
        ui.label(piece.text)
        _tag(label, place)
        ui.tooltip(told)


def _tag(text: str, place: int) -> ui.label:
    color = category_color(place)
    return ui.label(text).classes("sq-tag").style(f"background: {color}; color: {text_on(color)}")


def _show_lines(model: ModelInfo, output: SequenceOutput) -> None:
    """Show the numbers of each step as lines: probabilities where there are some, or else values."""
    rows = output.probability_rows if output.flat_probabilities else output.value_rows
    live = Live(line_names(model, len(rows[0]), is_probability=bool(output.flat_probabilities)))
    live.add(output.steps, rows)
    chart = LineChart("time step", "probability" if output.flat_probabilities else "value")
    chart.show([str(step) for step in live.steps], live.series(OKABE_ITO), live.names)

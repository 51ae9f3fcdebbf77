"""The picture of an engine's ticks: an element that the browser draws, and what it is sent.

The browser gets each tick once and scrolls by itself, so that a picture that moves costs no further messages.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from nicegui import events
from nicegui.element import Element

from seqserve.engine_results import EngineTick, EngineTicks, RowKind
from seqserve.playground.drawing import OKABE_ITO, text_on

# Letter in a block of the picture, and colour, of each kind. Blue, orange and green differ for all readers.
_LOOKS: Final = {
    RowKind.PREFILL: ("P", OKABE_ITO[0]),
    RowKind.DECODE: ("D", OKABE_ITO[1]),
    RowKind.LAST: ("L", OKABE_ITO[2]),
    RowKind.EVERY: ("E", OKABE_ITO[3]),
    RowKind.SCORE: ("S", OKABE_ITO[4]),
    RowKind.UNKNOWN: ("?", OKABE_ITO[7]),
}
_INDEX: Final = {kind: index for index, kind in enumerate(_LOOKS)}
SPANS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds that the picture may show, as in its script."""
_LABEL: Final = (
    "Picture of the ticks: a lane for each slot, time from left to right. Arrow keys go from tick to tick "
    "and from row to row, plus and minus zoom."
)


def looks() -> list[dict[str, str]]:
    """Return name, letter and colours of each kind, in the order of the numbers that `payload` sends."""
    return [
        {"name": kind.value, "letter": letter, "color": color, "text": text_on(color)}
        for kind, (letter, color) in _LOOKS.items()
    ]


def payload(ticks: EngineTicks) -> dict[str, Any]:
    """Return what the picture is sent of one item of a watch: lists of numbers, which are short as JSON."""
    return {"now": round(ticks.now_s, 5), "ticks": [_tick(tick) for tick in ticks.ticks]}


def _tick(tick: EngineTick) -> list[Any]:
    rows: list[int] = []
    for row in tick.rows:
        rows += row.slot, row.sequence, _INDEX[row.kind], row.steps
    start_s, duration_s = round(tick.start_s, 5), round(tick.duration_s, 5)
    return [tick.engine, tick.kind.value, start_s, duration_s, tick.steps, tick.waiting_sequences, rows]


class EnginePicture(Element, component=Path(__file__).parent / "static" / "ticks.js"):
    """A canvas that shows slots against time.

    Args:
        span_s: Seconds that it shows.
        on_stop: Called when a user stops it, by choosing a tick.
        on_span: Called with the seconds that a user zooms to.
    """

    def __init__(self, span_s: float, on_stop: Callable[[], None], on_span: Callable[[float], None]) -> None:
        super().__init__()
        self.props["kinds"] = looks()
        self.props["label"] = _LABEL
        self.props["span"] = span_s
        self.on("stop", lambda _: on_stop())

        def zoom(event: events.GenericEventArguments) -> None:
            if event.args in SPANS:
                on_span(float(event.args))

        self.on("span", zoom)

    def push(self, ticks: EngineTicks) -> None:
        """Add the ticks of an item; ignored while the picture is stopped."""
        self.run_method("push", payload(ticks))

    def forget(self) -> None:
        """Forget all ticks, and let the picture run."""
        self.run_method("clear")

    def stop(self, is_stopped: bool) -> None:
        """Stop the picture, or let it go on from now."""
        self.run_method("stop", is_stopped)

    def show_span(self, span_s: float) -> None:
        """Show so many seconds."""
        self.props["span"] = span_s
        self.update()

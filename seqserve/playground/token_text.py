"""The element that shows a text whose tokens are coloured by their probability, with alternatives of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nicegui import ui

from seqserve.playground.drawing import CIVIDIS, text_on
from seqserve.results import TokenAlternative

_COLORS: Final = [(color, text_on(color)) for color in CIVIDIS]


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is shown; its log-probability is None where it is not known."""

    text: str
    logprob: float | None


class TokenText(ui.element, component="static/token_text.js"):
    """Shows a prompt and tokens after it. The browser gets texts as data, never as HTML.

    Args:
        label: What it is, for screen readers.

    Attributes:
        tokens: The tokens shown.
        alternatives: The likeliest tokens in place of each, or none.
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self._props["colors"] = _COLORS
        self._props["label"] = label
        self.tokens: list[Token] = []
        self.alternatives: tuple[tuple[TokenAlternative, ...], ...] = ()

    @property
    def text(self) -> str:
        """The text of all tokens."""
        return "".join(token.text for token in self.tokens)

    def reset(self, prompt: str) -> None:
        """Show a prompt and no tokens."""
        self.tokens, self.alternatives = [], ()
        self.run_method("reset", prompt)

    def append(self, tokens: Sequence[Token]) -> None:
        """Show further tokens."""
        self.tokens += tokens
        self.run_method("append", [(token.text, token.logprob) for token in tokens])

    def set_alternatives(self, alternatives: Sequence[tuple[TokenAlternative, ...]], note: str = "") -> None:
        """Offer the likeliest tokens in place of each, or a note why there are none."""
        self.alternatives = tuple(alternatives)
        listed = [[(one.text, one.logprob) for one in each] for each in alternatives]
        self.run_method("set_alternatives", listed, note)


def legend() -> None:
    """Show what the colours mean."""
    with ui.element("div").classes("sq-legend"):
        ui.label("unlikely")
        for color in CIVIDIS:
            ui.element("span").classes("sq-legend-step").style(f"background: {color}")
        ui.label("likely")

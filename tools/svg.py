"""Pictures of the documentation as SVG text: boxes, lines and words on a white ground.

Sizes are in pixels. Nothing here depends on fonts or clocks, so a picture has the same bytes on every
machine. The colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

from collections.abc import Iterable
from html import escape
from typing import Final, Literal

BLUE: Final = "#0072b2"
ORANGE: Final = "#e69f00"
GREY: Final = "#8a8a8a"
PALE: Final = "#eef3f7"
BLACK: Final = "#1a1a1a"
WHITE: Final = "#ffffff"

_FONT: Final = "font-family='system-ui, sans-serif'"


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """Return an SVG file of these parts, drawn in their order; the title is for those who cannot see it."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' "
        f"height='{height}' role='img' {_FONT}>"
    )
    ground = box(0, 0, width, height, WHITE)
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *parts, "</svg>"]) + "\n"


def box(x: float, y: float, width: float, height: float, fill: str, edge: str = "none") -> str:
    """Return a box by its upper left corner."""
    return (
        f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='3' fill='{fill}' "
        f"stroke='{edge}'/>"
    )


def line(x1: float, y1: float, x2: float, y2: float, color: str, dashes: str = "") -> str:
    """Return a line; `dashes` is SVG's stroke-dasharray."""
    dashed = f" stroke-dasharray='{dashes}'" if dashes else ""
    return f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{color}'{dashed}/>"


def words(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    color: str = BLACK,
    anchor: Literal["start", "middle", "end"] = "start",
) -> str:
    """Return text whose baseline is at y."""
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{color}' text-anchor='{anchor}'>"
        f"{escape(text)}</text>"
    )

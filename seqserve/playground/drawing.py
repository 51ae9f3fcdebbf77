"""Colours and charts that colour-blind readers can tell apart, in light and dark pages.

Categories have the palette of Okabe and Ito (Color Universal Design, 2008), continuous scales cividis (Nuñez,
Anderton and Renslow, PLoS ONE 13(7), 2018), whose lightness grows evenly.
"""

from typing import Any, Final

OKABE_ITO: Final = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#56B4E9",  # sky blue
    "#D55E00",  # vermilion
    "#F0E442",  # yellow
    "#999999",  # grey
)
"""Colours of categories, in the order of their use."""

CIVIDIS: Final = (
    "#00224E",
    "#123570",
    "#3B496C",
    "#575D6D",
    "#707173",
    "#8A8678",
    "#A59C74",
    "#C3B369",
    "#E1CC55",
    "#FEE838",
)
"""Ten colours of a continuous scale, from low to high."""

# Axes and text of charts in a grey that has a contrast above 4.5 : 1 with the light and the dark page.
_GREY: Final = "#757575"


def category_color(index: int) -> str:
    """Return the colour of a category; beyond eight the colours repeat."""
    return OKABE_ITO[index % len(OKABE_ITO)]


def scale_color(share: float) -> str:
    """Return the colour of a share of 0..1 on the continuous scale; beyond, that of an end."""
    return CIVIDIS[min(len(CIVIDIS) - 1, max(0, int(share * len(CIVIDIS))))]


def text_on(background: str) -> str:
    """Return black or white, whichever has the higher contrast with a background #RRGGBB."""
    luminance = _luminance(background)
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#FFFFFF"


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour #RRGGBB, 0..1 (WCAG 2.2)."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def chart_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of `ui.echart` with the palette, grey text, and a description for screen readers."""
    base: dict[str, Any] = {
        "color": list(OKABE_ITO),
        "textStyle": {"color": _GREY, "fontFamily": "inherit"},
        "aria": {"enabled": True},
        "animation": False,
        "grid": {"left": 8, "right": 16, "top": 32, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True},
    }
    return base | options

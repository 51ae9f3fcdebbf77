"""seqserve.playground.drawing: colours that can be told apart, and text that can be read on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.playground.drawing import (
    CIVIDIS,
    OKABE_ITO,
    category_color,
    chart_options,
    scale_color,
    text_on,
)


def luminance(color: str) -> float:
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [*CIVIDIS, *OKABE_ITO])
def test_text_on_a_colour_has_the_contrast_of_wcag(color: str) -> None:
    lighter, darker = sorted((luminance(color), luminance(text_on(color))), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_scale_grows_lighter() -> None:
    assert [luminance(color) for color in CIVIDIS] == sorted(map(luminance, CIVIDIS))


@given(st.floats(-1, 2))
def test_every_share_has_a_colour(share: float) -> None:
    assert scale_color(share) in CIVIDIS
    assert scale_color(0) == CIVIDIS[0]
    assert scale_color(1) == CIVIDIS[-1]


def test_categories_repeat_beyond_the_palette() -> None:
    assert category_color(len(OKABE_ITO) + 1) == OKABE_ITO[1]


def test_charts_keep_what_they_are_given() -> None:
    found = chart_options({"grid": {"top": 1}, "series": []})
    assert found["grid"] == {"top": 1}
    assert found["color"] == list(OKABE_ITO)

"""The pictures of docs/architecture.md are made from the code, and show what the engine does."""

from xml.etree.ElementTree import Element, fromstring

import pytest

from tools import rooms_picture, ticks_picture
from tools.architecture import arrows, service_part
from tools.svg import picture, words
from tools.ticks_picture import ARRIVALS, Arrival, ticks_of


def parsed(svg: str) -> Element:
    return fromstring(svg)  # noqa: S314 - made here


@pytest.mark.parametrize("drawn", [rooms_picture, ticks_picture], ids=["rooms", "ticks"])
def test_picture_is_current(drawn: object) -> None:
    assert drawn.PATH.read_text() == drawn.svg(), "a picture is not current: run 'make docs'"  # type: ignore[attr-defined]


def test_each_sequence_runs_its_input_and_its_tokens() -> None:
    ticks = ticks_of(ARRIVALS)
    for number, arrival in enumerate(ARRIVALS):
        steps = [tick.steps[number] for tick in ticks if number in tick.steps]
        # The last token is sampled and not fed: the last of the prompt is, in its place.
        assert sum(steps) == arrival.steps + max(arrival.tokens - 1, 0)


def test_no_tick_is_widened_for_a_sequence_that_has_not_arrived() -> None:
    ticks = ticks_of([Arrival(0, 8), Arrival(2, 3)])
    assert [tick.steps for tick in ticks] == [{0: 4}, {0: 4}, {1: 3}]
    assert not any(tick.is_step for tick in ticks)


def test_generated_tokens_are_step_ticks() -> None:
    assert [tick.is_step for tick in ticks_of([Arrival(0, 1, 3)])] == [True] * 3


def test_rooms_picture_has_every_part_of_the_service() -> None:
    texts = [one.text for one in parsed(rooms_picture.svg()).iter() if one.text]
    assert set(arrows(service_part)) <= set(texts)


def test_text_in_a_picture_is_escaped() -> None:
    root = parsed(picture(9, 9, "a < b", [words(0, 0, "<&>")]))
    assert [one.text for one in root.iter() if one.text and one.text.strip()] == ["a < b", "<&>"]

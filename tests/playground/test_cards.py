"""seqserve.playground.cards: what is shown of a model card."""

import time

import pytest

from seqserve.playground.cards import markdown_of
from seqserve.results import ModelCard


def shown(text: str, **pictures: bytes) -> str:
    return markdown_of(ModelCard(text, {f"{name}.png": data for name, data in pictures.items()}, 1))


def test_front_matter_is_left_out() -> None:
    assert shown("---\nlicense: mit\n---\n# m\n\n---\nrest\n") == "# m\n\n---\nrest"
    assert shown("# m\n---\nno: front\n---\n") == "# m\n---\nno: front\n---"


def test_pictures_stand_in_the_text() -> None:
    assert shown("![loss](loss.png)", loss=b"png") == "![loss](data:image/png;base64,cG5n)"


def test_picture_that_did_not_come_is_named() -> None:
    assert shown("![x](loss.png) ![y](http://host/*.png)") == (
        "*(picture loss.png is not on the server)* *(picture http://host/.png is not on the server)*"
    )


def test_picture_that_is_shown_again_is_named() -> None:
    """A card of 256 KiB may show a picture of megabytes twenty thousand times."""
    assert shown("![x](loss.png) ![y](loss.png)", loss=b"png") == (
        "![x](data:image/png;base64,cG5n) *(picture loss.png stands above)*"
    )


@pytest.mark.parametrize("part", ["![", "![](", "![a](b"])
def test_card_of_pictures_that_never_end_is_read_at_once(part: str) -> None:
    """Matching took time in the square of the card's length, minutes, in which the page stood still."""
    began = time.thread_time()
    assert shown(part * (80_000 // len(part)) + "![x](loss.png)", loss=b"png").endswith(
        "![x](data:image/png;base64,cG5n)"
    )
    assert time.thread_time() - began < 2


def test_html_is_text_and_code_stays_as_it_is() -> None:
    assert shown("<img src=http://host/x.png> a < b <!-- x --> </p>") == (
        "&lt;img src=http://host/x.png> a < b &lt;!-- x --> &lt;/p>"
    )
    assert shown("`<b>`\n```sh\ncat <file\n```\n<b>") == "`<b>`\n```sh\ncat <file\n```\n&lt;b>"

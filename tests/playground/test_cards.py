"""seqserve.playground.cards: what is shown of a model card."""

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


def test_html_is_text_and_code_stays_as_it_is() -> None:
    assert shown("<img src=http://host/x.png> a < b <!-- x --> </p>") == (
        "&lt;img src=http://host/x.png> a < b &lt;!-- x --> &lt;/p>"
    )
    assert shown("`<b>`\n```sh\ncat <file\n```\n<b>") == "`<b>`\n```sh\ncat <file\n```\n&lt;b>"

"""service.models.cards: what is read of a card, and what is left out."""

import time
from pathlib import Path

import pytest

from service.errors import NotFound
from service.models.cards import MAX_CARD_BYTES, MAX_PICTURES, read_card

PNG = b"\x89PNG\r\n\x1a\n"
ROOMY = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of version 3 of the model m."""
    made = tmp_path / "m" / "3"
    made.mkdir(parents=True)
    return made


def read(folder: Path, max_bytes: int = ROOMY) -> tuple[str, list[str]]:
    card = read_card(folder.parents[1], "m", 3, max_bytes)
    return card.markdown, list(card.pictures)


def test_pictures_come_in_the_order_of_the_card_and_once(folder: Path) -> None:
    text = "# Ä\n![one](b.png) and ![](a.png)\n![again](b.png)\n"
    (folder / "README.md").write_text(text)
    for name in ("a.png", "b.png", "unused.png"):
        (folder / name).write_bytes(PNG + name.encode())
    card = read_card(folder.parents[1], "m", 3, ROOMY)
    assert (card.markdown, list(card.pictures)) == (text, ["b.png", "a.png"])
    assert card.pictures["a.png"] == PNG + b"a.png"


@pytest.mark.parametrize(
    "name", ["../other.png", "/etc/x.png", "http://host/x.png", "sub/x.png", "x.svg", ".x.png"]
)
def test_pictures_elsewhere_are_left_out(folder: Path, name: str) -> None:
    (folder / "README.md").write_text(f"![it]({name})")
    (folder.parent / "other.png").write_bytes(PNG)
    (folder / ".x.png").write_bytes(PNG)
    (folder / "x.svg").write_bytes(PNG)
    assert read(folder)[1] == []


def test_pictures_that_cannot_be_shown_are_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text(
        "![](missing.png) ![](text.png) ![](link.png) ![](folder.png) ![](good.png)"
    )
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    outside.write_bytes(PNG)
    (folder / "text.png").write_text("no picture")
    (folder / "link.png").symlink_to(outside)
    (folder / "folder.png").mkdir()
    (folder / "good.png").write_bytes(PNG)
    assert read(folder)[1] == ["good.png"]


def test_pictures_beyond_the_size_of_an_answer_are_left_out(folder: Path) -> None:
    text = "![](large.png) ![](small.png)"
    (folder / "README.md").write_text(text)
    (folder / "large.png").write_bytes(PNG + bytes(1000))
    (folder / "small.png").write_bytes(PNG)
    assert read(folder, len(text) + len(PNG))[1] == ["small.png"]
    assert read(folder, len(text))[1] == []
    assert read(folder, 0) == (text, [])


def test_pictures_beyond_their_number_are_left_out(folder: Path) -> None:
    names = [f"{number}.png" for number in range(MAX_PICTURES + 1)]
    (folder / "README.md").write_text("".join(f"![]({name})" for name in names))
    for name in names:
        (folder / name).write_bytes(PNG)
    assert read(folder)[1] == names[:MAX_PICTURES]


def test_missing_card_is_not_found(folder: Path) -> None:
    with pytest.raises(NotFound, match="model m version 3: expected a model card"):
        read(folder)


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"good \xff", "no UTF-8 at position 5"), (b"x" * (MAX_CARD_BYTES + 1), "more than")],
    ids=["not UTF-8", "too large"],
)
def test_card_that_cannot_be_read_is_not_found(folder: Path, data: bytes, found: str) -> None:
    (folder / "README.md").write_bytes(data)
    with pytest.raises(NotFound, match=found):
        read(folder)


def test_card_outside_of_the_repository_is_not_found(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-card.md"
    outside.write_text("secret")
    (folder / "README.md").symlink_to(outside)
    with pytest.raises(NotFound, match="leads out of the repository") as caught:
        read(folder)
    assert "secret" not in str(caught.value)


def test_card_of_pictures_that_never_end_is_read_at_once(folder: Path) -> None:
    """Matching took time in the square of the card's length, minutes, in which no other thread ran."""
    text = "![" * 40_000 + "](a.png)"
    (folder / "README.md").write_text(text)
    (folder / "a.png").write_bytes(PNG)
    began = time.thread_time()
    assert read(folder) == (text, ["a.png"])
    assert time.thread_time() - began < 2

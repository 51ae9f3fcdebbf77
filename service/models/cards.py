"""Reads the model card of a version: README.md in its folder, and the pictures that it shows."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.contract.files import FileRefused, read_inside
from service.errors import NotFound

CARD_FILE: Final = "README.md"
MAX_CARD_BYTES: Final = 256 << 10
MAX_PICTURES: Final = 16
# A name in the card's own folder: no path leads elsewhere. The text ends before the next ![, so that a card
# of nothing but those takes time in its length, not in the square of it.
_PICTURE: Final = re.compile(r"!\[(?:(?!!\[)[^\]\n])*\]\((?P<name>[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.png)\)")
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Card:
    """A model card.

    Attributes:
        markdown: its text.
        pictures: PNG files that the text shows, by their names, in its order.
    """

    markdown: str
    pictures: dict[str, bytes]


class Cards:
    """Reads cards in a thread, one at a time: many requests take no more of the disk than one.

    Args:
        root: folder of the models.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cards")

    async def read(self, name: str, version: int, max_bytes: int) -> Card:
        """Read the card of a version that is known.

        Args:
            name: name of the model.
            version: its version.
            max_bytes: size of the card with its pictures; pictures beyond it are left out.

        Raises:
            NotFound: there is none that can be read.
        """
        running = asyncio.get_running_loop().run_in_executor
        return await running(self._worker, read_card, self._root, name, version, max_bytes)


def read_card(root: Path, name: str, version: int, max_bytes: int) -> Card:
    """Read a card; arguments and errors are those of `Cards.read`."""
    folder = root / name / str(version)
    try:
        markdown = read_inside(folder / CARD_FILE, root, MAX_CARD_BYTES).decode()
    except FileNotFoundError as error:
        raise _no_card(name, version, "none") from error
    except FileRefused as error:
        raise _no_card(name, version, str(error)) from error
    except UnicodeDecodeError as error:
        raise _no_card(name, version, f"a byte that is no UTF-8 at position {error.start}") from error
    left = max_bytes - len(markdown.encode())
    pictures: dict[str, bytes] = {}
    for picture in _pictures_of(markdown):
        data = _read_picture(folder / picture, root, left)
        if data is not None:
            pictures[picture] = data
            left -= len(data)
    return Card(markdown, pictures)


def _pictures_of(markdown: str) -> list[str]:
    """Return the names of the pictures that a card shows, each once."""
    return list(dict.fromkeys(found["name"] for found in _PICTURE.finditer(markdown)))[:MAX_PICTURES]


def _read_picture(path: Path, root: Path, max_bytes: int) -> bytes | None:
    """Return a PNG of at most so many bytes; None where it cannot be shown, as the interface says."""
    try:
        data = read_inside(path, root, max_bytes)
    except (FileNotFoundError, FileRefused):
        return None
    return data if data.startswith(_PNG) else None


def _no_card(name: str, version: int, found: str) -> NotFound:
    expected = f"a model card, {CARD_FILE} in its folder, of at most {MAX_CARD_BYTES} bytes of UTF-8"
    return NotFound(f"model {name} version {version}: expected {expected}, found {found}")

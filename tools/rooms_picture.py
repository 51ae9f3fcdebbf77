"""Draw docs/rooms.svg: the parts of service/ by floors. `python -m tools.rooms_picture`, or `make docs`.

Parts and floors are those of the diagram in docs/architecture.md, which lists the imports, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.architecture import arrows, floors, service_part
from tools.svg import BLUE, GREY, PALE, box, line, picture, words

PATH: Final = Path(__file__).parents[1] / "docs" / "rooms.svg"

_LEFT, _TOP, _FLOOR, _BOX, _PART, _GAP = 60, 48, 50, 34, 118, 10


def svg() -> str:
    """Return the picture: a band for each floor, the highest first, with a box for each part."""
    levels = floors(arrows(service_part))
    width = _LEFT + max(map(len, levels)) * (_PART + _GAP) + 2 * _GAP
    bottom = _TOP + len(levels) * _FLOOR
    parts = [words(16, 28, "service/: a part imports only parts on lower floors", size=15)]
    parts += [one for number, level in enumerate(levels) for one in _floor(number, level, width)]
    parts += _arrow(_TOP, bottom - 16)
    return picture(width, bottom + 8, "The parts of the service by floors", parts)


def _floor(number: int, level: Sequence[str], width: int) -> list[str]:
    y = _TOP + number * _FLOOR
    parts = [box(_LEFT - _GAP, y, width - _LEFT, _FLOOR - 6, PALE)]
    for place, part in enumerate(level):
        x = _LEFT + place * (_PART + _GAP)
        parts.append(box(x, y + 5, _PART, _BOX, "#ffffff", BLUE))
        parts.append(words(x + _PART / 2, y + 26, part, anchor="middle"))
    return parts


def _arrow(top: int, bottom: int) -> list[str]:
    """Draw an arrow down beside the floors."""
    return [
        line(28, top + 8, 28, bottom, GREY),
        line(28, bottom, 23, bottom - 8, GREY),
        line(28, bottom, 33, bottom - 8, GREY),
    ]


if __name__ == "__main__":
    PATH.write_text(svg())

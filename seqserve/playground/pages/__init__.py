"""The table of the pages. A page is a module here with `async def build(context: Context) -> None`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from seqserve.playground.context import Context

Build = Callable[[Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the playground.

    Attributes:
        route: Path of the page.
        title: Its name in the navigation.
        icon: Name of a Material icon.
        key: Letter that opens it after g.
        module: Name of its module in this package, whose `build` fills the page.
    """

    route: str
    title: str
    icon: str
    key: str
    module: str

    @property
    def build(self) -> Build:
        """The function that fills the page."""
        build: Build = import_module(f"{__name__}.{self.module}").build
        return build


PAGES: Final = (
    Page("/", "Models", "inventory_2", "m", "models"),
    Page("/write", "Write", "edit", "w", "write"),
    Page("/classify", "Classify", "label", "c", "classify"),
    Page("/forecast", "Forecast", "show_chart", "f", "forecast"),
    Page("/sequences", "Sequences", "timeline", "s", "sequences"),
    Page("/engine", "Engine", "speed", "e", "engine"),
)

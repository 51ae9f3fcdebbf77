"""`python -m training lecture`: teach, show, export, draw."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.export.export import export
from training.lecture import dynamic, hello, longseq, recital, stock
from training.lecture.lesson import Taught
from training.networks.network import Cell
from training.recipes.run import RUNS, use_one_thread
from training.writing import check_writable

LessonName = Literal["hello", "hihello", "charseq", "longseq", "dynamic", "stock"]
EXPORTS = RUNS / "lecture"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson.

    Attributes:
        title: in a few words.
        teach: trains and measures, given the cell and the seed.
    """

    title: str
    teach: Callable[[Cell, int], Taught]


LESSONS: dict[LessonName, Lesson] = {
    "hello": Lesson("shapes of input, output and state", hello.teach),
    "hihello": Lesson("the next letter, where the state must tell which", recital.teach_hihello),
    "charseq": Lesson("a vocabulary taken from the text", recital.teach_charseq),
    "longseq": Lesson("a sentence in 170 windows, with and without a head", longseq.teach),
    "dynamic": Lesson("rows of different lengths in one batch", dynamic.teach),
    "stock": Lesson("seven days to the eighth day's close", stock.teach),
}


def lecture(
    name: Annotated[
        LessonName | None, typer.Argument(help="of the lesson; all of them if not given", show_default=False)
    ] = None,
    cell: Annotated[Cell, typer.Option(help="recurrence")] = "lstm",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="of the weights")] = 0,
    repository: Annotated[
        Path, typer.Option("--export", metavar="FOLDER", help="folder of models to export to")
    ] = EXPORTS,
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="draw what was learned, <lesson>.png each")
    ] = None,
    is_list: Annotated[bool, typer.Option("--list", help="name the lessons, and teach none")] = False,
) -> None:
    """Teach one lesson or all of them."""
    if is_list:
        for one, lesson in LESSONS.items():
            print(f"{one:<9}{lesson.title}")
        return
    for folder in (repository, pictures):
        if folder is not None:
            check_writable(folder)
    use_one_thread()
    names: list[LessonName] = [name] if name else list(LESSONS)
    for number, one in enumerate(names):
        if number:
            print()
        print(f"== {one}: {LESSONS[one].title} ({cell})", flush=True)
        try:
            _teach(one, cell, seed, repository, pictures)
        except KeyboardInterrupt:
            print("interrupted; a lesson is not resumed", file=sys.stderr)
            raise typer.Exit(130) from None
    if len(names) > 1:
        print(f"\nserve them all: SEQSERVE_REPOSITORY={repository} make serve")


def _teach(name: LessonName, cell: Cell, seed: int, repository: Path, pictures: Path | None) -> None:
    started = time.monotonic()
    taught = LESSONS[name].teach(cell, seed)
    took = time.monotonic() - started
    for line in taught.lines():
        print(line)
    print(f"took {took:.1f} s")
    package = taught.package()
    if package is not None:
        print(
            f"exported to {export(package, repository)}; "
            f"served by SEQSERVE_REPOSITORY={repository} make serve, ask it:"
        )
        print(f"  {taught.question()}")
    else:
        print(taught.question())
    if pictures is not None:
        from training.lecture.pictures import draw  # noqa: PLC0415 - matplotlib takes a second to import, and few ask for pictures

        for path in draw(name, taught, pictures):
            print(f"drawn: {path}")

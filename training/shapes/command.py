"""`python -m training shapes`: train, show, export."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.export.export import export
from training.networks.network import Cell
from training.recipes.run import RUNS, use_one_thread
from training.shapes import delay, small
from training.shapes.solved import Solved
from training.writing import check_writable

ShapeName = Literal["alphabet", "digits", "majority", "wave", "dates"]
EXPORTS = RUNS / "shapes"
SHAPES: dict[ShapeName, tuple[str, Callable[[Cell, int], Solved]]] = {
    "alphabet": ("one to one", small.teach_alphabet),
    "digits": ("one to many", small.teach_digits),
    "majority": ("many to one", small.teach_majority),
    "wave": ("many to many", small.teach_wave),
    "dates": ("many to many with delay", delay.teach),
}


def shapes(
    name: Annotated[
        ShapeName | None, typer.Argument(help="of the task; all of them if not given", show_default=False)
    ] = None,
    cell: Annotated[Cell, typer.Option(help="recurrence")] = "lstm",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="of the weights, and of the data")] = 0,
    repository: Annotated[
        Path, typer.Option("--export", metavar="FOLDER", help="folder of models to export to")
    ] = EXPORTS,
    is_list: Annotated[bool, typer.Option("--list", help="name the tasks, and train none")] = False,
) -> None:
    """Train one shape or all of them."""
    if is_list:
        for one, (title, _) in SHAPES.items():
            print(f"{one:<10}{title}")
        return
    check_writable(repository)
    use_one_thread()
    for one in [name] if name else SHAPES:
        title, teach = SHAPES[one]
        print(f"== {one}: {title} ({cell})", flush=True)
        try:
            _teach(teach, cell, seed, repository)
        except KeyboardInterrupt:
            print("interrupted; a shape is not resumed", file=sys.stderr)
            raise typer.Exit(130) from None
    print(f"serve: SEQSERVE_REPOSITORY={repository} make serve")


def _teach(teach: Callable[[Cell, int], Solved], cell: Cell, seed: int, repository: Path) -> None:
    started = time.process_time()
    solved = teach(cell, seed)
    took = time.process_time() - started
    for line in solved.lines():
        print(line)
    print(f"took {took:.1f} s of processor time")
    print(f"exported to {export(solved.package(), repository)}; ask it:")
    print(f"  {solved.question()}")

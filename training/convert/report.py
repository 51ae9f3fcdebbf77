"""Reports a conversion: tables and sentences for people, or one object of JSON."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from seqserve.cli.output import escape_controls
from training.convert.api import Conversion, own_examples
from training.convert.foreign import Refused
from training.convert.version.calling import calling, serving
from training.convert.version.card import gives, takes

_RUNGS = {"chunk": "cut anywhere in time, so that steps can be streamed", "whole": "run whole"}


def as_json(made: Conversion) -> dict[str, Any]:
    """Return everything about a conversion as JSON has it."""
    converted, model = made.converted, made.model
    return {
        "model": model.name,
        "version": model.version if made.folder else None,
        "folder": str(made.folder) if made.folder else None,
        "task": model.task,
        "kind": converted.kind,
        "layers": [one.model_dump(exclude_none=True) for one in converted.layers],
        "takes": takes(model),
        "gives": gives(model),
        "found": list(converted.found),
        "repaired": list(converted.repaired),
        "assumed": list(made.assumed),
        "tried": [{"rung": rung, "reason": reason} for rung, reason in converted.tried],
        "proof": [
            {
                "way": one.way,
                "sequences": one.sequences,
                "steps": one.steps,
                "difference": one.difference,
            }
            for one in converted.comparisons
        ],
        "largest_difference": converted.difference,
        "examples": None if made.checked is None else _checked(made),
        "step_microseconds": {str(batch): round(us, 2) for batch, us in made.costs.step_us.items()},
        "original_step_microseconds": made.costs.original_us and round(made.costs.original_us, 2),
        "admission": None if made.admission is None else made.admission.measured,
        "serve": serving(made.repository) if made.folder else None,
        "call": calling(model, made.folder) if made.folder else None,
        "seconds": round(made.seconds, 2),
    }


def refusal_as_json(error: Refused) -> dict[str, Any]:
    """Return a refusal as JSON has it."""
    return {"error": error.reason, "advice": error.advice}


def print_report(made: Conversion, console: Console) -> None:
    """Print a conversion for people."""
    console.print(Group(*_parts(made)), soft_wrap=True)


def _parts(made: Conversion) -> Iterator[RenderableType]:
    converted, model = made.converted, made.model
    yield from _section(
        "What it is",
        [
            f"{model.network.words}; {converted.kind}: {_rung(made)}",
            f"takes {takes(model)}; gives {gives(model)}; task {model.task}",
            *converted.found,
        ],
    )
    yield from _section("What was changed in the graph", converted.repaired)
    yield from _section("What was assumed", made.assumed)
    yield from _section(
        "Better ways that do not hold", (f"{rung}: {reason}" for rung, reason in converted.tried)
    )
    yield _proof(made)
    if made.checked is not None:
        yield _line(own_examples(made.checked, _kept(made)))
    yield Text()
    yield _line(_cost(made))
    yield from _ending(made)


def _rung(made: Conversion) -> str:
    if made.converted.kind == "chunk":
        return _RUNGS["chunk"] if made.meaning.window is None else "run whole, in its window"
    padded = (
        "beside others of other lengths" if made.converted.padding == "lengths" else "beside others as long"
    )
    return f"{_RUNGS['whole']}, {padded}"


def _section(title: str, sentences: Iterable[str]) -> Iterator[RenderableType]:
    lines = list(sentences)
    if lines:
        yield Text(title, style="bold")
        yield from (_line(f"  {one}") for one in lines)
        yield Text()


def _proof(made: Conversion) -> Table:
    title = Text("Compared with the original, which runs each sequence alone", style="bold")
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    for heading in ("sequences", "steps", "largest difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in made.converted.comparisons:
        difference = f"{one.difference:.1e}" if one.difference else "0"
        table.add_row(_line(one.way), str(one.sequences), f"{one.steps:,}", difference)
    return table


def _cost(made: Conversion) -> str:
    costs = made.costs
    words = ", ".join(
        f"{us:,.0f} us with {batch} row{'s' if batch > 1 else ''}" for batch, us in costs.step_us.items()
    )
    original = costs.original_us
    beside = "" if original is None else f"; the original takes {original:,.0f} us a call with one row"
    return f"A time step costs {words}, on one thread{beside}."


def _ending(made: Conversion) -> Iterator[RenderableType]:
    yield Text()
    if made.folder is None:
        yield _line(f"Nothing was written, as --dry-run asks ({made.seconds:.1f} s).")
        return
    yield _line(f"Written to {made.folder} ({made.seconds:.1f} s). Serve and call it:")
    yield _line(f"  {serving(made.repository)}")
    yield _line(f"  {calling(made.model, made.folder)}")


def _line(text: str) -> Text:
    """Return text that a terminal shows as it is."""
    return Text(escape_controls(text))


def _kept(made: Conversion) -> int:
    return max(0, len(made.model.golden) - len(made.converted.examples))


def _checked(made: Conversion) -> dict[str, Any]:
    assert made.checked is not None, "the caller has looked"
    return {
        "count": made.checked.count,
        "difference": made.checked.difference,
        "form": made.checked.form,
        "kept": _kept(made),
    }

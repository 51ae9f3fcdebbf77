"""The model card of a conversion: what it is, where it comes from, how it was proven, how to call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.contract.spec import ModelSpec
from training import markdown
from training.convert.converted import Converted
from training.convert.version.calling import calling
from training.export.card import NOT_RECORDED


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says beside model.json.

    Attributes:
        converted: the network.
        assumed: sentences on what was assumed.
        own: a sentence on the user's own examples; "": there were none.
    """

    converted: Converted
    assumed: Sequence[str]
    own: str = ""


def card(model: ModelSpec, facts: CardFacts) -> str:
    """Return the card as Markdown."""
    made, source = model.provenance, model.provenance.source
    came = source.words if source is not None else "an unnamed file"
    digest = f", sha256 `{source.sha256}`" if source is not None else ""
    data = markdown.plain(made.data) if made.data else "not recorded"
    parts = [
        f"# {model.name}, version {model.version}\n\nConverted from {markdown.plain(came)}{digest}. "
        "Its graphs equal the original, as far as the comparisons below show.",
        (
            f"| | |\n| --- | --- |\n| task | {model.task} |\n"
            f"| network | {model.network.kind}: {model.network.words}, {model.outputs} outputs |\n"
            f"| takes | {takes(model)} |\n| gives | {gives(model)} |"
        ),
        f"## How to call it\nIn this folder, with the model served:\n"
        f"{markdown.fenced(calling(model, Path()), 'sh')}",
        f"## How it was proven\nThe original ran each sequence alone.\n\n{comparisons(facts.converted)}",
    ]
    if facts.own:
        parts.append(facts.own)
    for title, sentences in (
        ("What was found", facts.converted.found),
        ("What was changed in the graph", facts.converted.repaired),
        ("What was assumed", facts.assumed),
    ):
        if sentences:
            parts.append(f"## {title}\n" + "\n".join(f"- {markdown.plain(one)}" for one in sentences))
    parts.append(f"## Data\n{data}. Licence: {markdown.plain(made.data_licence or NOT_RECORDED)}.")
    if made.recipe:
        parts.append(f"## How it was made\n{markdown.fenced(made.recipe, 'sh')}\n{made.created}")
    return "\n\n".join(parts) + "\n"


def comparisons(converted: Converted) -> str:
    """Return the proof as a table of Markdown."""
    return markdown.table(
        ["run", "sequences", "time steps", "largest difference"],
        [
            [one.way, str(one.sequences), f"{one.steps:,}", f"{one.difference:.1e}"]
            for one in converted.comparisons
        ],
    )


def takes(model: ModelSpec) -> str:
    """Return what callers send, in words."""
    if model.text is not None:
        return "text"
    if model.input.kind == "tokens":
        return f"token ids below {model.input.size}"
    columns = [] if model.sequences is None else model.sequences.columns or []
    names = f": {', '.join(f'{one.name} {one.unit}'.strip() for one in columns[:12])}" if columns else ""
    return f"rows of {model.input.size} numbers{names}{', ...' if len(columns) > 12 else ''}"


def gives(model: ModelSpec) -> str:
    """Return what callers get, in words."""
    if model.generation is not None:
        return "text"
    if model.classification is not None:
        return f"one of {len(model.classification.labels)} labels"
    if model.sequences is None:
        return "a forecast"
    output = model.sequences.output
    where = "at every time step" if output.steps == "every" else "for the sequence"
    if output.labels:
        return f"{'one' if output.exclusive else 'some'} of {len(output.labels)} labels {where}"
    what = f"{output.kind} of {model.outputs} numbers" if output.kind == "embedding" else output.kind
    return f"{what if output.kind == 'embedding' else f'{model.outputs} {what}'} {where}"

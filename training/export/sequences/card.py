"""The model card of a version of contract 2: README.md, for people who ask what a model is."""

import shlex

from service.contract.layers import words_of
from service.contract.spec import InitGraph, ModelSpec
from training import markdown
from training.export import card, pictures
from training.export.card import CARD_FILE, FACTS_FILE, CardFacts, facts_json, summary_of
from training.export.pictures import Labels


def card_files_of(model: ModelSpec, facts: CardFacts) -> dict[str, bytes]:
    """Return the card of a version of any task and its pictures, by file name."""
    return card_files(model, facts) if model.task == "sequences" else card.card_files(model, facts)


def card_files(model: ModelSpec, facts: CardFacts) -> dict[str, bytes]:
    """Return the card by its file name; of a run with a history its pictures and facts, too."""
    made = model.provenance
    parts = [
        f"# {model.name}, version {model.version}\n\n{summary_of(model, facts)}",
        (
            f"| | |\n| --- | --- |\n| task | {model.task} |\n"
            f"| network | {model.network.kind}: {model.network.words}, {model.outputs} outputs |"
            f"{_encoder(model)}"
        ),
        f"## How to call it\n{markdown.fenced(_call(model), 'sh')}",
        f"## Data\n{markdown.plain(made.data)}. Licence: {made.data_licence}.\n\n{facts.split}",
        f"## Results on the held-out part\n{facts.results}",
        *_pictured(facts),
        f"## Limits\n{facts.limits}",
        (
            f"## How to reproduce it\n{markdown.fenced(made.recipe, 'sh')}\n"
            f"Commit {made.commit}, seed {made.seed}, {made.created}."
        ),
    ]
    files = {CARD_FILE: ("\n\n".join(parts) + "\n").encode()}
    if facts.history:
        files |= {FACTS_FILE: facts_json(facts), pictures.CURVES_FILE: pictures.curves(facts.history)}
    if isinstance(facts.evidence, Labels):
        files[pictures.LABELS_FILE] = pictures.labels(facts.evidence)
    return files


def _pictured(facts: CardFacts) -> list[str]:
    """Return the sections that show pictures, and how the version compared with the one before."""
    sections = []
    if isinstance(facts.evidence, Labels):
        sections.append(f"![Confusion matrix and calibration]({pictures.LABELS_FILE})")
    if facts.verdict:
        sections.append(f"## Verdict\n{facts.verdict}")
    if facts.promotion:
        sections.append(f"## Compared with the version before\n{facts.promotion}")
    if facts.history:
        sections.append(f"## Training\n![Training and development loss by epoch]({pictures.CURVES_FILE})")
    return sections


def _call(model: ModelSpec) -> str:
    """Return the command that asks a server of the model."""
    text = shlex.quote(next((golden.text for golden in model.golden if golden.text), ""))
    init = model.network.init
    if model.generation is not None:
        start = (
            f" --initial start.json  # {_names(init)}: rows of numbers by name"
            if init and init.inputs
            else ""
        )
        return f"seqserve generate --model {model.name} {text}{_source(model)}{start}"
    if init is not None:
        return (
            f"# sequences.jsonl: {{steps or text, initial: {{...}}}} a line, with {_names(init)}\n"
            f"seqserve infer {model.name} --file sequences.jsonl"
        )
    if text != "''":
        return f"seqserve infer {model.name} {text}"
    return f"seqserve infer {model.name} --file rows.csv"


def _encoder(model: ModelSpec) -> str:
    """Return the row of the table on the encoder, "" where there is none."""
    source = model.source
    if source is None:
        return ""
    layers = f"{words_of(source.layers)}, of " if source.layers else ""
    taken = {"text": "text", "tokens": "token ids"}.get(source.kind, f"rows of {source.input.size} values")
    return f"\n| encoder | {layers}{taken}, {source.max_steps} steps at most |"


def _source(model: ModelSpec) -> str:
    """Return the option of the source that an encoder reads."""
    if model.source is None:
        return ""
    texts = (golden.source.text for golden in model.golden if golden.source is not None)
    text = next((text for text in texts if text), None)
    return " --source-file source.json" if text is None else f" --source {shlex.quote(text)}"


def _names(init: InitGraph) -> str:
    return ", ".join(one.name for one in init.inputs)

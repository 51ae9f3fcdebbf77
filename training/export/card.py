"""The model card: README.md of a version folder, for people who ask what a model is and how far to trust it
(Mitchell et al. 2019), with its pictures.

What only the run knows is kept beside it in card.json; README.md and the pictures follow from that and
model.json alone, byte for byte. None of these files is named in model.json: the service takes no notice of
them.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import fmean
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from service.contract.sentences import sentences
from service.contract.spec import Characters, Generation, Golden, ModelSpec
from training import markdown
from training.errors import TrainingError
from training.export import pictures
from training.export.pictures import Fans, LabelledParts, Labels
from training.loop.checkpoint import Epoch

CARD_FILE = "README.md"
FACTS_FILE = "card.json"
# Of the user's own data no licence is known, nor of weights made from them.
NOT_RECORDED = "not recorded"
MOST_SAMPLES = 6
SERVER = "127.0.0.1:50051"
# In model.json: 1 for a model that is better than all its baselines in its main measure, else 0.
BEATS_KEY = "beats_baselines"
_LOSING = "**It does not beat the simple baselines that it was measured beside.**"


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What only the run knows.

    Attributes:
        summary: one or two sentences: what it does, on what data.
        split: how the data was cut into training, development and held-out parts.
        results: Markdown table, the model beside its baselines.
        limits: what not to use it for.
        int8: what int8 weights cost, where there are any.
        ablations: Markdown table, what each part of the recipe brings, where that was measured.
        history: the run's epochs.
        evidence: how it did on the held-out part, to be drawn.
        promotion: how it compared with the version that it replaced.
        verdict: Markdown: whether it beats its baselines, how training went, what to try next.
    """

    summary: str
    split: str
    results: str
    limits: str
    int8: str = ""
    ablations: str = ""
    history: tuple[Epoch, ...] = ()
    evidence: LabelledParts | Labels | Fans | None = None
    promotion: str = ""
    verdict: str = ""


_FACTS = TypeAdapter(CardFacts)


def card_files(model: ModelSpec, facts: CardFacts) -> dict[str, bytes]:
    """The card, its pictures, and the facts that both are made of, by file name."""
    drawn: dict[str, bytes] = {}
    if facts.history:
        drawn[pictures.CURVES_FILE] = pictures.curves(facts.history)
    if isinstance(facts.evidence, Labels):
        drawn[pictures.LABELS_FILE] = pictures.labels(facts.evidence)
    if isinstance(facts.evidence, Fans):
        drawn[pictures.FORECAST_FILE] = pictures.fans(facts.evidence)
    return {
        FACTS_FILE: facts_json(facts),
        CARD_FILE: model_card(model, facts).encode(),
        **drawn,
    }


def facts_json(facts: CardFacts) -> bytes:
    """Return the bytes of card.json."""
    return _FACTS.dump_json(facts, indent=1) + b"\n"


def read_facts(files: Mapping[str, bytes]) -> CardFacts:
    """The facts of a version: card.json, or the sections of a card of before there was one.

    Args:
        files: card.json, README.md, or both.
    Raises:
        TrainingError: there is neither, or it cannot be understood.
    """
    if FACTS_FILE in files:
        try:
            return _FACTS.validate_json(files[FACTS_FILE])
        except ValidationError as error:
            names = [field.name for field in fields(CardFacts)]
            found = "; ".join(sentences(error, files[FACTS_FILE], names))
            raise TrainingError(f"{FACTS_FILE}: {found}") from error
    if CARD_FILE not in files:
        raise TrainingError(f"expected {FACTS_FILE} or {CARD_FILE} in the version's folder, found neither")
    text = re.sub(r"\A---\n.*?^---\n+", "", files[CARD_FILE].decode(), flags=re.DOTALL | re.MULTILINE)
    head, *rest = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    sections = {title: body.strip() for title, body in zip(rest[::2], rest[1::2], strict=True)}
    try:
        results, *more = sections["Results on the held-out part"].split("\n\n")
        int8 = "".join(part for part in more if not part.startswith("!["))
        return CardFacts(
            head.split("\n\n")[1].removesuffix(f" {_LOSING}"),
            sections["Data"].split("\n\n")[1],
            results,
            sections["Limits"],
            int8,
            verdict=sections.get("Verdict", ""),
        )
    except (KeyError, IndexError) as error:
        raise TrainingError(
            f"{CARD_FILE}: expected a card made by training, found one without {error}"
        ) from error


def together(histories: Sequence[Sequence[Epoch]]) -> tuple[Epoch, ...]:
    """Return the epochs of networks that were trained one after the other and serve as one.

    Losses are means, and the time is that of all. A network that ended early counts in the epochs that it
    was trained in.
    """
    by_number = (
        [history[number] for history in histories if number < len(history)]
        for number in range(max(map(len, histories), default=0))
    )
    return tuple(
        replace(
            epochs[0],
            train=fmean(epoch.train for epoch in epochs),
            develop=fmean(epoch.develop for epoch in epochs),
            cpu_seconds=sum(epoch.cpu_seconds for epoch in epochs),
            time_steps=sum(epoch.time_steps for epoch in epochs),
            seconds=sum(epoch.seconds for epoch in epochs),
        )
        for epochs in by_number
    )


def summary_of(model: ModelSpec, facts: CardFacts) -> str:
    """Return the summary, with a warning where the model does not beat its baselines."""
    return facts.summary + (f" {_LOSING}" if model.metrics.get(BEATS_KEY) == 0 else "")


def model_card(model: ModelSpec, facts: CardFacts) -> str:
    """The card as Markdown, with the front matter that model hubs read."""
    made = model.provenance
    summary = summary_of(model, facts)
    parts = [
        f"---\n{_front_matter(model)}---\n\n# {model.name}, version {model.version}\n\n{summary}",
        (
            f"| | |\n| --- | --- |\n| task | {model.task} |\n"
            f"| network | {model.network.words}, {model.outputs} outputs |\n"
            f"| variants | {', '.join(model.variants)} |"
        ),
        f"## Intended use\n{_INTENDED[model.task]}",
        (
            f"## How to call it\nWith the folder that holds `{model.name}/` served by seqserve:\n"
            f"{markdown.fenced(_calls(model), 'sh')}"
        ),
        (
            f"## Data\n{markdown.plain(made.data)}. Licence: {made.data_licence}. "
            f"sha256 of the file trained on: `{made.data_sha256}`.\n\n{facts.split}"
        ),
        f"## Results on the held-out part\n{facts.results}",
    ]
    if facts.int8:
        parts.append(facts.int8)
    if isinstance(facts.evidence, Labels):
        parts.append(f"![Confusion matrix and calibration]({pictures.LABELS_FILE})")
    if isinstance(facts.evidence, Fans):
        parts.append(f"![Forecasts with their intervals, and what came]({pictures.FORECAST_FILE})")
    if facts.verdict:
        parts.append(f"## Verdict\n{facts.verdict}")
    if facts.promotion:
        parts.append(f"## Compared with the version before\n{facts.promotion}")
    if facts.history:
        parts.append(f"## Training\n![Training and development loss by epoch]({pictures.CURVES_FILE})")
    if samples := _samples(facts):
        parts.append(samples)
    if facts.ablations:
        parts.append(f"## Ablations\n{facts.ablations}")
    parts += [
        f"## Limits\n{facts.limits}",
        f"## Ethical notes\n{_ETHICS[model.task]}",
        f"## How to reproduce it\n{_reproduce(model, facts)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(model: ModelSpec) -> str:
    made = model.provenance
    is_known = made.data_licence != NOT_RECORDED
    matter: dict[str, Any] = (
        {"license": "mit"} if is_known else {"license": "other", "license_name": "not-recorded"}
    )
    if is_known and model.task != "forecasting":
        matter["language"] = ["en"]
    tag = "time-series-forecasting" if model.task == "forecasting" else model.task
    metrics = _hub_metrics(model)
    result = {
        "task": {"type": tag},
        "dataset": {"name": made.data, "type": "file", "split": "held out", "revision": made.data_sha256},
        "metrics": metrics,
    }
    matter |= {
        "library_name": "onnx",
        "pipeline_tag": tag,
        "tags": ["seqserve", "onnx", model.network.cell, tag],
        "metrics": sorted({one["type"] for one in metrics}),
        "model-index": [{"name": model.name, "results": [result]}],
    }
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1000)


def _hub_metrics(model: ModelSpec) -> list[dict[str, Any]]:
    """The network's own numbers, without int8's and without those of single steps ahead: held_out_64_pinball
    is pinball after 64 steps.
    """
    metrics = []
    for name, value in model.metrics.items():
        found = re.fullmatch(r"held_out_(?:(\d+)_)?(?!int8)(.*?[^_\d])", name)
        if found:
            what = found[2].replace("_", " ")
            metrics.append(
                {"type": found[2], "name": f"{what}, last {found[1]}" if found[1] else what, "value": value}
            )
    return metrics


_INTENDED = {
    "text-generation": (
        "To go on from a prompt in the manner of the text it was trained on, "
        "and to say how likely a text is. A small model for trying out, "
        "for teaching and for measuring the service; not a source of knowledge."
    ),
    "text-classification": (
        "To sort short texts like those it was trained on. "
        "Probabilities are given so that doubtful texts can go to a person."
    ),
    "forecasting": (
        "To say in what range the next steps of a series like the one it was trained on will lie. "
        "The interval is what it is for; the median is one number out of it."
    ),
}
_ETHICS = {
    "text-generation": (
        "It repeats the language of its source, with the views and slurs of its time and place; "
        "what it writes must not be passed off as a person's or as true."
    ),
    "text-classification": (
        "It learns the habits of those who labelled the texts, and words that go with a label by chance, "
        "names of people and places among them. Measure it on your own texts, "
        "group by group, before anything depends on it; decide nothing about people by it."
    ),
    "forecasting": (
        "Past intervals say nothing of what has never happened before. "
        "Whoever acts on a forecast bears its losses; do not let it act alone."
    ),
}


def _calls(model: ModelSpec) -> str:
    def grpcurl(method: str, request: dict[str, Any]) -> str:
        return f"grpcurl -plaintext -d {shlex.quote(json.dumps(request))} {SERVER} seqserve.v1.{method}"

    if model.generation is not None:
        text = "".join(map(partial(_text_of, model.generation), reversed(model.golden)))
        found = re.search(r"\w+", text)
        prompt = found[0] if found else text[:8]
        request = {"model": model.name, "prompt": prompt, "max_tokens": 100, "seed": 1}
        command = f"seqserve generate {shlex.quote(prompt)} --model {model.name} --max-tokens 100 --seed 1"
        return f"{command}\n{grpcurl('TextGeneration/Generate', request)}"
    if model.classification is not None:
        text = "the text to be sorted"
        request = {"model": model.name, "texts": [text]}
        return (
            f"seqserve classify {shlex.quote(text)} --model {model.name}\n"
            f"{grpcurl('TextClassification/Classify', request)}"
        )
    assert model.forecasting is not None
    columns, least = (
        ", ".join(" ".join(column.name.split()) for column in model.forecasting.columns),
        model.forecasting.least_observations,
    )
    return (
        f"# rows.csv: {columns}; {least} rows or more, oldest first\n"
        f"seqserve forecast --file rows.csv --model {model.name}\n"
        f'# request.json: {{"model": "{model.name}", "observations": [{{"values": [{columns}]}}, ...]}}\n'
        f"grpcurl -plaintext -d @ {SERVER} seqserve.v1.Forecasting/Forecast < request.json"
    )


def _text_of(section: Generation, golden: Golden) -> str:
    """Return the text of an example, empty where it has none and its tokens are no characters."""
    if isinstance(section.text, Characters):
        return "".join(section.text.vocabulary[token] for token in golden.tokens or ())
    return golden.text or ""


def _samples(facts: CardFacts) -> str:
    """What it wrote after some of the epochs, first and last among them."""
    written = [(number, epoch) for number, epoch in enumerate(facts.history, 1) if epoch.sample]
    if not written:
        return ""
    count = min(MOST_SAMPLES, len(written))
    chosen = sorted({round(index * (len(written) - 1) / max(1, count - 1)) for index in range(count)})
    blocks = []
    for number, epoch in (written[index] for index in chosen):
        blocks.append(
            f"After epoch {number} (development loss {epoch.develop:.4f}):\n"
            f"{markdown.fenced(epoch.sample.strip(), 'text')}"
        )
    return "What it writes from nothing, with one seed:\n\n" + "\n\n".join(blocks)


def _reproduce(model: ModelSpec, facts: CardFacts) -> str:
    made = model.provenance
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))
    seconds = [epoch.cpu_seconds for epoch in facts.history]
    cost = (
        f"{sum(seconds) / 3600:.3g} CPU-hours over {len(seconds)} epochs"
        if seconds and all(seconds)
        else "CPU-hours not recorded"
    )
    dirty = " (with changes that were not committed)" if made.commit.endswith("-dirty") else ""
    return (
        f"{markdown.fenced(made.recipe, 'sh')}\n"
        f"Commit {made.commit}{dirty}, seed {made.seed}, {made.created}; {versions}; {cost}."
    )

"""A version folder, scored on the part of its data that its training never saw, through onnxruntime as it is
served.

The data are found again by the command that made the version (`provenance.recipe`) and cut by its recipe's
own functions; what model.json claims is not taken as given.
"""

import argparse
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from seqserve.tables.files import UTF8
from seqserve.tables.rows import TAB
from service.contract import spec
from service.contract.normalizing import Normalizer
from service.contract.spec import Normalization
from training.data import series
from training.data.characters import characters_of
from training.data.sources import GOOG, PLAYS, REVIEWS, Source, own_data
from training.errors import TrainingError
from training.export.chunks import ChunkCell
from training.export.pictures import Fans, Labels
from training.recipes import charlm, sentiment, stock

Floats = NDArray[np.float64]

# Losses of neighbours are alike: characters of one speech, days whose forecasts overlap. Blocks of so many
# are drawn together.
CHARACTERS_A_BLOCK = 1000
DAYS_A_BLOCK = 20
DAYS_SHOWN = 120
# The recipe of each command by task, and the option that its file is given by in the recipe's own command.
_TASKS = {
    "generate": ("charlm", "--text"),
    "classify": ("sentiment", "--csv"),
    "forecast": ("stock", "--csv"),
}
_TEXTS = {"charlm": PLAYS, "sentiment": REVIEWS}


@dataclass(frozen=True, slots=True)
class Version:
    """A version folder, read and checked: its model.json, and the files that it refers to by name."""

    folder: Path
    model: spec.ModelSpec
    files: Mapping[str, bytes]

    @property
    def title(self) -> str:
        """For people: name@version."""
        return f"{self.model.name}@{self.model.version}"

    def cell(self, variant: spec.Variant = "fp32") -> ChunkCell:
        """The graph of a variant in onnxruntime."""
        return ChunkCell(self.files[self.model.variants[variant].file])


def find_version(where: str, repository: Path) -> Version:
    """A version by its folder, or by name@version in a repository.

    Raises:
        TrainingError: it is not there, or is not what the contract calls for.
    """
    name, at, number = where.rpartition("@")
    folder = (
        repository / name / number if at and number.isdecimal() and not Path(where).exists() else Path(where)
    )
    if not folder.is_dir():
        raise TrainingError(
            f"{where}: expected a version's folder, or name@version in {repository}, found none"
        )
    folder = folder.absolute()
    try:
        model, _, files = spec.read_version(folder)
    except spec.SpecError as error:
        raise TrainingError(f"{where}: {error}") from error
    return Version(folder, model, files)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a version's training never saw: one of the three.

    Attributes:
        text: of a text generator.
        labelled: of a classifier.
        history: of a forecaster: the whole series, with the place where it was cut.
    """

    text: str = ""
    labelled: sentiment.Texts | None = None
    history: series.History | None = None

    @property
    def sha256(self) -> str:
        """Of its contents: versions are compared on one held-out part alone."""
        if self.labelled is not None:
            held = json.dumps([self.labelled.labels, self.labelled.texts, self.labelled.classes.tolist()])
        elif self.history is not None:
            held = json.dumps(self.history.values[self.history.held_out :].tolist())
        else:
            held = self.text
        return hashlib.sha256(held.encode()).hexdigest()

    def __str__(self) -> str:
        if self.labelled is not None:
            return f"{len(self.labelled.texts):,} texts"
        if self.history is not None:
            return f"{len(self.history.values) - self.history.held_out:,} steps"
        return f"{len(self.text):,} characters"


class Own(NamedTuple):
    """Files of the user's that a version was made from: their names alone stand in its provenance."""

    text: Path | None = None
    csv: Path | None = None
    more: Path | None = None


def _options(recipe: str) -> tuple[str, argparse.Namespace]:
    """The recipe's name and those of its options that say which data."""
    words = shlex.split(recipe)
    command = words[3:] if words[:3] == ["python", "-m", "training"] else []
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--text", "--more", "--csv", "--price-columns"):
        parser.add_argument(name)
    for name in ("--delimiter", "--date-format", "--held-out-from"):
        parser.add_argument(name, default="")
    parser.add_argument("--encoding", default=UTF8)
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--columns", default="open,high,low,close,volume")
    parser.add_argument("--target", default="close")
    parser.add_argument("--date-column", default="date")
    parser.add_argument("--gaps", default="refuse")
    recipe = command[0] if command else ""
    if recipe not in _TASKS:
        return recipe, parser.parse_known_args(command[1:])[0]
    parser.set_defaults(columns="")
    recipe, option = _TASKS[recipe]
    options = parser.parse_known_args([option, *command[1:]])[0]
    options.columns = options.columns or options.target
    return recipe, options


def held_out(version: Version, own: Own) -> HeldOut:
    """The held-out part of the data that a version was trained on.

    Raises:
        TrainingError: its recipe is not one of those that can be scored, a file of the user's is not named,
            or the file is not the one trained on.
    """
    made = version.model.provenance
    recipe, options = _options(made.recipe)
    if recipe == "charlm":
        source = _source(version, PLAYS, options, own)
        assert version.model.generation is not None, "a charlm generates"
        rules = version.model.generation.text.normalization
        text = Normalizer(rules).normalized(charlm.read_text(source.path, source.encoding))
        corpus = charlm.split(text)
        return HeldOut(text="".join(corpus.vocabulary[token] for token in corpus.held_out.tolist()))
    if recipe == "sentiment":
        source = _source(version, REVIEWS, options, own)
        table = sentiment.Table(source, options.text_column, options.label_column)
        texts = sentiment.read_labelled(table) if options.csv else sentiment.read_reviews()
        return HeldOut(labelled=sentiment.split(texts, made.seed or 0).held_out)
    if recipe == "stock":
        chosen = series.choose(
            _source(version, GOOG, options, own),
            _names(options.columns),
            options.target,
            _names(options.price_columns) if options.price_columns else None,
            options.date_column,
            date_format=options.date_format,
            gaps=options.gaps,
            held_out_from=options.held_out_from,
            allows_future=True,  # training has accepted its dates; a clock may have been set back since
        )
        return HeldOut(history=series.read_series(chosen).history)
    raise TrainingError(
        f"{version.title}: expected a version made by charlm, sentiment or stock, "
        f"found one made by: {made.recipe}"
    )


def source_of(version: Version, own: Own) -> Source:
    """Find the file that a text model was trained on.

    Raises:
        TrainingError: its recipe is none of a text model, or the file is not the one trained on.
    """
    recipe, options = _options(version.model.provenance.recipe)
    if recipe not in _TEXTS:
        raise TrainingError(f"{version.title}: expected a version made by {' or '.join(_TEXTS)}")
    return _source(version, _TEXTS[recipe], options, own)


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",")]


def can_score(version: Version) -> bool:
    """Whether it was made by a recipe whose held-out part can be found again."""
    return _options(version.model.provenance.recipe)[0] in ("charlm", "sentiment", "stock")


def _source(version: Version, shipped: Source, options: argparse.Namespace, own: Own) -> Source:
    """The file that is held out from, which must be the one trained on."""
    made = version.model.provenance
    option, named, given = (
        ("--text", options.text, own.text) if options.text else ("--csv", options.csv, own.csv)
    )
    if named and given is None:
        raise TrainingError(
            f"{version.title}: was trained on a file of the user's, {named}: name it with {option} FILE"
        )
    delimiter = "\t" if options.delimiter == TAB else options.delimiter
    if options.more and own.more is None:
        raise TrainingError(f"{version.title}: was trained on {options.more}, too: name it with --more FILE")
    source = (
        own_data(given, own.more if options.more else None, options.encoding, delimiter)
        if named and given
        else shipped
    )
    try:
        # Earlier versions were trained without the other plays, of which nothing is held out.
        known = {source.sha256} if named else {source.sha256, replace(source, more=None).sha256}
    except OSError as error:
        raise TrainingError(f"{source.path}: cannot be read: {error.strerror}") from error
    if made.data_sha256 not in known:
        raise TrainingError(
            f"{version.title}: expected the data that it was trained on, sha256 {made.data_sha256}, "
            f"found {source.path.name} of {source.sha256}: "
            "what is held out from that may have been trained on"
        )
    return source


class Loss(NamedTuple):
    """One measure, unit by unit, less being better.

    Attributes:
        title: for people, with the unit.
        values: float64 (N,), one a character, text or day.
        block: so many neighbours are drawn together when chance is judged.
        form: how numbers are written.
    """

    title: str
    values: Floats
    block: int
    form: str


def score(version: Version, part: HeldOut, variant: spec.Variant = "fp32") -> list[Loss]:
    """The measures that decide between versions of the task.

    Raises:
        TrainingError: the version cannot read the part.
    """
    cell = version.cell(variant)
    if part.labelled is not None:
        return _label_losses(label_probabilities(version, cell, part.labelled), part.labelled)
    if part.history is not None:
        return [
            _pinball(version, cell, part.history, length)
            for length in (series.LEAST_OBSERVATIONS, stock.LONGEST_WINDOW)
        ]
    return [_character_loss(version, cell, part.text)]


def _character_loss(version: Version, cell: ChunkCell, text: str) -> Loss:
    assert version.model.generation is not None
    index = {character: token for token, character in enumerate(characters_of(version.model.generation))}
    if unknown := sorted(set(text) - set(index)):
        raise TrainingError(
            f"{version.title}: expected a vocabulary that holds the held-out text, "
            f"found none of {unknown[:5]}"
        )
    losses = charlm.served_losses(cell, torch.tensor([index[character] for character in text]))
    return Loss("loss, nats a character", losses.numpy(), CHARACTERS_A_BLOCK, ".4f")


def label_probabilities(version: Version, cell: ChunkCell, texts: sentiment.Texts) -> Floats:
    """float64 (N, classes)."""
    assert version.model.classification is not None
    rules = version.model.classification.text.normalization or Normalization()
    tokenizer = Tokenizer.from_str(version.files[version.model.classification.text.file].decode())
    probabilities: Floats = (
        sentiment.served_logits(cell, sentiment.encode(tokenizer, texts.normalized(rules).texts))
        .double()
        .softmax(dim=1)
        .numpy()
    )
    return probabilities


def _label_losses(probabilities: Floats, texts: sentiment.Texts) -> list[Loss]:
    given = probabilities[np.arange(len(probabilities)), texts.classes]
    return [
        Loss("wrong labels, %", 100.0 * (probabilities.argmax(axis=1) != texts.classes), 1, ".2f"),
        Loss("log loss, nats", -np.log(np.maximum(given, np.finfo(np.float64).tiny)), 1, ".4f"),
    ]


class Forecasts(NamedTuple):
    """Quantiles for each held-out day with a whole horizon of known values after it.

    Attributes:
        days: (D,), the last observation of each window.
        quantiles: (D, horizon, levels), in the target's unit, rising.
        future: (D, horizon), what came.
    """

    days: NDArray[np.int64]
    quantiles: Floats
    future: Floats


def forecasts(version: Version, cell: ChunkCell, history: series.History, length: int) -> Forecasts:
    """Forecasts from windows of at most so many observations."""
    forecast = version.model.forecasting
    assert forecast is not None
    days = np.arange(history.held_out - 1, len(history.values) - forecast.horizon)
    outputs = stock.served_outputs(cell, history, forecast, stock.Windows(days, np.full(len(days), length)))
    kind = forecast.column(forecast.target).transform
    target = history.values[:, series.target_index(forecast)]
    moved = (
        series.transformed(target[days], kind)[:, None, None]
        + outputs.double().numpy() * np.array(forecast.scales)[:, None]
    )
    in_unit = np.exp(moved) if kind == "log" else moved
    future = target[days[:, None] + np.arange(1, forecast.horizon + 1)]
    return Forecasts(days, np.sort(in_unit, axis=2), future)


def _pinball(version: Version, cell: ChunkCell, history: series.History, length: int) -> Loss:
    forecast = version.model.forecasting
    assert forecast is not None
    _, quantiles, future = forecasts(version, cell, history, length)
    error = future[:, :, None] - quantiles
    levels = np.array(forecast.quantiles)
    losses = np.maximum(levels * error, (levels - 1) * error).mean(axis=(1, 2))
    unit = forecast.column(forecast.target).unit
    return Loss(f"pinball loss, last {length}{f', {unit}' if unit else ''}", losses, DAYS_A_BLOCK, ".4f")


def evidence(version: Version, part: HeldOut) -> Labels | Fans | None:
    """What the model card shows of a version on its held-out part; nothing of a text generator."""
    cell = version.cell()
    if part.labelled is not None:
        return _labels(label_probabilities(version, cell, part.labelled), part.labelled)
    return _fans(version, cell, part.history) if part.history is not None else None


def _labels(probabilities: Floats, texts: sentiment.Texts) -> Labels:
    given, size = probabilities.argmax(axis=1), len(texts.labels)
    confidence, is_right = probabilities.max(axis=1), given == texts.classes
    bins = np.minimum((confidence * sentiment.CALIBRATION_BINS).astype(int), sentiment.CALIBRATION_BINS - 1)
    held, bins, counts = np.unique(bins, return_inverse=True, return_counts=True)
    return Labels(
        labels=texts.labels,
        counts=np.bincount(texts.classes * size + given, minlength=size * size).reshape(size, size).tolist(),
        confidence=(np.bincount(bins, confidence, len(held)) / counts).tolist(),
        accuracy=(np.bincount(bins, is_right, len(held)) / counts).tolist(),
        texts=counts.tolist(),
        error=100 * sentiment.calibration_error(probabilities, texts.classes),
    )


def _fans(version: Version, cell: ChunkCell, history: series.History) -> Fans:
    forecast = version.model.forecasting
    assert forecast is not None
    days, quantiles, _ = forecasts(version, cell, history, stock.LONGEST_WINDOW)
    first = max(0, len(days) - DAYS_SHOWN)
    # One forecast ends where the next begins.
    chosen = range(first, len(days), forecast.horizon + 1)
    unit = forecast.column(forecast.target).unit
    truth = history.values[days[first] :, series.target_index(forecast)]
    return Fans(
        target=f"{forecast.target}{f', {unit}' if unit else ''}",
        share=round(100 * (forecast.quantiles[-1] - forecast.quantiles[0])),
        first=first,
        truth=truth.tolist(),
        starts=[index - first for index in chosen],
        low=quantiles[chosen, :, 0].tolist(),
        median=quantiles[chosen, :, forecast.quantiles.index(0.5)].tolist(),
        high=quantiles[chosen, :, -1].tolist(),
    )


def evidence_of(
    folder: Path, model: spec.ModelSpec, files: Mapping[str, bytes], source: Source
) -> Labels | Fans | None:
    """`evidence` of a version that is being written, from the file it was trained on; nothing where its
    recipe has none.
    """
    version = Version(folder, model, files)
    if not can_score(version) or model.generation is not None:
        return None
    return evidence(version, held_out(version, Own(source.path, source.path, source.more)))

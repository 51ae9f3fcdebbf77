"""Scores a version folder on the part of its data that its training never saw, as it is served.

The data are found again by the choices that provenance carries, and cut by the functions of the version's
recipe; what model.json claims is not taken as given. Each recipe has a `Scorer` of its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from service.contract import spec
from training.data.feature_rows import rows_source
from training.data.sources import Source, own_data
from training.errors import TrainingError
from training.evaluate import old_recipes
from training.evaluate.held_labels import LabelScorer
from training.evaluate.held_series import SeriesScorer
from training.evaluate.held_tags import TagScorer
from training.evaluate.held_text import CharacterScorer, TokenScorer
from training.evaluate.held_windows import WindowScorer
from training.evaluate.scorer import Choices, HeldOut, Loss, Own, Scorer
from training.evaluate.version import Version
from training.export.pictures import Fans, Labels

SCORERS: Mapping[str, Scorer] = {
    "charlm": CharacterScorer(),
    "tokenlm": TokenScorer(),
    "sentiment": LabelScorer(),
    "stock": SeriesScorer(),
    "forecast": SeriesScorer(),
    "series": WindowScorer(),
    "label": TagScorer(),
}


def choices_of(version: Version) -> Choices:
    """Return what the run was told about its data; {} where nothing is known."""
    made = version.model.provenance
    return made.choices or old_recipes.choices_of(made.recipe)


def can_score(version: Version) -> bool:
    """Return whether it was made by a recipe whose held-out part can be found again."""
    return choices_of(version).get("recipe") in SCORERS


def has_picture(version: Version) -> bool:
    """Return whether its card shows how it did on its held-out part: not where it gives text or numbers."""
    section = version.model.sequences
    gives_numbers = section is not None and section.output.labels is None
    return can_score(version) and version.model.generation is None and not gives_numbers


def held_out(version: Version, own: Own) -> HeldOut:
    """Return the held-out part of the data that a version was trained on.

    Raises:
        TrainingError: its recipe is not one of those that can be scored, a file of the user's is not named,
            or the file is not the one trained on.
    """
    scorer, choices = _scorer(version), choices_of(version)
    found: HeldOut = scorer.held_out(version, source_of(version, own), choices)
    return found


def score(version: Version, part: HeldOut, variant: spec.Variant = "fp32") -> list[Loss]:
    """Return the measures that decide between versions of the task.

    Raises:
        TrainingError: the version cannot read the part.
    """
    return _scorer(version).losses(version, part, variant)


def evidence(version: Version, part: HeldOut) -> Labels | Fans | None:
    """Return what the model card shows of a version on its held-out part; None of a text generator."""
    return _scorer(version).evidence(version, part)


def evidence_of(
    folder: Path, model: spec.ModelSpec, files: Mapping[str, bytes], source: Source
) -> Labels | Fans | None:
    """Return the evidence of a version that is being written, from the file it was trained on; None where its
    recipe has none.
    """
    version = Version(folder, model, files)
    if not has_picture(version):
        return None
    return evidence(version, held_out(version, Own(source.path, source.path, source.more)))


def source_of(version: Version, own: Own) -> Source:
    """Find the file that is held out from, which must be the one trained on.

    Raises:
        TrainingError: its recipe is not one of those that can be scored, a file of the user's is not named,
            or the file is not the one trained on.
    """
    scorer, choices = _scorer(version), choices_of(version)
    is_own = choices["source"] == "own"
    source = _own_source(version, scorer, choices, own) if is_own else scorer.shipped
    if source is None:
        raise TrainingError(f"{version.title}: expected a file of the user's, found none in its provenance")
    try:
        # Earlier versions were trained without the other plays, of which nothing is held out.
        known = {source.sha256} if is_own else {source.sha256, replace(source, more=None).sha256}
    except OSError as error:
        raise TrainingError(f"{source.path}: cannot be read: {error.strerror}") from error
    if (trained := version.model.provenance.data_sha256) not in known:
        raise TrainingError(
            f"{version.title}: expected the data that it was trained on, sha256 {trained}, "
            f"found {source.path.name} of {source.sha256}: "
            "what is held out from that may have been trained on"
        )
    return source


def _own_source(version: Version, scorer: Scorer, choices: Choices, own: Own) -> Source:
    given = own.text if scorer.option == "--text" else own.csv
    if given is None:
        raise TrainingError(
            f"{version.title}: was trained on a file of the user's, {choices['file']}: "
            f"name it with {scorer.option} FILE"
        )
    if choices.get("more") and own.more is None:
        raise TrainingError(
            f"{version.title}: was trained on {choices['more']}, too: name it with --more FILE"
        )
    more = own.more if choices.get("more") else None
    encoding, delimiter = choices["encoding"], choices["delimiter"]
    # Rows may stand in files that are no text.
    return rows_source(given, encoding, delimiter, lambda *found: own_data(found[0], more, *found[1:]))


def _scorer(version: Version) -> Scorer:
    """Return the scorer of a version's recipe.

    Raises:
        TrainingError: there is none.
    """
    recipe = choices_of(version).get("recipe", "")
    if recipe not in SCORERS:
        *others, last = SCORERS
        raise TrainingError(
            f"{version.title}: expected a version made by {', '.join(others)} or {last}, "
            f"found one made by: {version.model.provenance.recipe}"
        )
    return SCORERS[recipe]

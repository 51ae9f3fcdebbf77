"""Converts a network and writes it as a version: the function for notebooks, and the command's own body.

from training.convert.api import convert

made = convert(module, name="mine", labels=["bad", "good"], tokenizer="tokenizer.json")
print(made.folder)
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from service.contract import spec
from training.convert.admission import Admission, admitted
from training.convert.advice import advice_on
from training.convert.converted import Converted
from training.convert.foreign import Foreign, Refused
from training.convert.ladder import climb
from training.convert.meaning.checking_pairs import TOLERANCE, Checked, check_pairs
from training.convert.meaning.golden import goldens_of
from training.convert.meaning.meaning import Meaning, Said, meaning_of
from training.convert.meaning.outputs import OutputKind
from training.convert.meaning.pairs import pairs_from
from training.convert.options import Choices
from training.convert.version.card import CardFacts, card
from training.convert.version.costs import Costs, measure, stepper
from training.convert.version.graphs import Graphs
from training.convert.version.package import Package, model_of, provenance_of, write_package
from training.convert.ways import read, read_pair
from training.errors import TrainingError
from training.export.export import GRAPH_FILE
from training.export.sequences.export import INIT_FILE
from training.recipes.run import REPOSITORY
from training.writing import check_writable, disk_errors

Say = Callable[[str], None]


class Options(TypedDict, total=False):
    """What `Said` and `Choices` hold, by the names of their fields."""

    task: spec.Task | None
    labels: str | Path | Sequence[str] | Mapping[object, object] | None
    output: OutputKind | None
    exclusive: bool | None
    steps: Literal["last", "every"] | None
    features: object
    target_features: object
    tokenizer: object
    characters: str | Path | Sequence[str] | None
    source_tokenizer: object
    source_characters: str | Path | Sequence[str] | None
    start_token: str | None
    prepend_start: bool | None
    end_tokens: Sequence[str] | None
    max_tokens: int
    window: spec.Window | None
    state: tuple[tuple[str, str], ...]
    data: str | None
    output_name: str | None
    overlap: int
    width: int | None
    fixed: Mapping[str, float | int]
    encoder: Path | str | None
    lengths: str | None
    time_first: bool | None


@dataclass(frozen=True, slots=True)
class Conversion:
    """A converted network, with everything that there is to say about it.

    Attributes:
        folder: folder of the version; None: nothing was written.
        repository: folder of models.
        model: its model.json.
        converted: the network. Its graphs are those of the version; the folder of their weights is gone.
        meaning: what its numbers mean.
        checked: how the user's own examples compared; None: there were none.
        assumed: sentences on what was assumed.
        costs: what a step costs.
        admission: outcome of the service's checks; None: nothing was written.
        seconds: time that the conversion took.
    """

    folder: Path | None
    repository: Path
    model: spec.ModelSpec
    converted: Converted
    meaning: Meaning
    checked: Checked | None
    assumed: tuple[str, ...]
    costs: Costs
    admission: Admission | None
    seconds: float


def convert(
    network: object,
    examples: Any = None,
    *,
    name: str,
    repository: Path | str = REPOSITORY,
    checkpoint: Path | str | None = None,
    pairs: object = None,
    trained_on: str = "",
    licence: str = "",
    recipe: str = "",
    dry_run: bool = False,
    say: Say = lambda line: None,  # noqa: ARG005
    **options: Unpack[Options],
) -> Conversion:
    """Convert a network, prove it against the original, and write it as the next version of a model.

    Args:
        network: an nn.Module, `package.module:function`, or the path of an .onnx or .keras file.
        examples: example inputs of a module, as it takes them; None: they are derived from its layers.
        name: name of the model.
        repository: folder of models.
        checkpoint: file of the weights of a module.
        pairs: inputs and outputs of the user's own pipeline, a file or a list of objects.
        trained_on: what the network was trained on, in words.
        licence: licence of that.
        recipe: command that the conversion was asked for with.
        dry_run: convert and prove, and write nothing.
        say: takes lines on what is being done.
        options: what numbers mean (`Said`), and what the graph alone leaves open (`Choices`).

    Raises:
        Refused: no way to serve it is proven, or an example disagrees; says why and what to do.
        TrainingError: an option is wrong.
        WriteError: the version cannot be written. Nothing is left behind.
    """
    begin = time.perf_counter()
    said, choices = _sorted(options)
    repository = Path(repository)
    if not spec.is_name(name):
        raise TrainingError(
            f"--name: expected up to 64 letters, digits and ._-, a letter or digit first, found {name!r}"
        )
    if not dry_run:
        check_writable(repository)
    say("reading the network")
    with tempfile.TemporaryDirectory(prefix="seqserve-convert-") as folder:
        with disk_errors(Path(folder)):
            foreign = read(network, Path(folder), examples, None if checkpoint is None else Path(checkpoint))
            foreign = read_pair(foreign, choices, Path(folder))
            say("converting it, and comparing it with the original")
            converted = climb(foreign, choices, Path(folder))
            # The original has answered: what runs it may hold a copy of all weights.
            foreign = replace(foreign, oracle=None)
        request = _Request(
            name, repository, provenance_of(foreign.source, trained_on, licence, recipe), dry_run, say, begin
        )
        return _written(request, foreign, converted, said, choices, pairs)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a conversion is written with."""

    name: str
    repository: Path
    provenance: spec.Provenance
    dry_run: bool
    say: Say
    begin: float


def _written(
    request: _Request, foreign: Foreign, converted: Converted, said: Said, choices: Choices, pairs: object
) -> Conversion:
    """Find out what numbers mean, check the user's examples, measure and write."""
    meaning = meaning_of(converted, said)
    checked = None
    if pairs is not None:
        request.say("comparing your examples with it")
        found = pairs_from(pairs, converted, choices)
        checked = check_pairs(found, meaning, converted.input, Graphs(converted).rows)
    goldens = goldens_of(converted, meaning, checked.matched if checked else ())
    assumed = (*converted.assumed, *meaning.assumed)
    own = "" if checked is None else own_examples(checked, goldens.given)
    package = Package(
        request.name,
        converted,
        meaning,
        goldens,
        request.provenance,
        partial(card, facts=CardFacts(converted, assumed, own)),
    )
    request.say("measuring what a step costs")
    is_stepped = bool(choices.state or foreign.states)
    original = stepper(foreign.graph, Path(converted.weights_folder)) if is_stepped else None
    costs = measure(converted, original)
    folder: Path | None = None
    admission: Admission | None = None
    if request.dry_run:
        model = model_of(package, 1, _no_files(package))
    else:
        request.say("writing the version, and running the service's checks on it")
        folder, model, admission = write_package(package, request.repository, _admit)
    seconds = time.perf_counter() - request.begin
    return Conversion(
        folder,
        request.repository,
        model,
        converted,
        meaning,
        checked,
        assumed,
        costs,
        admission,
        seconds,
    )


def own_examples(checked: Checked, kept: int) -> str:
    """Return a sentence on how the user's examples compared."""
    agree = (
        "1 example of your own agrees"
        if checked.count == 1
        else f"{checked.count} examples of your own agree"
    )
    goldens = (
        f"{kept} of them kept as golden examples"
        if kept
        else "none kept as a golden example: outputs are rounded, or not the network's own"
    )
    return (
        f"{agree} within {TOLERANCE:g} ({checked.form}); the largest difference is "
        f"{checked.difference:.1e}; {goldens}"
    )


def _admit(folder: Path) -> Admission:
    """Run the service's own checks on a version.

    Raises:
        Refused: a check failed; says which and what to do.
    """
    found = admitted(folder)
    if found.failed is not None:
        check = found.failed
        raise Refused(f"the service would not serve it: {check.text}", advice_on(check))
    return found


def _no_files(package: Package) -> dict[str, bytes]:
    """Return the names of a version's files, for a model.json that is not written."""
    names = [GRAPH_FILE, *package.meaning.files, *([INIT_FILE] if package.converted.init else [])]
    return dict.fromkeys(names, b"")


def _sorted(options: Options) -> tuple[Said, Choices]:
    """Return options as the two objects that take them.

    Raises:
        TypeError: there is no such option.
    """
    given: dict[str, Any] = dict(options)
    said = {one.name: given.pop(one.name) for one in fields(Said) if one.name in given}
    # `output` says what the outputs are; the name of the graph's output has a name of its own.
    if "output_name" in given:
        given["output"] = given.pop("output_name")
    # Golden examples are whole windows.
    known = {one.name for one in fields(Choices)} - {"window"}
    if unknown := sorted(set(given) - known):
        raise TypeError(f"convert() has no option {unknown[0]}")
    if given.get("encoder") is not None:
        given["encoder"] = Path(given["encoder"])
    if said.get("window") is not None:
        given["window"] = said["window"].to
    return Said(**said), Choices(**given)

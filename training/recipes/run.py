"""Declares the common options of recipes, and ends a run: one table, one export, how to call it."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from seqserve.cli.output import escape_controls
from service.contract import spec
from training.data.sources import Source
from training.data.unchanged import Taken
from training.data.weights import NONE
from training.errors import NotBetterError
from training.export.card import BEATS_KEY, CardFacts
from training.export.export import Package, export, provenance
from training.export.gate import INT8_KEY, Int8
from training.export.pictures import Fans, Labels
from training.export.quantize import QUANTIZED_CELL, is_wide, quantize
from training.loop.checkpoint import CHECKPOINT_FILE, Epoch, read_history
from training.loop.course import read_course
from training.loop.parallel import share
from training.loop.precision import PrecisionChoice, chosen
from training.loop.schedule import Schedule
from training.loop.tuning import Tuning
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork
from training.recipes.report import Results
from training.recipes.verdict import RECALL_KEY, Verdict, verdict

RUNS = Path("runs")
REPOSITORY = Path("exported")
# Characters that a first call goes on from.
PROMPT_LENGTH = 12

Evidence = Callable[[Path, spec.ModelSpec, Mapping[str, bytes], Source], Labels | Fans | None]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options common to all recipes.

    Attributes:
        name: of the model, and of the run's folder.
        repository: where versions are exported to.
        cell, layers, hidden: the network's shape; 0: the recipe chooses.
        epochs: passes over the training part; 0: the recipe chooses.
        seed: of the split, weights, shuffling and dropout.
        device: "cpu", or "cuda" with or without a number.
        resume: go on from the run's checkpoint, if there is one.
        int8: offer int8 weights, too, where the cell allows.
        precision: of the numbers in training.
        evidence: what the model card shows of the exported version on its held-out part
            (`training.evaluate.scoring.evidence_of`): it finds that part by the recipes,
            which therefore cannot name it.
        tuning: learning rate, batch, dropout, class weights, and when to end early.
        require_better: export nothing that does not beat its baselines.
    """

    name: str
    repository: Path
    cell: Cell
    layers: int
    hidden: int
    epochs: int
    seed: int
    device: str
    resume: bool
    int8: bool
    precision: PrecisionChoice = "auto"
    evidence: Evidence = lambda *_: None
    tuning: Tuning = field(default_factory=Tuning)
    require_better: bool = False

    @property
    def folder(self) -> Path:
        """Return the folder of the run's checkpoint."""
        return RUNS / self.name

    def network(
        self,
        *,
        outputs: int,
        dropout: float,
        input_dropout: float = 0.0,
        vocabulary: int = 0,
        features: int = 0,
        embedding: int = 0,
    ) -> NetworkConfig:
        """Return the network's shape, from the options and from what the recipe adds.

        The user's dropout takes the place of the recipe's wherever the recipe has one.
        """
        return NetworkConfig(
            self.cell,
            self.layers,
            self.hidden,
            outputs,
            vocabulary,
            features,
            embedding,
            self.tuning.dropout_or(dropout),
            self.tuning.dropout_or(input_dropout),
        )

    def schedule(self, learning_rate: float, weight_decay: float = 0.01) -> Schedule:
        """Return how to optimise, from the options and from what the recipe adds.

        The user's learning rate takes the place of the recipe's.
        """
        tuning = self.tuning
        return Schedule(
            self.epochs,
            learning_rate if tuning.learning_rate is None else tuning.learning_rate,
            weight_decay,
            seed=self.seed,
            precision=chosen(self.precision, self.device),
            patience=tuning.patience,
            time_limit_s=tuning.time_limit_s,
            batch=tuning.batch,
            class_weights=None if tuning.class_weights == NONE else tuning.class_weights,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run, to be reported and exported.

    Attributes:
        network: trained.
        section: what its task needs.
        examples: whole inputs of several lengths, int64 (T,) or float32 (T, F), from the held-out part.
        results: on the held-out part, those of int8 weights among them where they are on offer.
        taken: what it was trained on.
        summary, split, limits: for the model card.
        files: further files of the version, such as a tokenizer.
        int8: int8 weights on offer.
        ablations: what each part of the recipe brings, a Markdown table for the model card.
        history: epochs for the model card; (): those of the run's checkpoint.
        texts: of token models, a text for each example, as a caller may send it; (): none is recorded.
        values: of forecasters, the observations of each example, (T, columns), as a caller sends them; ():
            none are recorded.
        choices: name of the recipe and what it was told about its data beside the files, for provenance.
        call: arguments of `seqserve` that make a first call, without --model; (): by the task.
    """

    network: RecurrentNetwork
    section: spec.Generation | spec.Classification | spec.ForecastSpec
    examples: Sequence[Tensor]
    results: Results
    taken: Taken
    summary: str
    split: str
    limits: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    int8: Int8 | None = None
    ablations: str = ""
    history: Sequence[Epoch] = ()
    texts: Sequence[str] = ()
    values: Sequence[NDArray[np.float64]] = ()
    call: tuple[str, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)


def use_one_thread() -> None:
    """Let PyTorch use one thread, as small networks need.

    More threads cost more than they bring, far more on a busy machine, and one gives the same weights on 2
    cores as on 64.
    """
    torch.set_num_threads(1)


def int8_graph(options: RunOptions, network: RecurrentNetwork) -> bytes | None:
    """Return the network with int8 weights, to be measured; None if they are not asked for or do not exist.

    Where onnxruntime has none for the cell, that is printed.
    """
    if not options.int8:
        return None
    if network.config.cell != QUANTIZED_CELL:
        say(
            f"int8: left out: onnxruntime quantizes {QUANTIZED_CELL} alone, "
            f"this network is {network.config.cell}"
        )
        return None
    return quantize(network)


def deliver(options: RunOptions, outcome: Outcome) -> Path:
    """Show the table, export the network, and say how to serve and to call it: the leader alone.

    Int8 weights that missed their gate are left out.

    Returns:
        The new version's folder.
    Raises:
        NotBetterError: the model does not beat its baselines, and was required to.
        TrainingError: the data have changed since they were read, or the export fails its check.
        WriteError: the version cannot be written.
    """
    share().dismiss_followers()
    outcome.taken.check_before_export()
    source = outcome.taken.source
    results, graph, note = outcome.results, None, ""
    if outcome.int8 is not None:
        gate = outcome.int8.gate
        say(f"int8: {'passed' if gate.is_met else 'left out'}: {gate}")
        if gate.is_met:
            depends = "do not depend" if is_wide(outcome.network.config) else "depend slightly"
            graph = outcome.int8.graph
            note = (
                f"int8 weights passed their gate ({gate}); their answers {depends} on what runs beside them."
            )
        else:
            results = results.without(INT8_KEY)
    Console().print(results.table())
    judged = judge(options, results)
    history = tuple(outcome.history) or tuple(
        read_history(options.folder / CHECKPOINT_FILE, outcome.network.config)
    )
    package = Package(
        name=options.name,
        network=outcome.network.cpu(),  # golden outputs are the CPU's, whatever trained
        section=outcome.section,
        examples=outcome.examples,
        metrics=metrics_of(results, judged),
        provenance=made_of(options, outcome.taken, outcome.choices),
        card=CardFacts(
            outcome.summary,
            outcome.split,
            results.markdown(),
            outcome.limits,
            note,
            outcome.ablations,
            history,
            verdict=judged.markdown(),
        ),
        files=outcome.files,
        int8=graph,
        texts=outcome.texts,
        values=outcome.values,
        evidence=lambda folder, model, files: options.evidence(folder, model, files, source),
    )
    folder = export(package, options.repository)
    verb, *arguments = first_call(outcome)
    say_exported(options, folder, (verb, "--model", options.name, *arguments))
    return folder


def made_of(options: RunOptions, taken: Taken, choices: Mapping[str, str]) -> spec.Provenance:
    """Return where the weights of a run come from.

    Args:
        options: of the run.
        taken: what it was trained on.
        choices: name of the recipe, and what it was told about its data beside the files.
    """
    source = taken.source
    facts = {"device": options.device, "precision": chosen(options.precision, options.device)}
    made = provenance(source.description, source.licence, taken.sha256, options.seed, **facts)
    return made.model_copy(update={"choices": {**source.choice(), **choices}})


def metrics_of(results: Results, judged: Verdict) -> dict[str, float]:
    """Return the numbers of model.json: those of the table, and whether all baselines are beaten."""
    return results.metrics() | {BEATS_KEY: float(judged.beats_baselines)}


def say_exported(options: RunOptions, folder: Path, call: Sequence[str]) -> None:
    """Print where a version was exported to, how to serve it, and how to call it.

    Args:
        options: of the run.
        folder: of the new version.
        call: arguments of `seqserve`.
    """
    is_own = options.repository != REPOSITORY
    command = f"SEQSERVE_REPOSITORY={options.repository} make serve" if is_own else "make serve"
    say(f"exported to {folder}; serve it: {command}")
    say(f"call it: {shlex.join(['seqserve', *call])}")


def judge(options: RunOptions, results: Results) -> Verdict:
    """Print what came of the run, and return it.

    With --class-weights the mean recall decides: whoever weighs classes does not ask for most right answers.

    Raises:
        NotBetterError: the model does not beat its baselines, and was required to.
    """
    has_recall = any(measure.key == RECALL_KEY for measure in results.measures)
    if has_recall and options.tuning.class_weights != NONE:
        results = replace(results, main=RECALL_KEY)
    judged = verdict(results, read_course(options.folder))
    first, *rest = judged.lines()
    say(f"verdict: {first}")
    for line in rest:
        say(f"  {line}")
    if options.require_better and not judged.beats_baselines:
        raise NotBetterError(
            f"--require-better: expected a model that beats its baselines, found it {judged.shortfall()}; "
            f"nothing was exported, {options.folder / CHECKPOINT_FILE} is kept"
        )
    return judged


def first_call(outcome: Outcome) -> tuple[str, ...]:
    """Return a call of the command that the new model answers, without --model."""
    if outcome.call:
        return outcome.call
    match outcome.section:
        case spec.Generation(text=spec.Characters() as text):
            ids = max(outcome.examples, key=len)
            line = "".join(text.vocabulary[token] for token in ids.tolist()).strip().partition("\n")[0]
            return ("generate", line[:PROMPT_LENGTH] if line.isprintable() else "", "--max-tokens", "200")
        case spec.Generation():
            return ("generate", "a text of yours", "--max-tokens", "200")
        case spec.Classification():
            return ("classify", "a text of yours")
        case spec.ForecastSpec():
            return ("forecast", "--file", str(outcome.taken.source.path))


def say(line: str) -> None:
    """Print a line on standard output."""
    Console().print(escape_controls(line), soft_wrap=True, highlight=False, markup=False)

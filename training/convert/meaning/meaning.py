"""Puts together what a network's numbers mean: the section of model.json for its task, and what it needs.

Whatever is assumed is a sentence for the user.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from service.contract import spec
from service.contract.sentences import sentences
from training.convert.converted import Converted
from training.convert.foreign import Refused
from training.convert.meaning.features import columns_of, outputs_of
from training.convert.meaning.jsonfiles import read_json
from training.convert.meaning.labels import labels_from
from training.convert.meaning.outputs import OutputKind, SaidOutputs, has_softmax_rows, output_spec
from training.convert.meaning.text import (
    ENDS,
    SOURCE_TOKENIZER_FILE,
    STARTS,
    TOKENIZER_FILE,
    Text,
    characters_from,
    tokenizer_from,
)
from training.errors import TrainingError

Section = spec.SequencesSpec | spec.Generation | spec.Classification | spec.ForecastSpec
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Said:
    """What a user said about the numbers; the defaults leave everything to be found.

    Files may be given by their paths, or as what they hold.

    Attributes:
        task: task that serves the network.
        labels: names of classes.
        output: what the outputs are.
        exclusive: exactly one label holds at a time.
        steps: time steps that an unset request gets outputs of.
        features: columns of the input.
        target_features: columns of the outputs.
        tokenizer: what makes token ids of texts.
        characters: characters in the order of their ids.
        source_tokenizer: what makes token ids of an encoder's texts.
        source_characters: characters of an encoder's texts.
        start_token: token fed for an empty prompt, by its text or id.
        prepend_start: it is fed before any other prompt, too; None: if no text can hold it.
        end_tokens: tokens that end a text, by their texts or ids; None: those named like one.
        max_tokens: tokens that an unset request gets.
        window: length that every sequence is brought to.
    """

    task: spec.Task | None = None
    labels: str | Path | Sequence[str] | Mapping[object, object] | None = None
    output: OutputKind | None = None
    exclusive: bool | None = None
    steps: Literal["last", "every"] | None = None
    features: object = None
    target_features: object = None
    tokenizer: object = None
    characters: str | Path | Sequence[str] | None = None
    source_tokenizer: object = None
    source_characters: str | Path | Sequence[str] | None = None
    start_token: str | None = None
    prepend_start: bool | None = None
    end_tokens: Sequence[str] | None = None
    max_tokens: int = MAX_TOKENS
    window: spec.Window | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a network's numbers mean.

    Attributes:
        task: task that serves it.
        section: section of model.json of that task.
        text: how texts become tokens; None: callers send tokens or rows.
        source_text: how an encoder's texts become tokens.
        columns: columns of the input; (): callers send the network's features.
        window: length that every sequence is brought to; None: any.
        assumed: sentences on what was assumed.
    """

    task: spec.Task
    section: Section
    text: Text | None = None
    source_text: Text | None = None
    columns: tuple[spec.FeatureColumn, ...] = ()
    window: spec.Window | None = None
    assumed: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, bytes]:
        """Files of the version that texts need, by name."""
        own = self.text.files if self.text else {}
        return own | (self.source_text.files if self.source_text else {})


def meaning_of(converted: Converted, said: Said) -> Meaning:
    """Return what a converted network's numbers mean.

    Raises:
        TrainingError: what was said does not fit the network, or a file cannot be read.
        Refused: the network cannot serve the task that was asked for.
    """
    text = _text(said.tokenizer, said.characters, converted.input, "", TOKENIZER_FILE)
    source_text = _text(
        said.source_tokenizer, said.source_characters, converted.source, "source-", SOURCE_TOKENIZER_FILE
    )
    window, assumed = _window(converted, said)
    notes = [*(text.notes if text else ()), *(source_text.notes if source_text else ()), *assumed]
    task, why = _task(converted, said, text)
    notes += why
    columns = _columns(converted, said, task)
    if said.task is not None and task not in _POSSIBLE[converted.input.kind]:
        raise TrainingError(
            f"--task: expected {' or '.join(_POSSIBLE[converted.input.kind])} for a network that takes "
            f"{converted.input.kind}, found {task}"
        )
    section: Section
    if task == "text-generation":
        section, more = _generation(converted, said, text)
    elif task == "text-classification":
        section, more = _classification(converted, said, text)
    elif task == "forecasting":
        section, more = _forecasting(converted, said), []
    else:
        section, more = _sequences(converted, said, text, columns)
    if window is not None and task in ("text-generation", "forecasting"):
        raise Refused(
            f"--window: {task} goes on step by step, and cannot have a fixed length",
            "serve it as --task sequences",
        )
    return Meaning(task, section, text, source_text, columns, window, (*notes, *more))


_POSSIBLE: Mapping[str, tuple[spec.Task, ...]] = {
    "tokens": ("sequences", "text-generation", "text-classification"),
    "features": ("sequences", "forecasting"),
}


def _text(
    tokenizer: object,
    characters: str | Path | Sequence[str] | None,
    taken: spec.TokenInput | spec.FeatureInput | None,
    prefix: str,
    file: str,
) -> Text | None:
    """Return how texts become tokens; None where nobody said so."""
    named = f"--{prefix}tokenizer"
    if tokenizer is None and characters is None:
        return None
    if tokenizer is not None and characters is not None:
        raise TrainingError(f"{named}: expected without --{prefix}characters, found both")
    option = named if tokenizer is not None else f"--{prefix}characters"
    if taken is None or taken.kind != "tokens":
        found = "one that takes features" if taken else "one without an encoder"
        raise TrainingError(f"{option}: expected a network that takes tokens there, found {found}")
    if tokenizer is not None:
        return tokenizer_from(tokenizer, taken.size, option, file)
    assert characters is not None, "one of the two was given"
    return characters_from(characters, taken.size, option)


def _window(converted: Converted, said: Said) -> tuple[spec.Window | None, list[str]]:
    """Return the window that was said or found, and sentences on what was assumed."""
    found, asked = converted.window, said.window
    if found is None:
        return asked, []
    if asked is None:
        return found, [
            f"sequences of fewer than {found.to} steps are padded at the {found.side} with {found.value:g}, "
            "since the network takes that length alone; --window, --pad and --pad-value say otherwise"
        ]
    if asked.to != found.to:
        raise TrainingError(
            f"--window: expected {found.to}, the one length that the network takes, found {asked.to}"
        )
    return asked, []


def _task(converted: Converted, said: Said, text: Text | None) -> tuple[spec.Task, list[str]]:
    """Return the task that was said, or text generation for what can be nothing else, or sequences."""
    if said.task is not None:
        return said.task, []
    if converted.source is not None:
        return "text-generation", ["the task is text-generation, since an encoder reads a source"]
    is_language = text is not None and converted.kind == "chunk" and converted.every_step
    if is_language and converted.outputs == converted.input.size and not said.labels and not said.window:
        if not has_softmax_rows(converted):
            return "text-generation", [
                "the task is text-generation, since there is an output a step for each token; "
                "--task sequences serves the outputs themselves"
            ]
        return "sequences", [
            "the task is sequences: text generation takes logits, and these outputs are probabilities"
        ]
    return "sequences", []


def _columns(converted: Converted, said: Said, task: spec.Task) -> tuple[spec.FeatureColumn, ...]:
    if said.features is None or task == "forecasting":
        return ()
    if converted.input.kind != "features":
        raise TrainingError("--features: expected a network that takes features, found one that takes tokens")
    described = _described(said.features, "--features")
    return columns_of(described, converted.input.size, "--features")


def _described(said: object, option: str) -> object:
    return read_json(Path(said), option) if isinstance(said, str | Path) else said


def _sequences(
    converted: Converted, said: Said, text: Text | None, columns: tuple[spec.FeatureColumn, ...]
) -> tuple[spec.SequencesSpec, list[str]]:
    targets: tuple[spec.OutputColumn, ...] = ()
    if said.target_features is not None:
        described = _described(said.target_features, "--target-features")
        targets = outputs_of(described, converted.outputs, "--target-features")
    labels = [] if said.labels is None else labels_from(said.labels, "--labels")
    output, assumed = output_spec(
        converted, SaidOutputs(said.output, labels, said.exclusive, targets, said.steps)
    )
    section = spec.SequencesSpec(
        text=None if text is None else text.section, columns=list(columns) or None, output=output
    )
    if output.kind == "logits" and output.labels and text is not None and text.tokenizer is not None:
        assumed.append("the task is sequences; --task text-classification serves whole texts by Classify")
    if converted.input.kind == "features" and not columns:
        assumed.append(
            "callers send the network's features as they are; --features gives names, units and scaling"
        )
    return section, assumed


def _generation(converted: Converted, said: Said, text: Text | None) -> tuple[spec.Generation, list[str]]:
    """Return the section of a language model, and sentences on what was assumed."""
    size = converted.input.size
    if text is None:
        raise TrainingError("--task text-generation: expected --characters or --tokenizer, found neither")
    if converted.kind != "chunk":
        raise Refused(
            "text-generation needs a network that can be cut in time, found one that looks both ways",
            "serve it as --task sequences",
        )
    if converted.outputs != size:
        raise Refused(f"text-generation needs an output for each of {size} tokens, found {converted.outputs}")
    if has_softmax_rows(converted):
        raise Refused(
            "text-generation needs logits, found probabilities",
            "export the network without its last softmax; in Keras set "
            "model.layers[-1].activation = keras.activations.linear, and save it again",
        )
    start, assumed = _start(said, text, size)
    ends, more = _ends(said, text, size)
    is_special = start not in _typed(text, start)
    prepends = is_special if said.prepend_start is None else said.prepend_start
    if prepends and said.prepend_start is None:
        assumed.append("the start token is fed before every prompt; --no-prepend-start says otherwise")
    section = spec.Generation(
        text=text.section,
        start_token=start,
        prepend_start=prepends,
        end_tokens=ends,
        max_tokens=said.max_tokens,
    )
    return section, assumed + more


def _start(said: Said, text: Text, size: int) -> tuple[int, list[str]]:
    if said.start_token is not None:
        return _token(said.start_token, text, size, "--start-token"), []
    for name in ("\n", *STARTS):
        if (token := text.token(name)) is not None:
            return token, [
                f"an empty prompt starts with token {token}, {name!r}; --start-token says otherwise"
            ]
    return 0, ["an empty prompt starts with token 0; --start-token says otherwise"]


def _ends(said: Said, text: Text, size: int) -> tuple[list[int], list[str]]:
    if said.end_tokens is not None:
        return [_token(one, text, size, "--end-tokens") for one in said.end_tokens], []
    found = {name: token for name in ENDS if (token := text.token(name)) is not None}
    if not found:
        return [], ["no token ends a text; --end-tokens names those that do"]
    return sorted(set(found.values())), [f"texts end with {', '.join(found)}; --end-tokens says otherwise"]


def _typed(text: Text, token: int) -> list[int]:
    """Return the tokens of the text of a token, as somebody types it; none where it cannot be typed."""
    if isinstance(text.section, spec.Characters):
        return [token]
    assert text.tokenizer is not None, "its file was read"
    special = {one.content for one in text.tokenizer.get_added_tokens_decoder().values() if one.special}
    name = text.tokenizer.id_to_token(token)
    return [] if name in special or name in STARTS else [token]


def _token(said: str, text: Text, size: int, option: str) -> int:
    token = text.token(said)
    if token is None or not 0 <= token < size:
        raise TrainingError(
            f"{option}: expected a token of the network or an id below {size}, found {said!r}"
        )
    return token


def _classification(
    converted: Converted, said: Said, text: Text | None
) -> tuple[spec.Classification, list[str]]:
    """Return the section of a text classifier, whose outputs are logits."""
    advice = "serve it as --task sequences"
    if text is None or text.tokenizer is None or not isinstance(text.section, spec.TokenizerFile):
        raise Refused("text-classification needs --tokenizer", advice)
    unknown = getattr(text.tokenizer.model, "unk_token", None)
    if unknown is None or text.tokenizer.token_to_id(unknown) is None:
        raise Refused("text-classification needs a tokenizer with a token for unknown text", advice)
    if said.labels is None:
        raise TrainingError("--task text-classification: expected --labels, found none")
    labels = labels_from(said.labels, "--labels")
    if len(labels) != converted.outputs:
        raise Refused(
            f"text-classification needs a label for each of {converted.outputs} outputs, found {len(labels)}",
            advice,
        )
    if has_softmax_rows(converted) or said.output == "probabilities":
        raise Refused("text-classification needs logits, found probabilities", advice)
    return spec.Classification(text=text.section, labels=labels), []


def _forecasting(converted: Converted, said: Said) -> spec.ForecastSpec:
    """Return the section of a forecaster, which --features holds whole."""
    advice = "serve it as --task sequences with --features and --target-features"
    needs = (
        "forecasting needs --features with the whole section of docs/contract.md: columns, target, "
        "horizon, quantiles, scales, least_observations"
    )
    if said.features is None:
        raise Refused(needs, advice)
    document = json.dumps(_described(said.features, "--features"), default=str)
    try:
        section = spec.ForecastSpec.model_validate_json(document)
    except ValidationError as error:
        if "horizon" not in document:
            raise Refused(needs, advice) from error
        found = "; ".join(sentences(error, document, list(spec.ForecastSpec.model_fields)))
        raise TrainingError(f"--features: {found}") from error
    expected = section.horizon * len(section.quantiles)
    if (len(section.columns), expected) != (converted.input.size, converted.outputs):
        raise Refused(
            "forecasting needs a feature a column and an output a step ahead and quantile, "
            f"{expected} outputs of {len(section.columns)} features, "
            f"found {converted.outputs} of {converted.input.size}",
            advice,
        )
    return section

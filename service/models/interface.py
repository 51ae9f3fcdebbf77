"""Compares what callers of two versions may send and what they get back, so that no new version breaks them.

An interface is read from model.json alone. It holds what a caller can see: task, kind of input, columns,
vocabulary, labels, outputs. Weights, layers, states, scales, variants and metrics are no part of it, so that
a retrained model has the interface of the one before unless its data or its task has changed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from service.contract.spec import (
    Characters,
    Classification,
    Column,
    FeatureColumn,
    ForecastSpec,
    ModelSpec,
    Normalization,
    SequencesSpec,
    SourceSpec,
    TokenizerFile,
)
from service.errors import ModelRefused, shown

# An entry of a list: its name, or its name and details.
Item = str | tuple[str, ...]
# A value of an interface; None: the model has none.
Value = str | tuple[Item, ...] | None
Interface = Mapping[str, Value]
# Is told the model.json of a version that has passed its trial; raises ModelRefused unless it may serve.
Accept = Callable[[ModelSpec], None]

_CHECK = "interface"
_ADVICE = "load it with allow_interface_change if callers know"
_MAX_CHARACTERS = 120  # of a list that is shown whole
_MAX_DIFFERENCES = 3  # that an error's text holds
# A width says nothing beside the lists that it follows from.
_FOLLOWS = {"outputs": frozenset({"labels", "output.columns"})}


class Difference(NamedTuple):
    """A field of two interfaces that differs, and both values as texts for people."""

    field: str
    expected: str
    found: str


class InterfaceChanged(ModelRefused):
    """A version has another interface than the one that serves.

    Args:
        version: the version that serves.
        differences: fields that differ, at least one.
    """

    def __init__(self, version: int, differences: Sequence[Difference]) -> None:
        super().__init__(
            _CHECK,
            "; ".join(f"{one.field}: {one.expected}" for one in differences[:_MAX_DIFFERENCES]),
            "; ".join(f"{one.field}: {one.found}" for one in differences[:_MAX_DIFFERENCES]),
        )
        self._text = f"{sentence(differences, f'as version {version} serves')}; {_ADVICE}"

    def __str__(self) -> str:
        return self._text


def accept_any(_: ModelSpec) -> None:
    """Accept a version whatever its interface is."""


def accept_same(serving: ModelSpec) -> Accept:
    """Return what accepts the versions whose interface is that of the one that serves.

    It raises InterfaceChanged for any other.
    """

    def accept(model: ModelSpec) -> None:
        if found := differences(interface_of(serving), interface_of(model)):
            raise InterfaceChanged(serving.version, found)

    return accept


def difference(older: ModelSpec, newer: ModelSpec) -> str:
    """Return a sentence on the differences of two versions, empty where there are none."""
    found = differences(interface_of(older), interface_of(newer))
    return sentence(found, f"as version {older.version} has") if found else ""


def sentence(found: Sequence[Difference], origin: str) -> str:
    """Describe differences, those beyond the first few by their fields.

    Args:
        found: fields that differ, at least one.
        origin: where the expected values come from, such as "as version 3 serves".
    """
    texts = [f"{one.field}: expected {one.expected} {origin}, found {one.found}" for one in found]
    rest = ", ".join(one.field for one in found[_MAX_DIFFERENCES:])
    return "; ".join([*texts[:_MAX_DIFFERENCES], *([f"also different: {rest}"] if rest else [])])


def differences(expected: Interface, found: Interface) -> list[Difference]:
    """Return the fields that differ, those first that say most; of another task the task alone."""
    every = dict.fromkeys([*found, *expected])
    fields = [field for field in every if expected.get(field) != found.get(field)]
    if "task" in fields:
        fields = ["task"]
    return [
        Difference(field, *_described(expected.get(field), found.get(field)))
        for field in fields
        if not _FOLLOWS.get(field, frozenset()) & set(fields)
    ]


def interface_of(model: ModelSpec) -> Interface:
    """Return the interface of a version: values by the name of their field, those first that say most."""
    interface: dict[str, Value] = {"task": model.task, "input": _input(model)}
    if model.text is not None:
        interface |= _text(model.text, model.input.size, model.files)
    if model.classification is not None:
        interface |= _classification(model.classification)
    if model.forecasting is not None:
        interface |= _forecasting(model.forecasting)
    if model.sequences is not None:
        interface |= _sequences(model, model.sequences)
    if (init := model.network.init) is not None:
        interface["init.inputs"] = tuple(sorted((one.name, f"{one.size} values") for one in init.inputs))
        if init.source is not None:
            interface |= _source(init.source, model.files)
    if (window := model.network.window) is not None:
        interface["window"] = f"{window.to} time steps, longer: {window.longer}"
    return interface


def _input(model: ModelSpec) -> str:
    """Return the kind of input, with its size where no list says more."""
    if model.text is not None:
        return "text"
    if model.input.kind == "tokens":
        return f"token ids below {model.input.size}"
    has_columns = model.forecasting is not None or (model.sequences and model.sequences.columns is not None)
    return "rows of columns" if has_columns else f"rows of {model.input.size} values"


def _text(section: Characters | TokenizerFile, size: int, files: Mapping[str, str]) -> dict[str, Value]:
    """Return what decides which texts are refused, and which token ids a text becomes.

    Args:
        section: how texts become token ids.
        size: number of token ids.
        files: sha256 of the version's files.
    """
    if isinstance(section, TokenizerFile):
        # It refuses no text, so that the normalization before it changes nothing in what may be sent.
        return {"tokenizer": f"{size} tokens, sha256 {files[section.file]}"}
    rules = _rules(section.normalization or Normalization())
    return {"vocabulary": tuple(section.vocabulary), "normalization": rules}


def _source(source: SourceSpec, files: Mapping[str, str]) -> dict[str, Value]:
    """Return what callers may send as the source of a text."""
    kinds = {"text": "text", "tokens": f"token ids below {source.input.size}"}
    rows = f"rows of {source.input.size} values" if source.columns is None else "rows of columns"
    found: dict[str, Value] = {"source": kinds.get(source.kind, rows)}
    if source.text is not None:
        text = _text(source.text, source.input.size, files)
        found |= {f"source.{name}": value for name, value in text.items()}
    if source.columns is not None:
        found["source.columns"] = _columns(source.columns)
    return found | {"source.max_steps": str(source.max_steps)}


def _rules(rules: Normalization) -> tuple[Item, ...]:
    line_ends = ["line ends"] if rules.line_ends else []
    form = [rules.form] if rules.form != "none" else []
    return (*line_ends, *form, *sorted((one, f"becomes {by}") for one, by in rules.characters.items()))


def _classification(section: Classification) -> dict[str, Value]:
    return {"labels": tuple(section.labels)}


def _forecasting(section: ForecastSpec) -> dict[str, Value]:
    return {
        "columns": _columns(section.columns),
        "target": section.target,
        "horizon": str(section.horizon),
        "quantiles": tuple(map(str, section.quantiles)),
        "least_observations": str(section.least_observations),
    }


def _sequences(model: ModelSpec, section: SequencesSpec) -> dict[str, Value]:
    output, network = section.output, model.network
    interface: dict[str, Value] = {
        "output.kind": output.kind,
        "output.steps": output.steps,
        "outputs": str(model.outputs),
        "streams": "steps as they come" if network.is_streamable else "whole sequences alone",
        "answers": "for the last step alone" if network.is_pooled else "for the last step or every one",
    }
    if section.columns is not None:
        interface = {"columns": _columns(section.columns), **interface}
    if output.columns is not None:
        columns = tuple((one.name, one.unit) for one in output.columns)
        interface = {"output.columns": columns, **interface}
    if output.labels is not None:
        holds = "one label at a time" if output.exclusive else "each label for itself"
        interface = {"labels": tuple(output.labels), **interface, "exclusive": holds}
    return interface


def _columns(columns: Sequence[Column | FeatureColumn]) -> tuple[Item, ...]:
    """Return names and units, and which values must be positive, as their logarithm asks, or be times."""
    return tuple((one.name, one.unit, _values_of(one)) for one in columns)


def _values_of(column: Column | FeatureColumn) -> str:
    if isinstance(column, Column) and column.calendar is not None:
        return "seconds since 1970"
    return "positive" if column.transform == "log" else ""


def _described(expected: Value, found: Value) -> tuple[str, str]:
    """Describe two values that differ: lists whole if both are short, else by where they differ."""
    if isinstance(expected, tuple) and isinstance(found, tuple):
        whole = _whole(expected), _whole(found)
        return _compared(expected, found) if None in whole else (_alone(expected), _alone(found))
    return _alone(expected), _alone(found)


def _alone(value: Value) -> str:
    if isinstance(value, tuple):
        return _whole(value) or f"{len(value)} entries"
    return "none" if value is None else value if value.isprintable() else shown(value)


def _whole(items: tuple[Item, ...]) -> str | None:
    """Return all entries of a list; None: they are too many or too long."""
    if len(items) > _MAX_CHARACTERS:
        return None
    text = ", ".join(map(_item, items)) or "none"
    return text if len(text) <= _MAX_CHARACTERS else None


def _compared(expected: tuple[Item, ...], found: tuple[Item, ...]) -> tuple[str, str]:
    """Describe two lists by their lengths, the first entry that differs, and how many are new."""
    least = min(len(expected), len(found))
    place = next((index for index in range(least) if expected[index] != found[index]), least)
    new = (Counter(found) - Counter(expected)).total()
    there = [_item(items[place]) if place < len(items) else "none" for items in (expected, found)]
    return (
        f"{len(expected)} entries (number {place + 1} is {there[0]})",
        f"{len(found)} entries (number {place + 1} is {there[1]}; {new} new)",
    )


def _item(item: Item) -> str:
    name, *rest = (item,) if isinstance(item, str) else item
    details = ", ".join(_name(word) for word in rest if word)
    return f"{_name(name)} ({details})" if details else _name(name)


def _name(text: str) -> str:
    """Return a name as it is, or quoted where it could be mistaken in a list; a long one is cut."""
    is_plain = (
        text.isprintable() and len(text) <= 60 and not set(text) & set(",;'\"()") and text == text.strip()
    )
    return text if text and is_plain else shown(text)

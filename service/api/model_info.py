"""Describes a model to callers by its model.json: what it is, what it takes and what it gives."""

from seqserve.v1 import models_pb2 as pb
from seqserve.v1 import sequences_pb2 as sequences
from service.contract.spec import ModelSpec, SequencesSpec

_STEPS = {"last": sequences.OUTPUT_STEPS_LAST, "every": sequences.OUTPUT_STEPS_EVERY}
_OUTPUTS = {"text-generation": "text", "text-classification": "label", "forecasting": "forecast"}


def describe(spec: ModelSpec, model: pb.Model) -> None:
    """Set the fields of a message that say what the model is, takes and gives."""
    network = spec.network
    model.task, model.cell, model.layers = spec.task, network.cell, len(network.layers)
    model.hidden, model.kind = network.hidden, network.kind
    model.metrics.update(spec.metrics)
    model.labels.extend(_labels_of(spec))
    model.input = _input_of(spec)
    model.features.extend(_features_of(spec))
    model.outputs = spec.outputs
    model.output = _output_of(spec.sequences) if spec.sequences is not None else _OUTPUTS[spec.task]
    if spec.sequences is not None:
        model.output_steps = _STEPS[spec.sequences.output.steps]
    elif spec.task != "text-generation":
        model.output_steps = sequences.OUTPUT_STEPS_LAST
    model.layer_info.extend(
        pb.LayerInfo(kind=layer.kind, width=layer.width, bidirectional=layer.direction == "both")
        for layer in network.layers
    )
    if spec.provenance.source is not None:
        model.source = spec.provenance.source.words


def _labels_of(spec: ModelSpec) -> list[str]:
    if spec.classification is not None:
        return spec.classification.labels
    return (spec.sequences.output.labels if spec.sequences is not None else None) or []


def _input_of(spec: ModelSpec) -> str:
    if spec.text is not None:
        return "text"
    return "tokens" if spec.input.kind == "tokens" else "steps"


def _features_of(spec: ModelSpec) -> list[pb.FeatureInfo]:
    """Return one entry a value of a time step; without names where model.json gives them none."""
    if spec.input.kind == "tokens":
        return []
    section = spec.sequences or spec.forecasting
    if section is None or section.columns is None:
        return [pb.FeatureInfo() for _ in range(spec.input.size)]
    return [pb.FeatureInfo(name=one.name, unit=one.unit) for one in section.columns]


def _output_of(section: SequencesSpec) -> str:
    output = section.output
    if output.kind in ("logits", "probabilities"):
        return "label" if output.labels else "probabilities"
    return output.kind

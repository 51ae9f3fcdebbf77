"""Decides whether a network skips steps, as Keras does behind an Embedding with mask_zero or a Masking."""

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.network import Call, Network
from training.convert.keras.parsing import label
from training.convert.keras.shapes import Shape

_ADVICE = (
    "build it with mask_zero=False, or without Masking, load the weights, save it again, and send no padding"
)


def skipped_value(network: Network) -> float | None:
    """Return the token, or the number of all features, whose steps the recurrent layers skip; None: none.

    Raises:
        Refused: some of them skip steps and others do not, or other ones, or they read two sequences.
    """
    recurrent = [
        call for call in network.calls if isinstance(call.layer.config, c.Recurrent | c.Bidirectional)
    ]
    skipping = [call for call in recurrent if _given(call, network).is_masked]
    if not skipping:
        return None
    first = _given(skipping[0], network)
    for call in recurrent:
        given = _given(call, network)
        if given.skips == first.skips:
            continue
        config, other = call.layer.config, skipping[0].layer.config
        found = f"skips {_steps(given, network)}" if given.is_masked else "computes with them"
        raise Refused(
            f"{label(config.name, config.class_name)}: expected it to skip {_steps(first, network)} as "
            f"{other.name!r} does, found that it {found}",
            _ADVICE,
        )
    if len({_given(call, network).along for call in recurrent}) > 1:
        raise Refused("expected one sequence where steps are skipped, found two", _ADVICE)
    return first.skips


def masked_mean(network: Network) -> str:
    """Return in words which steps a mean leaves out, empty where none does: of these alone there is none."""
    for call in network.calls:
        config, given = call.layer.config, _given(call, network)
        if isinstance(config, c.GlobalPooling) and config.kind == "mean" and given.is_masked:
            return _steps(given, network)
    return ""


def _given(call: Call, network: Network) -> Shape:
    return network.shapes[call.inputs[0]]


def _steps(shape: Shape, network: Network) -> str:
    """Return in words which steps are skipped."""
    if network.shapes[f"input:{shape.along}"].kind == "tokens":
        return f"the steps of token {shape.skips:g}"
    return f"the steps whose features are all {shape.skips:g}"

"""Decides whether a network skips the steps of token 0, as Keras does behind an Embedding with mask_zero."""

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.network import Call, Network
from training.convert.keras.parsing import label
from training.convert.keras.shapes import SKIPPED_TOKEN

_ADVICE = "build the embedding with mask_zero=False, load the weights, save it again, and send no padding"


def skipped_token(network: Network) -> int | None:
    """Return the token whose steps the recurrent layers skip, or None if they skip none.

    Raises:
        Refused: some of them skip steps and others do not, or they read two sequences.
    """
    recurrent = [
        call for call in network.calls if isinstance(call.layer.config, c.Recurrent | c.Bidirectional)
    ]
    skipping = [call for call in recurrent if _is_masked(call, network)]
    if not skipping:
        return None
    for call in recurrent:
        if not _is_masked(call, network):
            config, other = call.layer.config, skipping[0].layer.config
            raise Refused(
                f"{label(config.name, config.class_name)}: expected it to skip the steps of token 0 as "
                f"{other.name!r} does, found that it computes with them",
                _ADVICE,
            )
    if len({network.shapes[call.inputs[0]].along for call in recurrent}) > 1:
        raise Refused("mask_zero: expected one sequence where steps are skipped, found two", _ADVICE)
    return SKIPPED_TOKEN


def _is_masked(call: Call, network: Network) -> bool:
    return network.shapes[call.inputs[0]].is_masked


def has_masked_mean(network: Network) -> bool:
    """Return whether there is a mean over the steps that count, which a sequence without any has not."""
    return any(
        isinstance(call.layer.config, c.GlobalPooling)
        and call.layer.config.kind == "mean"
        and _is_masked(call, network)
        for call in network.calls
    )

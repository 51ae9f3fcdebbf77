"""Decides whether a network skips the steps of token 0, as Keras does behind an Embedding with mask_zero."""

from training.convert.foreign import Refused
from training.convert.keras import config as c
from training.convert.keras.network import Call, Network
from training.convert.keras.parsing import label

SKIPPED_TOKEN = 0
_ADVICE = "build the embedding with mask_zero=False, load the weights, save it again, and send no padding"


def skipped_token(network: Network) -> int | None:
    """Return the token whose steps the network skips, or None if it skips none.

    A network without these steps gives the same answers only if every layer that looks at several steps
    skips them: recurrent layers and the mean over all steps do, convolutions and the maximum do not.

    Raises:
        Refused: some layers skip steps and others do not, or there are two sequences.
    """
    mixing = [call for call in network.calls if call.layer.config.mixes_steps]
    skipping = [call for call in mixing if _skips(call, network)]
    if not skipping:
        return None
    for call in mixing:
        if call not in skipping:
            config = call.layer.config
            raise Refused(
                f"{label(config.name, config.class_name)}: expected it to skip the steps of token 0 "
                f"as {skipping[0].layer.config.name!r} does, found that it computes with them",
                _ADVICE,
            )
    if len({network.shapes[call.inputs[0]].along for call in mixing}) > 1:
        raise Refused("mask_zero: expected one sequence where steps are skipped, found two", _ADVICE)
    return SKIPPED_TOKEN


def _skips(call: Call, network: Network) -> bool:
    config = call.layer.config
    is_aware = isinstance(config, c.Recurrent | c.Bidirectional) or (
        isinstance(config, c.GlobalPooling) and config.kind == "mean"
    )
    return is_aware and network.shapes[call.inputs[0]].is_masked

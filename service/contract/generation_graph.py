"""Names of the tensors of a generation graph, which runs a few steps with the sampler in it.

docs/contract.md has their types, shapes and meanings. State tensors have numbers here, in the order of
model.json, since the names that a model gives them are those of its chunk cell.
"""

from dataclasses import dataclass

# Starts every name, so that none is that of a chunk cell's value.
PREFIX = "generation."


@dataclass(frozen=True, slots=True)
class _Names:
    """The names.

    Attributes:
        token, uniform: of one step, inside the graph.
        tokens, uniforms, inverse, has_cuts, top_k, top_p: inputs.
        picked, reached, weights, totals, cut_margins, logits: outputs.
    """

    token: str = f"{PREFIX}token"
    uniform: str = f"{PREFIX}uniform"
    tokens: str = f"{PREFIX}tokens"
    uniforms: str = f"{PREFIX}uniforms"
    inverse: str = f"{PREFIX}inverse_temperature"
    has_cuts: str = f"{PREFIX}has_cuts"
    top_k: str = f"{PREFIX}top_k"
    top_p: str = f"{PREFIX}top_p"
    picked: str = f"{PREFIX}picked"
    reached: str = f"{PREFIX}reached"
    weights: str = f"{PREFIX}weights"
    totals: str = f"{PREFIX}totals"
    cut_margins: str = f"{PREFIX}cut_margins"
    logits: str = f"{PREFIX}logits"


NAMES = _Names()


def state_name(index: int) -> str:
    """Return the name of a state tensor before the first step."""
    return f"{PREFIX}state{index}"


def next_name(index: int) -> str:
    """Return the name of a state tensor after the last step."""
    return f"{PREFIX}state{index}.next"

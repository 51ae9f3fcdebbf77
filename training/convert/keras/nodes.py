"""Reads the nodes of Functional models: which values a layer is called on."""

from dataclasses import dataclass
from typing import Any, Final

from training.convert.foreign import Refused
from training.convert.keras.parsing import EXPORT, label

MAX_NODES: Final = 256
MAX_TENSORS: Final = 64
# Operations that Keras records when it computes masks in a Functional model.
MASK_OPERATIONS = ("NotEqual", "LogicalOr", "ExpandDims", "ZerosLike", "OnesLike", "Concatenate", "Any")

Place = tuple[str, int, int]  # layer, node and tensor


@dataclass(frozen=True, slots=True)
class Node:
    """One call of a layer.

    Attributes:
        inputs: names of the values that it is called on, once they are known.
        states: names of its initial states.
        mask: name of the mask that it is given explicitly, or None.
        places: where the inputs come from.
        state_places: where the initial states come from.
        mask_place: where the mask comes from, or None.
        constants: plain numbers among the arguments.
    """

    inputs: tuple[str, ...]
    states: tuple[str, ...]
    mask: str | None
    places: tuple[Place, ...] = ()
    state_places: tuple[Place, ...] = ()
    mask_place: Place | None = None
    constants: tuple[float, ...] = ()


def is_operation(raw: dict[str, Any]) -> bool:
    """Return whether an entry of the layers is an operation on tensors, such as x * 2."""
    return str(raw.get("module")).startswith("keras.src.ops")


def nodes_of(raw: dict[str, Any]) -> list[Node]:
    """Return the calls of a layer in a Functional model.

    Raises:
        Refused: it is called with arguments that cannot be read.
    """
    owner = label(raw.get("name"), raw.get("class_name"))
    nodes = raw.get("inbound_nodes")
    if (
        not isinstance(nodes, list)
        or not 1 <= len(nodes) <= MAX_NODES
        or not isinstance(raw.get("name"), str)
    ):
        raise Refused(f"{owner}: inbound_nodes: expected 1 to {MAX_NODES} nodes, found something else")
    return [_node(one, owner) for one in nodes]


def _node(raw: Any, owner: str) -> Node:
    args, kwargs = (raw.get("args"), raw.get("kwargs")) if isinstance(raw, dict) else (None, None)
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not args:
        raise Refused(
            f"{owner}: inbound_nodes: expected args and kwargs, found the form of Keras 2 or another one"
        )
    states, mask = kwargs.get("initial_state"), kwargs.get("mask")
    for name, value in kwargs.items():
        if name not in ("initial_state", "mask") and value not in (None, False):
            raise Refused(f"{owner}: {str(name)[:60]}: expected no such argument, found one", EXPORT)
    if states is None and len(args) == 2 and _takes_states(owner):
        args, states = args[:1], args[1]
    constants = tuple(one for one in args if isinstance(one, int | float) and not isinstance(one, bool))
    tensors = [one for one in args if not isinstance(one, int | float)]
    masks = _places(mask, owner)
    return Node(
        (),
        (),
        None,
        places=tuple(place for one in tensors for place in _places(one, owner)),
        state_places=_places(states, owner),
        mask_place=masks[0] if len(masks) == 1 else None,
        constants=constants,
    )


def _takes_states(owner: str) -> bool:
    """Return whether a layer, as errors call it, takes initial states as its second argument."""
    return owner.endswith(("(LSTM)", "(GRU)", "(SimpleRNN)", "(RNN)", "(Bidirectional)"))


def _places(value: Any, owner: str) -> tuple[Place, ...]:
    """Return the places of a tensor or of a list of them; masks of several inputs may hold None."""
    if value is None:
        return ()
    if isinstance(value, list):
        if len(value) > MAX_TENSORS:
            raise Refused(f"{owner}: expected at most {MAX_TENSORS} inputs, found {len(value)}")
        return tuple(place for one in value if one is not None for place in _tensor(one, owner))
    return _tensor(value, owner)


def _tensor(value: Any, owner: str) -> tuple[Place, ...]:
    inner = value.get("config") if isinstance(value, dict) else None
    history = inner.get("keras_history") if isinstance(inner, dict) else None
    if value.get("class_name") != "__keras_tensor__" if isinstance(value, dict) else True:
        raise Refused(f"{owner}: expected outputs of layers as arguments, found something else", EXPORT)
    return (_place(history),)


def _place(history: Any) -> Place:
    match history:
        case [str(name), int(node), int(tensor)] if 0 <= node <= MAX_NODES and 0 <= tensor <= MAX_TENSORS:
            return name, node, tensor
    raise Refused("config.json: expected the place of a value as [layer, node, tensor], found something else")


def leaves(value: Any) -> list[Place]:
    """Return the places of input_layers or output_layers: one, or a list of them."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [_place(value)]
    if isinstance(value, list) and 1 <= len(value) <= MAX_TENSORS:
        return [_place(one) for one in value]
    raise Refused(
        "config.json: expected inputs and outputs as a list, found a structure of another kind", EXPORT
    )

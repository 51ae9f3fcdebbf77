"""Writes the mixture with an n-gram behind the head of a chunk cell (training/networks/mixture.py).

Numbers of contexts are integers and counts are, too, so sums of them are exact in any order; all else is
computed element by element. So an output does not depend on the rows beside it or on how a text is cut.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from service.contract import spec
from training.export.graph_builder import Attribute, GraphBuilder
from training.networks.mixture import CONTEXT_STATE, COUNT_STEPS, NO_COUNT, MixedNetwork
from training.networks.ngram import EMPTY, UNSEEN

PREFIX = "ngram"
_TABLES = ("base", "context", "count", "unigram", "weights")


def add_tables(builder: GraphBuilder, network: MixedNetwork) -> None:
    """Add the n-gram's table and the weights of the mixture as initializers."""
    for name in _TABLES:
        builder.constant(f"{PREFIX}.{name}", network.get_buffer(name).cpu().numpy())


def table_names() -> tuple[str, ...]:
    """Return the names of the initializers that `add_tables` adds."""
    return tuple(f"{PREFIX}.{name}" for name in _TABLES)


def add_chunk_contexts(builder: GraphBuilder, network: MixedNetwork) -> str:
    """Add the nodes that follow the contexts through a chunk, and the state after it.

    Returns:
        The name of the contexts after each step, int64 (B * T, order - 1).
    """
    writer, levels = _Writer(builder, network), network.table.order - 1
    one, last = writer.axis(1), writer.axis(2)
    before = writer.numbers(CONTEXT_STATE)  # (B, order - 1)
    parts = [f"{PREFIX}.before{level}" for level in range(levels)]
    writer.split(before, parts, axis=1)  # (B, 1) each
    shape = writer.node("Shape", [spec.INPUT], "shape")
    shorter = writer.node("Expand", [writer.scalar("empty", EMPTY), shape], "empties")  # (B, T)
    found = []
    for level, part in enumerate(parts):
        number = writer.followers(shorter, spec.INPUT, f"level{level}")
        found.append(writer.node("Unsqueeze", [number, last], f"level{level}.column"))  # (B, T, 1)
        if level + 1 < levels:
            bounds = [
                writer.constant(name, np.array([at], np.int64)) for name, at in (("start", 0), ("stop", -1))
            ]
            all_but_last = writer.node("Slice", [number, *bounds, one], f"level{level}.cut")
            shorter = writer.node("Concat", [part, all_but_last], f"level{level}.shifted", axis=1)
    contexts = writer.node("Concat", found, "steps", axis=2)  # (B, T, order - 1)
    long = writer.node("Cast", [spec.LENGTHS], "lengths", to=TensorProto.INT64)
    ends = writer.node("Unsqueeze", [writer.node("Sub", [long, writer.scalar("one", 1)], "ends"), one], "end")
    final = writer.node("GatherND", [contexts, ends], "last", batch_dims=1)  # (B, order - 1)
    builder.node("Cast", [final], [CONTEXT_STATE + spec.NEXT_SUFFIX], to=TensorProto.FLOAT)
    flat = writer.constant("flat_shape", np.array([-1, levels], np.int64))
    return writer.node("Reshape", [contexts, flat], "flat")


def add_step_contexts(builder: GraphBuilder, network: MixedNetwork, token: str) -> str:
    """Add the nodes of one step, all levels at once, and the state after it.

    Args:
        builder: gets the nodes.
        network: whose n-gram it is.
        token: name of the tokens, int64 (B,).
    Returns:
        The name of the contexts after the step, int64 (B, order - 1).
    """
    writer, levels = _Writer(builder, network), network.table.order - 1
    before = writer.numbers(CONTEXT_STATE)
    column = writer.node("Unsqueeze", [token, writer.axis(1)], "token")  # (B, 1)
    shape = writer.node("Shape", [column], "shape")
    empty = writer.node("Expand", [writer.scalar("empty", EMPTY), shape], "empties")
    shorter = empty
    if levels > 1:
        parts = [f"{PREFIX}.shorter", f"{PREFIX}.longest"]
        writer.split(before, parts, axis=1, sizes=(levels - 1, 1))
        shorter = writer.node("Concat", [empty, parts[0]], "shifted", axis=1)
    found = writer.followers(shorter, column, "found")
    builder.node("Cast", [found], [CONTEXT_STATE + spec.NEXT_SUFFIX], to=TensorProto.FLOAT)
    return found


def add_mixture(builder: GraphBuilder, network: MixedNetwork, logits: str, contexts: str) -> None:
    """Add the nodes that mix the network's distribution with the n-gram's.

    Args:
        builder: gets the nodes.
        network: whose n-gram it is.
        logits: name of the head's output, float32 (N, V).
        contexts: name of as many rows of contexts, int64 (N, order - 1).
    """
    writer = _Writer(builder, network)
    one = writer.axis(1)
    counts = _add_counts(writer, network, contexts)  # (N, order - 1, V)
    total = writer.node("ReduceSum", [counts, writer.axis(2)], "total", keepdims=1)  # (N, order - 1, 1)
    known = writer.node("Sign", [total], "known")
    said = _add_ngram(writer, network.table.order - 1, counts, total, known)  # (N, V)
    weight = writer.weight(total, known)  # (N, 1)
    probabilities = writer.node("Softmax", [logits], "softmax", axis=-1)
    mine = writer.node("Mul", [weight, probabilities], "mine")
    rest_weight = writer.node("Sub", [writer.unit(), weight], "rest_weight")
    rest = writer.node("Mul", [rest_weight, said], "rest")
    both = [writer.node("Unsqueeze", [part, one], f"{part}.row") for part in (mine, rest)]  # (N, 1, V)
    pair = writer.node("Concat", both, "pair", axis=1)  # (N, 2, V)
    # onnxruntime's Log rounds the last few values of a tensor in another way than the others, so that a row
    # would depend on those before it. ReduceLogSum computes one value like another.
    builder.node("ReduceLogSum", [pair], [spec.OUTPUT], axes=[1], keepdims=0)


def _add_counts(writer: "_Writer", network: MixedNetwork, contexts: str) -> str:
    """Add the nodes that look up how often each token followed the contexts: float32 (N, order - 1, V)."""
    numbers = writer.node("Unsqueeze", [contexts, writer.axis(2)], "numbers")  # (N, order - 1, 1)
    every = writer.constant("tokens", np.arange(network.config.vocabulary, dtype=np.int64))
    is_own, places = writer.found(numbers, every, "every")  # (N, order - 1, V)
    seen = writer.node("Gather", [f"{PREFIX}.count", places], "seen")
    zero = writer.constant("zero", np.array(0, np.float32))
    return writer.node("Where", [is_own, seen, zero], "counts")


def _add_ngram(writer: "_Writer", levels: int, counts: str, total: str, known: str) -> str:
    """Add the nodes of the n-gram's distribution, from the shortest context to the longest (Witten & Bell).

    Args:
        writer: gets the nodes.
        levels: number of context lengths, order - 1.
        counts: name of how often each token followed, float32 (N, order - 1, V).
        total: name of their sums, float32 (N, order - 1, 1).
        known: name of 1 where a context was seen, else 0, float32 (N, order - 1, 1).
    Returns:
        The name of the probabilities, float32 (N, V).
    """
    signs = writer.node("Sign", [counts], "signs")
    followers = writer.node("ReduceSum", [signs, writer.axis(2)], "followers", keepdims=1)
    unknown = writer.node("Sub", [writer.unit(), known], "unknown")
    lost = writer.node("Add", [followers, unknown], "lost")
    whole = writer.node("Add", [total, lost], "whole")
    owns, shares = ([f"{PREFIX}.{name}{level}" for level in range(levels)] for name in ("own", "share"))
    writer.split(writer.node("Div", [counts, whole], "own"), owns, axis=1)  # (N, 1, V) each
    writer.split(writer.node("Div", [lost, whole], "share"), shares, axis=1)  # (N, 1, 1) each
    given = f"{PREFIX}.unigram"
    for level, (own, share) in enumerate(zip(owns, shares, strict=True)):
        given = writer.node("Mul", [share, given], f"level{level}.lower")
        given = writer.node("Add", [own, given], f"level{level}.given")
    return writer.node("Squeeze", [given, writer.axis(1)], "said")


class _Writer:
    """Adds nodes whose names begin with the prefix."""

    def __init__(self, builder: GraphBuilder, network: MixedNetwork) -> None:
        self._builder, self._places = builder, len(network.table.base)

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Attribute) -> str:
        """Add a node; return the name of its output, which is the prefix and the name given."""
        full = name if name.startswith(PREFIX) else f"{PREFIX}.{name}"
        return self._builder.node(operator, inputs, [full], **attributes)

    def split(self, given: str, parts: list[str], axis: int, sizes: tuple[int, ...] = ()) -> None:
        lengths = np.array(sizes or [1] * len(parts), np.int64)
        self._builder.node("Split", [given, self.constant(f"{parts[0]}.sizes", lengths)], parts, axis=axis)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        full = name if name.startswith(PREFIX) else f"{PREFIX}.{name}"
        if any(known.name == full for known in self._builder.initializers):
            return full
        return self._builder.constant(full, value)

    def scalar(self, name: str, value: int) -> str:
        return self.constant(name, np.array(value, np.int64))

    def unit(self) -> str:
        return self.constant("unit", np.array(1, np.float32))

    def axis(self, axis: int) -> str:
        return self.constant(f"axis{axis}", np.array([axis], np.int64))

    def numbers(self, state: str) -> str:
        """Return a state's numbers as int64; a row of any other numbers reads no place out of the table."""
        rounded = self.node("Cast", [state], "given", to=TensorProto.INT64)
        return self.node(
            "Clip", [rounded, self.scalar("unseen", UNSEEN), self.scalar("most", self._places - 1)], "before"
        )

    def found(self, contexts: str, tokens: str, name: str) -> tuple[str, str]:
        """Return which tokens follow contexts, bool, and the places of the n-grams, int64."""
        base = self.node("Gather", [f"{PREFIX}.base", contexts], f"{name}.base32")
        wide = self.node("Cast", [base], f"{name}.base", to=TensorProto.INT64)
        places = self.node("Add", [wide, tokens], f"{name}.places")
        owner = self.node("Gather", [f"{PREFIX}.context", places], f"{name}.owner32")
        owner = self.node("Cast", [owner], f"{name}.owner", to=TensorProto.INT64)
        return self.node("Equal", [owner, contexts], f"{name}.is_own"), places

    def followers(self, contexts: str, tokens: str, name: str) -> str:
        """Return the numbers of contexts with a token more, int64, UNSEEN where they were not seen."""
        is_own, places = self.found(contexts, tokens, name)
        return self.node("Where", [is_own, places, self.scalar("unseen", UNSEEN)], name)

    def weight(self, total: str, known: str) -> str:
        """Return the network's weight by the counts of the contexts, float32 (N, order - 1, 1) -> (N, 1)."""
        axis = self.axis(1)
        depth = self.node("ReduceSum", [known, axis], "depth", keepdims=0)  # (N, 1)
        is_known = self.node("Cast", [known], "is_known", to=TensorProto.BOOL)
        most = self.constant("no_count", np.array(NO_COUNT, np.float32))
        counts = self.node("Where", [is_known, total, most], "known_counts")
        rarest = self.node("ReduceMin", [counts], "rarest", axes=[1], keepdims=0)  # (N, 1)
        steps = self.constant("count_steps", np.array(COUNT_STEPS, np.float32))
        reached = self.node("GreaterOrEqual", [rarest, steps], "reached")  # (N, steps)
        flags = self.node("Cast", [reached], "flags", to=TensorProto.FLOAT)
        bucket = self.node("ReduceSum", [flags, axis], "bucket", keepdims=1)  # (N, 1)
        buckets = self.constant("buckets", np.array(len(COUNT_STEPS) + 1, np.float32))
        row = self.node("Add", [self.node("Mul", [depth, buckets], "row"), bucket], "kind_number")
        kind = self.node("Cast", [row], "kind", to=TensorProto.INT64)
        return self.node("Gather", [f"{PREFIX}.weights", kind], "weight")

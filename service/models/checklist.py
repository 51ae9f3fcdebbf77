"""Lists the checks of admission: their names, what each proves, and what a preparation tells of them.

Like `service.models.trial` it imports nothing that takes long. The table of docs/contract.md has the same
rows.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Check(NamedTuple):
    """One check of admission.

    Attributes:
        name: as refusals, the log and the metric of refusals have it.
        proves: what is true of a version that has passed it; a sentence for people, without a full stop.
    """

    name: str
    proves: str


# In the order in which they are run. The last one holds while the others run.
CHECKS = (
    Check("spec", "`model.json` fits the contract, and its files have the hashes that it gives"),
    Check("tokenizer", "the tokenizers' files are such as are served, with a token for each id"),
    Check(
        "preprocessing",
        "texts give the tokens, and values the features, of the golden examples, a window and a source "
        "included",
    ),
    Check("provider", "onnxruntime has the execution provider that is asked for"),
    Check(
        "graph",
        "onnxruntime loads the graphs: it has every operator, opset and activation, and the weights are in "
        "the file",
    ),
    Check(
        "placement",
        "there is a recurrent node (RNN, LSTM, GRU, Scan or Loop), and the provider runs every one of them",
    ),
    Check(
        "signature",
        "names, types, ranks and widths of tensors; axes may have any symbolic names, and must not be fixed "
        "at a number where the service gives different ones",
    ),
    Check(
        "init",
        "the init graph gives finite rows of the states' widths, for the golden examples and for a source of "
        "`max_steps`",
    ),
    Check(
        "golden",
        "outputs within `tolerance`: each example alone; beside other sequences; cut into equal and unequal "
        'chunks, or, for `padding: "lengths"`, with garbage behind the ends',
    ),
    Check("warm-up", "the graph runs the widest ticks"),
    Check(
        "generation",
        "the generation graph gives the outputs and states of single steps within `tolerance`; it is used "
        "where all of their bits are the same",
    ),
    Check(
        "invariance",
        "the graph runs random sequences like the golden ones; whether their bits are the same alone and in "
        "any batch is measured, not demanded",
    ),
    Check("trial", "all of this ends within the limits of time and memory, in a process of its own"),
)
NAMES = tuple(one.name for one in CHECKS)

# A number, a sentence, or whether something is so.
Measured = Mapping[str, float | str | bool]
_NOTHING: Measured = MappingProxyType({})


class Passed(NamedTuple):
    """A check that a version has passed.

    Attributes:
        check: its name.
        measured: what was found, by name; names end with the unit where there is one.
        is_needed: False where the version has nothing to check, such as a tokenizer.
    """

    check: str
    measured: Measured = _NOTHING
    is_needed: bool = True


Tell = Callable[[Passed], None]


def tell_nobody(passed: Passed) -> None:
    """Take the news that a check is passed and do nothing."""

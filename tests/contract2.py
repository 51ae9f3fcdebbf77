"""Small untrained models of contract 2: what a test serves beside those of tests.tiny.

Golden examples are what the graph gives when it runs each of them whole and alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from service.contract import spec
from tests.contract2_graphs import Layer, Net, chunk_graph, init_graph, whole_graph
from training.export.version_folder import write_files

GRAPH, INIT_GRAPH, TOKENIZER = "model.onnx", "init.onnx", "tokenizer.json"
VOCABULARY = "\n abcdefghé"
WORDS = ("[UNK]", "the", "dog", "cat", "sees", "runs", "fast", ".")
LENGTHS = (1, 5, 12)  # of golden examples


def sequences_of(net: Net, lengths: Sequence[int] = LENGTHS, seed: int = 5) -> list[NDArray[Any]]:
    """Random inputs as the network gets them: int64 (T,) or float32 (T, F)."""
    random = np.random.default_rng(seed)
    if net.takes_tokens:
        return [random.integers(0, net.size, length) for length in lengths]
    return [random.normal(0, 1, (length, net.size)).astype(np.float32) for length in lengths]


def initial_of(net: Net, seed: int) -> dict[str, NDArray[np.float32]]:
    """Random inputs of the init graph, float32 (size,) by name; none without one."""
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 1, size).astype(np.float32) for name, size in (net.init or {}).items()}


class Reference:
    """A network run by bare onnxruntime, one sequence at a time, whole and alone."""

    def __init__(self, net: Net) -> None:
        self.net = net
        made = whole_graph(net) if net.whole else chunk_graph(net)
        self.graph = made.SerializeToString()
        self.init = init_graph(net).SerializeToString() if net.init else b""
        self._session = ort.InferenceSession(self.graph, providers=["CPUExecutionProvider"])
        self._first = (
            ort.InferenceSession(self.init, providers=["CPUExecutionProvider"]) if net.init else None
        )

    def outputs(
        self, inputs: NDArray[Any], initial: Mapping[str, NDArray[np.float32]] | None = None
    ) -> NDArray[np.float32]:
        """Return the head's output at every step, float32 (T, outputs); of a pooled network (1, outputs)."""
        lengths = np.array([len(inputs)], np.int32)
        feeds: dict[str, Any] = {"input": inputs[None], "lengths": lengths}
        if self.net.whole:
            if self.net.padding == "none":
                del feeds["lengths"]
            [output] = self._session.run(["output"], feeds)
            found: NDArray[np.float32] = output.reshape(-1, self.net.outputs)
            return found
        feeds["wanted"] = np.arange(len(inputs))
        for one in self.net.states:
            row = np.broadcast_to(np.array(one["start"], np.float32), one["size"])
            feeds[one["input"]] = np.ascontiguousarray(row[None])
        if self._first is not None:
            assert initial is not None
            named = {name: row[None] for name, row in initial.items()}
            names = [one.name for one in self._first.get_outputs()]
            feeds |= dict(zip(names, self._first.run(names, named), strict=True))
        output, *_ = self._session.run(["output"], feeds)
        steps: NDArray[np.float32] = output
        return steps


def _golden(reference: Reference, number: int, inputs: NDArray[Any]) -> dict[str, Any]:
    net = reference.net
    initial = initial_of(net, number)
    outputs = reference.outputs(inputs, initial)
    last = len(inputs) - 1
    steps = [last] if net.whole == "pooled" else sorted({0, last // 2, last})
    rows = outputs[[0]] if net.whole == "pooled" else outputs[steps]
    found: dict[str, Any] = {
        "tokens" if net.takes_tokens else "features": inputs.tolist(),
        "steps": steps,
        "outputs": [[float(value) for value in row] for row in rows],
    }
    return found | ({"initial": {name: row.tolist() for name, row in initial.items()}} if initial else {})


def _described(net: Net, version: int, files: Mapping[str, bytes], golden: list[Any]) -> dict[str, Any]:
    is_invariant = all(layer.kind != "rnn" for layer in net.layers)
    direction = "both" if net.whole else "forward"
    described: dict[str, Any] = {
        "contract": 2,
        "name": net.name,
        "version": version,
        "task": net.task,
        "kind": "whole" if net.whole else "chunk",
        "layers": [
            {"kind": layer.kind, "width": layer.width, "direction": direction} for layer in net.layers
        ],
        "state": net.states,
        "input": {"kind": "tokens" if net.takes_tokens else "features", "size": net.size},
        "outputs": net.outputs,
        net.task.removeprefix("text-"): dict(net.section),
        "variants": {"fp32": {"file": GRAPH, "batch_invariant": is_invariant, "tolerance": 1e-4}},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "golden": golden,
        "metrics": {"accuracy": 0.5},
        "provenance": {"created": "2026-01-01T00:00:00+00:00"},
    }
    if net.whole:
        described |= {"padding": net.padding, "pooled": net.whole == "pooled"}
    if net.window is not None:
        described["window"] = dict(net.window)
    if net.init is not None:
        inputs = [{"name": name, "size": size} for name, size in net.init.items()]
        described["init"] = {"file": INIT_GRAPH, "inputs": inputs}
    return described


def files_of(reference: Reference) -> dict[str, bytes]:
    """The files of a version beside model.json, by name."""
    files = {GRAPH: reference.graph, **reference.net.files}
    return files | ({INIT_GRAPH: reference.init} if reference.init else {})


def model_of(reference: Reference, version: int = 1) -> spec.ModelSpec:
    """The model.json of a version."""
    net = reference.net
    lengths = LENGTHS if net.window is None else (net.window["to"],) * 2
    golden = [_golden(reference, *pair) for pair in enumerate(sequences_of(net, lengths))]
    return spec.parse_spec(json.dumps(_described(net, version, files_of(reference), golden)))


def export(net: Net, repository: Path, version: int = 1) -> Path:
    """Write a version of a model; return its folder."""
    reference = Reference(net)
    folder = repository / net.name / str(version)
    write_files(folder, model_of(reference, version), files_of(reference))
    return folder


def _tokenizer() -> bytes:
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    made.pre_tokenizer = Whitespace()
    return bytes(made.to_str(), "utf-8")


_TAGS = ["none", "vowel", "consonant"]
_CLASSES = ["still", "walking", "running"]
_CHARACTERS = {"kind": "characters", "vocabulary": VOCABULARY, "normalization": {"form": "NFC"}}
_AXES = [
    {"name": "x", "unit": "g", "mean": 0.5, "scale": 2.0},
    {"name": "y", "unit": "g"},
    {"name": "power", "unit": "W", "transform": "log", "mean": 1.0, "scale": 0.5},
]


def _output(kind: str, steps: str, **more: Any) -> dict[str, Any]:
    return {"output": {"kind": kind, "steps": steps, **more}}


# One class a sequence, of rows of features by columns.
ACTIVITY = Net(
    "activity",
    (Layer("lstm", 16),),
    3,
    3,
    {"columns": _AXES, **_output("logits", "last", labels=_CLASSES)},
)
# A label a character.
TAGS = Net(
    "tags",
    (Layer("gru", 12),),
    len(VOCABULARY),
    3,
    {"text": _CHARACTERS, **_output("logits", "every", labels=_TAGS)},
    takes_tokens=True,
)
# Layers of unlike kinds and widths, states of odd names with constant starts; numbers that are scaled.
ODD = Net(
    "odd",
    (Layer("lstm", 5, (0.25, [0.1, -0.2, 0.3, -0.4, 0.5])), Layer("gru", 7, (-0.5,))),
    4,
    2,
    _output(
        "numbers",
        "every",
        columns=[{"name": "speed", "unit": "m/s", "mean": 3.0, "scale": 10.0}, {"name": "turn"}],
    ),
    state_names="memory/{kind}:{layer}",
)
# A vanilla network, whose kernel is not batch-invariant, that gives an embedding.
VANILLA = Net("vanilla", (Layer("rnn", 8),), 2, 6, _output("embedding", "last"))
# Two labels that share one output, frame by frame.
VOICE = Net("voice", (Layer("gru", 8),), 4, 1, _output("logits", "every", labels=["silence", "speech"]))
# Several labels at a time, of token ids.
TOPICS = Net(
    "topics",
    (Layer("lstm", 8),),
    20,
    4,
    _output("logits", "last", labels=["a", "b", "c", "d"], exclusive=False),
    takes_tokens=True,
)
# A fixed window of token ids.
WINDOWED = Net(
    "windowed",
    (Layer("lstm", 8),),
    len(VOCABULARY),
    3,
    {"text": _CHARACTERS, **_output("logits", "last", labels=_TAGS)},
    takes_tokens=True,
    window={"to": 8, "side": "left", "value": 1, "longer": "keep_last"},
)
# A label a word, by a tokenizer.
WORD_TAGS = Net(
    "word-tags",
    (Layer("lstm", 8),),
    len(WORDS),
    3,
    {"text": {"kind": "tokenizer", "file": TOKENIZER}, **_output("logits", "every", labels=["x", "y", "z"])},
    takes_tokens=True,
    files={TOKENIZER: _tokenizer()},
)
# A state that two inputs of a request begin.
BEGUN = Net(
    "begun",
    (Layer("lstm", 6), Layer("lstm", 6)),
    2,
    3,
    _output("numbers", "every"),
    init={"image": 5, "speaker": 3},
)
# Networks that look both ways.
BOTH_WAYS = Net(
    "both-ways",
    (Layer("lstm", 6),),
    3,
    3,
    {"columns": _AXES, **_output("logits", "every", labels=_CLASSES)},
    whole="every",
)
POOLED = Net("pooled", (Layer("gru", 6),), 3, 4, _output("embedding", "last"), whole="pooled")
EQUAL = Net("equal", (Layer("lstm", 6),), 3, 2, _output("numbers", "last"), whole="pooled", padding="none")

CHUNK_NETS = (ACTIVITY, TAGS, ODD, VANILLA, VOICE, TOPICS, WINDOWED, WORD_TAGS, BEGUN)
WHOLE_NETS = (BOTH_WAYS, POOLED, EQUAL)

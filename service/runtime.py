"""One onnxruntime session: provider, threads, tensors in and out. Nothing else in the service knows
onnxruntime.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when the library loads: it must not send usage data from other people's servers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.contract import spec
from service.errors import ModelFailure, ModelRefused

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
RECURRENT_OPERATORS = frozenset({"RNN", "LSTM", "GRU", "DynamicQuantizeLSTM"})
_ERROR_SEVERITY = 3
# Weights outside the graph were not hashed; where they are looked for, there is nothing.
_NOWHERE = "/nowhere: seqserve takes no external data"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, onnxruntime's type and the shape of a graph's input or output; symbolic dimensions are
    strings.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The arrays of one run, all C-contiguous: written and read in place, so they must outlive it.

    Attributes:
        inputs: int64 (B, T) or float32 (B, T, F).
        lengths: int32 (B,), 1..T.
        state: float32 (B, H) a state tensor, before.
        wanted: int64 (W,), flat positions row * T + step.
        output: float32 (W, V), written.
        after: float32 (B, H) a state tensor, written; must not overlap `state`.
    """

    inputs: NDArray[Any]
    lengths: NDArray[np.int32]
    state: Sequence[NDArray[np.float32]]
    wanted: NDArray[np.int64]
    output: NDArray[np.float32]
    after: Sequence[NDArray[np.float32]]


class Runtime:
    """A loaded graph.

    Args:
        graph: its bytes, or its path where they need not be those that were hashed.
        state: names of state inputs and outputs.
        provider: "cpu" or "cuda".
        threads: onnxruntime's, for one operator.

    Raises:
        ModelRefused: the provider is not in this build or does not take the recurrent nodes, or the graph is
            not one.
    """

    def __init__(
        self, graph: Path | bytes, state: Sequence[tuple[str, str]], provider: str, threads: int
    ) -> None:
        self.provider = PROVIDERS[provider]
        self._state = tuple(state)
        if self.provider not in ort.get_available_providers():
            raise ModelRefused(
                "provider",
                self.provider,
                f"only {', '.join(ort.get_available_providers())} in this onnxruntime",
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERROR_SEVERITY if provider == "cuda" else 2
        # Shapes vary from tick to tick, and a pattern is kept for each of them.
        options.enable_mem_pattern = False
        # Threads that wait by spinning would take the core from the network and from other models.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
        try:
            self._session = ort.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph), options, providers=[self.provider]
            )
        except Exception as error:
            if "external data" in str(error).lower():
                raise ModelRefused(
                    "graph", "a graph that holds its weights", f"external data: {error}"
                ) from error
            raise ModelRefused("graph", "a graph that onnxruntime loads", str(error)) from error
        self._check_placement()
        self.inputs = tuple(
            TensorInfo(one.name, one.type, tuple(one.shape)) for one in self._session.get_inputs()
        )
        self.outputs = tuple(
            TensorInfo(one.name, one.type, tuple(one.shape)) for one in self._session.get_outputs()
        )

    def _check_placement(self) -> None:
        """Every recurrent node must really run on the provider: onnxruntime otherwise falls back to the CPU
        node by node, silently.
        """
        found = [
            (part.ep_name, node)
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
        strays = [
            f"{node.name} on {name}"
            for name, node in found
            if node.op_type in RECURRENT_OPERATORS and name != self.provider
        ]
        if strays:
            raise ModelRefused("placement", f"every recurrent node on {self.provider}", ", ".join(strays))
        if not any(node.op_type in RECURRENT_OPERATORS for _, node in found):
            raise ModelRefused(
                "placement", "a recurrent node", f"none among {sorted({node.op_type for _, node in found})}"
            )

    def bind(self, chunk: Chunk) -> "Binding":
        """Tie arrays to the graph's inputs and outputs, to run them once or many times."""
        binding = self._session.io_binding()
        pairs_in = [(spec.INPUT, chunk.inputs), (spec.LENGTHS, chunk.lengths), (spec.WANTED, chunk.wanted)]
        pairs_out = [(spec.OUTPUT, chunk.output)]
        for (before, after), old, new in zip(self._state, chunk.state, chunk.after, strict=True):
            pairs_in.append((before, old))
            pairs_out.append((after, new))
        for name, array in pairs_in:
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in pairs_out:
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return Binding(self._session, binding, chunk)


class Binding:
    """A chunk tied to a session."""

    def __init__(self, session: Any, binding: Any, chunk: Chunk) -> None:
        self._session = session
        self._binding = binding
        self.chunk = chunk  # keeps the arrays alive: the session knows only their addresses

    def run(self) -> None:
        """Compute: `chunk.output` and `chunk.after` are written. onnxruntime gives up the interpreter lock
        meanwhile.

        Raises:
            ModelFailure: onnxruntime refused; what is written is undefined.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise ModelFailure(f"onnxruntime failed: {error}") from error

"""One onnxruntime session: provider, threads, input and output tensors; for chunks, or for whole sequences.

No other module of the service knows onnxruntime.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

# onnxruntime reads this when it is imported; a server must not send usage data to its vendor.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.contract import spec
from service.contract.generation_graph import NAMES, next_name, state_name
from service.errors import ModelFailure, ModelRefused
from service.load_errors import describe

# A number that is no part of a name.
_NUMBER = re.compile(r"(?<!\w)[-+]?\d[\w.+-]*")

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# A recurrence may be written as a loop over its time steps, too.
RECURRENT_OPERATORS = frozenset({"RNN", "LSTM", "GRU", "DynamicQuantizeLSTM", "Scan", "Loop"})
_FATAL_SEVERITY = 4
_ERROR_SEVERITY = 3
# The hash of the graph does not cover external weights, so onnxruntime gets a folder that does not exist.
_NOWHERE = "/nowhere: seqserve takes no external data"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, onnxruntime type and shape of a graph input or output; symbolic dimensions are strings."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Arrays of one run, all C-contiguous; onnxruntime reads and writes them in place.

    Attributes:
        inputs: int64 (B, T) or float32 (B, T, F).
        lengths: int32 (B,), 1..T, valid steps of each row.
        state: state before the run, one float32 (B, H) a state tensor.
        wanted: int64 (W,), flat positions row * T + step at which the head is computed.
        output: float32 (W, V), written by the run.
        after: state after the run, one float32 (B, H) a state tensor; must not overlap `state`.
    """

    inputs: NDArray[Any]
    lengths: NDArray[np.int32]
    state: Sequence[NDArray[np.float32]]
    wanted: NDArray[np.int64]
    output: NDArray[np.float32]
    after: Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class StepRun:
    """Arrays of one run of a generation graph, all C-contiguous; onnxruntime reads and writes them in place.

    Attributes:
        tokens: int64 (B,), fed in the first step.
        state: state before it, one float32 (B, H) a state tensor.
        uniforms: float64 (K, B, 1), in [0, 1), one for each step and row.
        inverse: float64 (B, 1), multiplies the logits less their maximum.
        has_cuts: bool (), whether the next two are looked at.
        top_k: int64 (B, 1), tokens that may be picked; V: all.
        top_p: float64 (B, 1); above 1: off.
        after: state after the last step, one float32 (B, H) a state tensor; must not overlap `state`.
        picked: int64 (K, B), tokens picked in each step.
        reached: float64 (K, B, 1), sum of the weights up to each of them, it included.
        weights: float64 (K, B, 1), of each of them.
        totals: float64 (K, B, 1), of all weights.
        cut_margins: float64 (K, 1, 1), least distance of a sum from top_p, as a part of the total.
        logits: float32 (K, B, V).
    """

    tokens: NDArray[np.int64]
    state: Sequence[NDArray[np.float32]]
    uniforms: NDArray[np.float64]
    inverse: NDArray[np.float64]
    has_cuts: NDArray[np.bool_]
    top_k: NDArray[np.int64]
    top_p: NDArray[np.float64]
    after: Sequence[NDArray[np.float32]]
    picked: NDArray[np.int64]
    reached: NDArray[np.float64]
    weights: NDArray[np.float64]
    totals: NDArray[np.float64]
    cut_margins: NDArray[np.float64]
    logits: NDArray[np.float32]


class Session:
    """A loaded ONNX graph.

    Args:
        graph: bytes of the graph, or its path if they need not be the bytes that were hashed.
        provider: "cpu" or "cuda".
        threads: number of onnxruntime threads for one operator.
        weights: bytes of files, by name, that the graph's external data is in; it may be in no other file.

    Attributes:
        provider: onnxruntime's name of it.
        threads: as given.
        operators: types of the nodes after onnxruntime's optimizations, those inside loops included.
        inputs: the graph's inputs.
        outputs: the graph's outputs.

    Raises:
        ModelRefused: this build lacks the provider, the provider does not run the recurrent nodes, or
            onnxruntime cannot load the graph.
    """

    _is_recurrent: ClassVar[bool] = True
    # onnxruntime keeps the memory of its largest run for the next ones, and returns none of it.
    _keeps_memory: ClassVar[bool] = True

    def __init__(
        self,
        graph: Path | bytes,
        provider: str,
        threads: int,
        weights: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        self.provider = PROVIDERS[provider]
        self.threads = threads
        self._run_options = _run_options()
        if self.provider not in ort.get_available_providers():
            raise ModelRefused(
                "provider",
                self.provider,
                f"only {', '.join(ort.get_available_providers())} in this onnxruntime",
            )
        try:
            self._session = ort.InferenceSession(
                graph if isinstance(graph, bytes) else str(graph),
                _session_options(provider, threads, self._keeps_memory, weights),
                providers=[self.provider],
            )
        except Exception as error:
            expected, found = describe(str(error))
            raise ModelRefused("graph", expected, found) from error
        # The session would keep the bytes of the graph beside the weights, to load it anew where a run fails
        # on CUDA and the CPU should take over, which it must not.
        self._session.disable_fallback()
        self._session._model_bytes = None
        self._check_placement()
        self.inputs = tuple(
            TensorInfo(one.name, one.type, tuple(one.shape)) for one in self._session.get_inputs()
        )
        self.outputs = tuple(
            TensorInfo(one.name, one.type, tuple(one.shape)) for one in self._session.get_outputs()
        )

    def _check_placement(self) -> None:
        """Note the graph's operators, and refuse it unless every recurrent node runs on the provider.

        onnxruntime would otherwise fall back to the CPU silently, node by node.
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
        self.operators = frozenset(node.op_type for _, node in found)
        if self._is_recurrent and not self.operators & RECURRENT_OPERATORS:
            raise ModelRefused(
                "placement", "a recurrent node", f"none among {', '.join(sorted(self.operators))}"
            )

    def release(self) -> None:
        """Free the graph and its weights; it cannot be run again."""
        del self._session

    def terminate(self) -> None:
        """End runs under way before their next node or turn of a loop, and fail later ones; in any thread."""
        self._run_options.terminate = True


class Runtime(Session):
    """A graph that runs chunks.

    Args:
        graph, provider, threads: as of `Session`.
        state: pairs of state input and state output names.

    Raises:
        ModelRefused: as from `Session`.
    """

    def __init__(
        self, graph: Path | bytes, state: Sequence[tuple[str, str]], provider: str, threads: int
    ) -> None:
        super().__init__(graph, provider, threads)
        self._state = tuple(state)

    def bind(self, chunk: Chunk) -> "Binding":
        """Bind arrays to the graph's inputs and outputs; the binding can run any number of times."""
        binding = self._session.io_binding()
        pairs_in = [(spec.INPUT, chunk.inputs), (spec.LENGTHS, chunk.lengths), (spec.WANTED, chunk.wanted)]
        pairs_out = [(spec.OUTPUT, chunk.output)]
        for (before, after), old, new in zip(self._state, chunk.state, chunk.after, strict=True):
            pairs_in.append((before, old))
            pairs_out.append((after, new))
        _bind(binding, pairs_in, pairs_out)
        return Binding(self._session, binding, self._run_options, chunk)


class GenerationRuntime(Session):
    """A graph that runs a few steps of a chunk cell with the sampler in it; arguments as of `Session`."""

    def bind(self, run: StepRun) -> "Binding":
        """Bind arrays to the graph's inputs and outputs; the binding can run any number of times."""
        binding = self._session.io_binding()
        given = ("tokens", "uniforms", "inverse", "has_cuts", "top_k", "top_p")
        made = ("picked", "reached", "weights", "totals", "cut_margins", "logits")
        inputs = [(getattr(NAMES, name), getattr(run, name)) for name in given]
        outputs = [(getattr(NAMES, name), getattr(run, name)) for name in made]
        inputs += [(state_name(index), tensor) for index, tensor in enumerate(run.state)]
        outputs += [(next_name(index), tensor) for index, tensor in enumerate(run.after)]
        _bind(binding, inputs, outputs)
        return Binding(self._session, binding, self._run_options, run)


class WholeRuntime(Session):
    """A graph that runs whole sequences, side by side; the arguments are those of `Session`."""

    # A run takes memory for each time step of a sequence (measured: 1.3 GB for 100,000 steps of a
    # bidirectional LSTM of 256), and is no slower with memory of the C library, which gives it back.
    _keeps_memory = False

    @cached_property
    def takes_lengths(self) -> bool:
        """True if the graph has an input of lengths, so that rows of a run may have different ones."""
        return any(one.name == spec.LENGTHS for one in self.inputs)

    def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:
        """Run a batch; onnxruntime releases the interpreter lock meanwhile.

        Args:
            inputs: int64 (B, T) or float32 (B, T, F).
            lengths: int32 (B,), 1..T, valid steps of each row; None if and only if the graph takes none.

        Returns:
            float32 (B, outputs), or (B, T, outputs) whose values behind a row's length mean nothing.

        Raises:
            ModelFailure: the run failed.
        """
        feeds = {spec.INPUT: inputs} if lengths is None else {spec.INPUT: inputs, spec.LENGTHS: lengths}
        try:
            [output] = self._session.run([spec.OUTPUT], feeds, self._run_options)
        except Exception as error:
            raise _failure(error) from error
        return np.asarray(output)


class InitRuntime(Session):
    """A graph that computes the first states of a sequence; the arguments are those of `Session`."""

    _is_recurrent = False
    # An encoder takes memory for each time step of its source, as a whole network does of its sequence.
    _keeps_memory = False

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph for one sequence, so that no other one can change a bit of its states.

        Args:
            inputs: float32 (1, size) by name, one for each of the graph's inputs; `source`, which an encoder
                reads, is int64 (1, S) or float32 (1, S, F).

        Returns:
            float32 (1, size) by name of the state that it is the start of.

        Raises:
            ModelFailure: the run failed.
        """
        names = [one.name for one in self.outputs]
        try:
            outputs = self._session.run(names, dict(inputs), self._run_options)
        except Exception as error:
            raise _failure(error) from error
        return dict(zip(names, outputs, strict=True))


def _session_options(provider: str, threads: int, keeps_memory: bool, weights: Mapping[str, bytes]) -> Any:
    """Return options of a session: its threads, and what a server must not leave to the defaults."""
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = keeps_memory
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_SEVERITY if provider == "cuda" else 2
    # Shapes vary from tick to tick, and onnxruntime would keep one memory pattern for each shape.
    options.enable_mem_pattern = False
    # Spinning threads would take CPU time from the event loop and from other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    if weights:
        names, files = list(weights), list(weights.values())
        options.add_external_initializers_from_files_in_memory(names, files, list(map(len, files)))
    return options


def _run_options() -> Any:
    """Return options with which a run prints nothing: its error, raised too, has values of inputs."""
    options = ort.RunOptions()
    options.log_severity_level = _FATAL_SEVERITY
    # onnxruntime's Python looks this up before each run with bound arrays, and where it is missing raises an
    # error within, which takes 30 us. 0 is what it then takes.
    options.add_run_config_entry("gpu_graph_id", "0")
    return options


def _failure(error: Exception) -> ModelFailure:
    """Return the failure of a run, without numbers: one in its text may be of a caller's input."""
    return ModelFailure(f"onnxruntime failed: {_NUMBER.sub('#', str(error))}")


def _bind(
    binding: Any, inputs: Sequence[tuple[str, NDArray[Any]]], outputs: Sequence[tuple[str, NDArray[Any]]]
) -> None:
    """Bind arrays to a session's inputs and outputs by name."""
    for name, array in inputs:
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in outputs:
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


class Binding:
    """The arrays of a run bound to a session."""

    def __init__(self, session: Any, binding: Any, options: Any, arrays: Chunk | StepRun) -> None:
        self._session = session
        self._binding = binding
        self._options = options
        self._arrays = arrays  # keeps them alive: the session knows only their addresses

    def run(self) -> None:
        """Run the graph, which writes the arrays of outputs.

        onnxruntime releases the interpreter lock during the run.

        Raises:
            ModelFailure: the run failed; the written arrays are undefined.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except Exception as error:
            raise _failure(error) from error

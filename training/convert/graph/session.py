"""Runs graphs of a conversion in onnxruntime on one thread, whose results do not vary from run to run."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime as ort

from training.convert.foreign import Array, Refused
from training.convert.graph.bounds import bounded_run
from training.errors import TrainingError

_QUIET = 4
# Weights of this size are used where they lie: onnxruntime would copy those of each graph otherwise.
_LARGE_BYTES = 64 << 20


class Session:
    """A graph of a conversion, loaded.

    Args:
        model: the graph; its weights may lie in a file.
        folder: folder of that file; None: the graph holds its weights itself.

    Raises:
        Refused: onnxruntime does not load it.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path | None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        options.enable_mem_pattern = False
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
            if (folder / "weights.bin").stat().st_size > _LARGE_BYTES:
                options.add_session_config_entry("session.disable_prepacking", "1")
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise Refused(f"onnxruntime does not load the graph: {_short(error)}") from error
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.outputs = tuple(one.name for one in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Array]:
        """Run the graph.

        Args:
            feeds: arrays by name; those that the graph does not take are left out.
            names: outputs to compute, in order; None: all.

        Raises:
            Refused: the run failed, as it does where a graph has a fixed length of time.
            TrainingError: it takes too long.
        """
        taken = {name: array for name, array in feeds.items() if name in self.inputs}
        options = ort.RunOptions()
        options.log_severity_level = _QUIET
        try:
            with bounded_run(options):
                found = self._session.run(None if names is None else list(names), taken, options)
        except TrainingError:
            raise
        except Exception as error:
            raise Refused(f"onnxruntime fails: {_short(error)}") from error
        return [np.asarray(one) for one in found]


def _short(error: Exception) -> str:
    """Return the first sentence of onnxruntime's message, without its places in source files."""
    text = " ".join(str(error).split())
    return text[:200]

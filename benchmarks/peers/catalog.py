"""The models that Triton serves in the rows against it, each as a capable user would write it."""

from benchmarks.models import Model
from benchmarks.peers.repository import Batching, Tensor, TritonModel

# The most requests in flight of any row: a batch holds them all.
MAX_BATCH = 64


def usual_texts(name: str, model: Model) -> TritonModel:
    """Return a classifier as Triton's own backends run it: batches padded to their longest text."""
    batching = Batching(max_queue_delay_us=1000, preferred=(16, 32))
    return _texts(name, model, "UsualTexts", MAX_BATCH, MAX_BATCH, batching)


def sorted_texts(name: str, model: Model, rows: int, max_batch_size: int) -> TritonModel:
    """Return a classifier that takes many texts at a time and runs them sorted, so many rows a batch."""
    return _texts(name, model, "SortedTexts", rows, max_batch_size, Batching())


def _texts(
    name: str, model: Model, class_name: str, rows: int, max_batch_size: int, batching: Batching
) -> TritonModel:
    return TritonModel(
        name,
        "texts",
        class_name,
        [Tensor("text", "STRING", [1])],
        [Tensor("label", "STRING", [1]), Tensor("probabilities", "FP32", [model.spec.outputs])],
        max_batch_size,
        batching,
        parameters={"folder": str(model.folder), "rows": str(rows)},
    )


def forecasts(name: str, model: Model, max_queue_delay_us: int) -> TritonModel:
    """Return a forecasting model that runs all series of a batch at once."""
    section = model.spec.forecasting
    assert section is not None, "expected a forecasting model"
    horizon, levels = section.horizon, len(section.quantiles)
    return TritonModel(
        name,
        "forecasts",
        "Forecasts",
        [Tensor("input", "FP32", [-1, len(section.columns)])],
        [Tensor("value", "FP32", [horizon]), Tensor("quantiles", "FP32", [horizon, levels])],
        MAX_BATCH,
        Batching(max_queue_delay_us),
        parameters={"folder": str(model.folder)},
    )


def streams(name: str, model: Model, interval_ms: int) -> TritonModel:
    """Return a generator with continuous batching.

    Args:
        name: as requests give it.
        model: a character model.
        interval_ms: time between two messages of a stream, milliseconds; 0: a message a character.
    """
    return TritonModel(
        name,
        "streams",
        "Streams",
        [Tensor("prompt", "STRING", [1])],
        [Tensor("text", "STRING", [1])],
        0,
        is_decoupled=True,
        parameters={"folder": str(model.folder), "rows": str(MAX_BATCH), "interval_ms": str(interval_ms)},
    )

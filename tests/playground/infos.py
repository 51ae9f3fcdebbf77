"""Models as the server describes them, of a few fields, for tests of what pages make of them."""

from typing import Any

from seqserve.results import ModelInfo, ModelStatus


def model_info(
    task: str = "sequences",
    *,
    spec: dict[str, Any] | None = None,
    labels: tuple[str, ...] = (),
    **fields: Any,
) -> ModelInfo:
    """A version that serves."""
    about: dict[str, Any] = {
        "name": "made",
        "version": 1,
        "status": ModelStatus.READY,
        "message": "",
        "cell": "gru",
        "layers": 1,
        "hidden": 4,
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
        "batch_invariant": True,
        "golden_max_error": 0.0,
        "metrics": {},
    }
    return ModelInfo(task=task, spec=spec or {}, labels=labels, **(about | fields))

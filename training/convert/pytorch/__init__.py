"""PyTorch modules as networks from elsewhere: exported to ONNX, with the module itself as the original."""

from training.convert.pytorch.checkpoint import load_checkpoint, refusal_of_file
from training.convert.pytorch.reading import read_module

__all__ = ["load_checkpoint", "read_module", "refusal_of_file"]

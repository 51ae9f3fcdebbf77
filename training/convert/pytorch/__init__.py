"""PyTorch modules as networks from elsewhere: exported to ONNX, with the module itself as the original."""

from training.convert.pytorch.checkpoint import load_checkpoint, refusal_of_file
from training.convert.pytorch.named import is_name, read_named
from training.convert.pytorch.reading import read_module

__all__ = ["is_name", "load_checkpoint", "read_module", "read_named", "refusal_of_file"]

"""Chooses the way in by what a user names: an ONNX file, a .keras file, or a PyTorch module."""

from pathlib import Path
from typing import Any

from torch import nn

from training.convert.foreign import Foreign, Refused
from training.convert.keras import read_keras
from training.convert.options import Choices
from training.convert.original.joining import join
from training.convert.original.reading import read_onnx
from training.convert.pytorch.checkpoint import refusal_of_file
from training.convert.pytorch.named import is_name, read_named
from training.convert.pytorch.reading import read_module

FORMS = "an .onnx file, a .keras file, or package.module:function with --checkpoint"


def read(network: object, folder: Path, examples: Any = None, checkpoint: Path | None = None) -> Foreign:
    """Read a network.

    Args:
        network: path of a file, `package.module:function`, or an nn.Module.
        folder: an empty folder, to which the weights of a large graph are moved.
        examples: example inputs of a module; None: they are derived from its layers.
        checkpoint: file of the weights of a module.

    Raises:
        Refused: it cannot be read; the text says why.
    """
    if not isinstance(network, str | Path):
        return _module(network, folder, examples, checkpoint)
    path = Path(network)
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return read_onnx(path, folder)
    if suffix == ".keras":
        return read_keras(path, folder)
    if is_name(str(network)) and not path.exists():
        return read_named(str(network), examples, checkpoint=checkpoint, folder=folder)
    if suffix in (".pt", ".pth", ".ckpt", ".bin"):
        raise refusal_of_file(path)
    if suffix == ".safetensors":
        raise Refused(
            f"{network}: expected {FORMS}, found a file of weights alone",
            "load it in a function that builds the module, and name that function",
        )
    if suffix in (".h5", ".hdf5", ".pb", ".tflite"):
        raise Refused(
            f"{network}: expected {FORMS}, found a {suffix} file",
            "save it with Keras 3 as a .keras file: keras.models.load_model(FILE).save('model.keras')",
        )
    if path.is_file():
        return read_onnx(path, folder)
    raise Refused(f"{network}: expected {FORMS}, found {'a folder' if path.is_dir() else 'no such file'}")


def read_pair(decoder: Foreign, choices: Choices, folder: Path) -> Foreign:
    """Return a network with its encoder in front where the user named one, else the network itself.

    Raises:
        Refused: the encoder cannot be read, or does not fit.
    """
    if choices.encoder is None:
        return decoder
    return join(read(choices.encoder, folder), decoder, choices, folder)


def _module(module: object, folder: Path, examples: Any, checkpoint: Path | None) -> Foreign:
    if not isinstance(module, nn.Module):
        raise Refused(f"expected {FORMS}, or an nn.Module, found {type(module).__name__}")
    return read_module(module, examples, checkpoint=checkpoint, folder=folder)

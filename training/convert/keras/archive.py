"""Reads the parts of a `.keras` file: a zip of metadata.json, config.json and the HDF5 file of the weights.

Nothing in the file is executed or unpickled. Sizes are checked before anything of that size is allocated.
"""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from training.convert.foreign import Refused

METADATA, CONFIG, WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
MAX_MEMBERS: Final = 64
MAX_JSON_BYTES: Final = 4 << 20
# Weights end in one ONNX file, and protobuf's own limit is 2 GiB.
MAX_WEIGHTS_BYTES: Final = (2 << 30) - (64 << 20)
MAX_RATIO: Final = 100  # uncompressed bytes for each compressed one; Keras stores without compression
_COPY_BYTES: Final = 1 << 20
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_SAVE_AGAIN = "open it with Keras 3 and save it again with model.save('model.keras')"


@dataclass(frozen=True, slots=True)
class Archive:
    """An open `.keras` file.

    Attributes:
        version: version of the Keras that saved it.
        config: the JSON object of config.json.
        weights: the weights, read on request.
    """

    version: str
    config: dict[str, Any]
    weights: "Weights"


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a `.keras` file; the weights can be read as long as the context lasts.

    Raises:
        Refused: the file is no `.keras` file of Keras 3, is damaged, or is too large.
    """
    _refuse_other_formats(path)
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as file:
            _check_members(archive)
            version = _version(_json_member(archive, METADATA))
            config = _json_member(archive, CONFIG)
            _copy_member(archive, WEIGHTS, file)
            with _open_hdf5(file) as root:
                yield Archive(version, config, Weights(root))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        # zipfile raises the last two for compressions that it does not know and for encrypted members.
        raise Refused(f"{path.name}: expected a readable .keras file, found {error}") from error


def _refuse_other_formats(path: Path) -> None:
    if not path.is_file():
        raise Refused(
            f"{path.name}: expected a .keras file, found {'a folder' if path.is_dir() else 'no file'}"
        )
    with path.open("rb") as file:
        start = file.read(len(_HDF5_MAGIC))
    if start == _HDF5_MAGIC:
        raise Refused(f"{path.name}: expected a .keras file, found a whole model in HDF5 (.h5)", _SAVE_AGAIN)
    if not start.startswith(b"PK"):
        raise Refused(f"{path.name}: expected a .keras file, which is a zip, found something else")


def _check_members(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise Refused(f"the zip: expected at most {MAX_MEMBERS} members, found {len(members)}")
    names = [one.filename for one in members]
    for name in (METADATA, CONFIG, WEIGHTS):
        if names.count(name) != 1:
            raise Refused(f"the zip: expected {name} once, found it {names.count(name)} times", _SAVE_AGAIN)
    for one in members:
        if one.file_size > MAX_RATIO * max(1, one.compress_size) + (1 << 16):
            raise Refused(
                f"{one.filename[:80]}: expected at most {MAX_RATIO} times its {one.compress_size} compressed "
                f"bytes, found {one.file_size}"
            )


def _read_bounded(archive: zipfile.ZipFile, name: str, limit: int) -> Iterator[bytes]:
    """Yield the member's bytes in pieces; what the zip says about its size is not trusted."""
    size = 0
    with archive.open(name) as member:
        while piece := member.read(_COPY_BYTES):
            size += len(piece)
            if size > limit:
                raise Refused(f"{name}: expected at most {limit} bytes, found more")
            yield piece


def _json_member(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    text = b"".join(_read_bounded(archive, name, MAX_JSON_BYTES))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name}: expected a JSON object, found {str(error)[:80]}") from error
    if not isinstance(document, dict):
        raise Refused(f"{name}: expected a JSON object, found {type(document).__name__}")
    return document


def _version(metadata: dict[str, Any]) -> str:
    version = metadata.get("keras_version")
    if not isinstance(version, str) or not version.startswith("3."):
        found = f"version {version[:20]}" if isinstance(version, str) else "no version"
        raise Refused(f"{METADATA}: keras_version: expected 3, found {found}", _SAVE_AGAIN)
    return version[:40]


def _copy_member(archive: zipfile.ZipFile, name: str, file: IO[bytes]) -> None:
    for piece in _read_bounded(archive, name, MAX_WEIGHTS_BYTES):
        file.write(piece)
    file.seek(0)


@contextmanager
def _open_hdf5(file: IO[bytes]) -> Iterator[h5py.File]:
    try:
        root = h5py.File(file, "r")
    except (OSError, ValueError, RuntimeError) as error:
        raise Refused(f"{WEIGHTS}: expected an HDF5 file, found {str(error)[:120]}") from error
    with root:
        yield root


class Weights:
    """The datasets of an HDF5 file, read by path, with their sizes bounded together.

    Links to other places and files, external and virtual storage, and filters are refused: Keras writes none
    of them, and each can make the reader read something else than this file, or more than its size.
    """

    def __init__(self, root: h5py.File) -> None:
        self._root = root
        self._size_bytes = 0

    def read(self, path: str, shape: Sequence[int], owner: str) -> NDArray[np.float32]:
        """Return the weight at a path as float32.

        Args:
            path: its place, such as layers/dense/vars/0.
            shape: the shape that it must have.
            owner: the layer that it belongs to, for errors.

        Raises:
            Refused: it is missing, of another shape or type, not finite, or not stored as Keras does.
        """
        try:
            return self._read(path, tuple(shape), owner)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise Refused(f"{owner}: {path}: expected a weight, found {str(error)[:120]}") from error

    def check_name(self, path: str, name: str, owner: str) -> None:
        """Refuse weights which the file says belong to a layer of another name."""
        try:
            group = self._at(f"{path}/vars", owner, required=False)
            found = None if group is None else group.attrs.get("name")
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise Refused(f"{owner}: {path}: expected weights, found {str(error)[:120]}") from error
        if isinstance(found, str) and found != name:
            raise Refused(f"{owner}: {path}: expected the weights of {name}, found those of {found[:80]}")

    def _at(self, path: str, owner: str, *, required: bool = True) -> Any:
        place: Any = self._root
        for part in path.split("/"):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
            if link is None:
                if not required:
                    return None
                raise Refused(f"{owner}: expected weights at {path}, found none")
            if not isinstance(link, h5py.HardLink):
                raise Refused(f"{owner}: {path}: expected a weight in this file, found a link to elsewhere")
            place = place[part]
        return place

    def _read(self, path: str, shape: tuple[int, ...], owner: str) -> NDArray[np.float32]:
        found = self._at(path, owner)
        if not isinstance(found, h5py.Dataset):
            raise Refused(f"{owner}: {path}: expected a weight, found a group")
        if found.is_virtual or found.external or found.chunks is not None:
            raise Refused(
                f"{owner}: {path}: expected a weight stored in one piece in this file, found another storage"
            )
        if found.shape != shape:
            raise Refused(
                f"{owner}: {path}: expected the shape {list(shape)}, found {list(found.shape or ())}"
            )
        if found.dtype.kind != "f" or found.id.get_storage_size() != found.nbytes:
            raise Refused(f"{owner}: {path}: expected floats stored as such, found {found.dtype}")
        self._size_bytes += found.nbytes
        if self._size_bytes > MAX_WEIGHTS_BYTES:
            raise Refused(f"{WEIGHTS}: expected at most {MAX_WEIGHTS_BYTES} bytes of weights, found more")
        with np.errstate(over="ignore"):
            values = np.asarray(found[()], np.float32)
        if not np.isfinite(values).all():
            raise Refused(f"{owner}: {path}: expected finite weights, found NaN or infinity")
        return values

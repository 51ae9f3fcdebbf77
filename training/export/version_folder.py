"""Writes the next version of a model: whole, and under a number of its own however many processes export.

A version is written to a hidden folder and renamed. Renaming fails where the number was taken meanwhile, by
whatever process on whatever machine; the version is then described anew with the next number. That needs no
lock.
"""

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

from service.contract import spec
from training.export.hidden import hidden_folder
from training.writing import disk_errors

# What rename says of a folder that is there and not empty.
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY})

# Given a version's number, its model.json and all other files by name.
Describe = Callable[[int], tuple[spec.ModelSpec, Mapping[str, bytes]]]


def next_version(parent: Path) -> int:
    """Return one more than the highest version in a model's folder; 1 for the first."""
    children = parent.iterdir() if parent.is_dir() else ()
    return 1 + max((int(child.name) for child in children if child.name.isdecimal()), default=0)


def write_version(parent: Path, describe: Describe) -> Path:
    """Write the next version of a model.

    Args:
        parent: the model's folder in its repository.
        describe: returns model.json and all other files of a version of that number. It is called again, with
            the next number, where another process took the first one meanwhile.

    Returns:
        The new folder.

    Raises:
        WriteError: it cannot be written. Nothing is left behind.
    """
    while True:
        number = next_version(parent)
        model, files = describe(number)
        with disk_errors(parent / str(number)), hidden_folder(parent, str(number)) as hidden:
            written = hidden / str(number)
            write_files(written, model, files)
            if take_place(written, parent / str(number)):
                return parent / str(number)


def write_files(folder: Path, model: spec.ModelSpec, files: Mapping[str, bytes]) -> None:
    """Write model.json and all other files of a version to a new folder.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True)
    described = model.model_dump_json(indent=1, exclude_none=True) + "\n"
    for name, data in {**files, spec.SPEC_FILE: described.encode()}.items():
        (folder / name).write_bytes(data)


def take_place(folder: Path, target: Path) -> bool:
    """Rename a folder, in one step, unless something has that name.

    Returns:
        Whether it was renamed.

    Raises:
        OSError: it cannot be renamed for another reason.
    """
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True

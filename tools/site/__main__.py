"""Write the generated pages of the site: `python -m tools.site DESCRIPTOR_SET FOLDER`, or `make site`.

DESCRIPTOR_SET is made by `protoc --include_source_info --descriptor_set_out`. FOLDER is written anew;
tools/site/hooks.py adds what lies there to the site.
"""

import shutil
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tools.site import command, errors, metrics, protos, python_client


def pages(files: FileDescriptorSet) -> dict[str, str]:
    """Return every generated page by its path in the site."""
    return {
        **protos.pages(files),
        metrics.PATH: metrics.page(),
        errors.PATH: errors.page(),
        python_client.PATH: python_client.page(),
        command.PATH: command.page(),
    }


def write(descriptor_set: Path, folder: Path) -> None:
    """Write all pages into a folder, and remove what was in it.

    Raises:
        DecodeError: the file is no descriptor set.
    """
    made = pages(FileDescriptorSet.FromString(descriptor_set.read_bytes()))
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in made.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tools.site DESCRIPTOR_SET FOLDER")
    write(Path(sys.argv[1]), Path(sys.argv[2]))

"""Print what the container image is made of, the table of docs/image.md: `make image-size`.

    python -m tools.image_sizes [BASE_IMAGE]

The container tool, its flags and the image come from the environment: CONTAINER, CONTAINER_FLAGS, IMAGE.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import Final

# Runs inside the container. Sizes are those of files, which layers hold one by one; bytecode counts apart.
_PROGRAM: Final = """
import collections, json, pathlib, sysconfig
sizes = collections.Counter()
def add(top, name_of):
    for path in pathlib.Path(top).rglob('*'):
        if path.is_file() and not path.is_symlink():
            sizes['bytecode' if path.suffix == '.pyc' else name_of(path)] += path.stat().st_size
packages = pathlib.Path(sysconfig.get_path('purelib'))
def part_of(path):
    return path.relative_to(packages).parts[0].split('.')[0] if packages in path.parents else 'environment'
add('/opt/seqserve', part_of)
add('/app/exported', lambda path: 'models')
for name in ('service', 'seqserve'):
    add(f'/app/{name}', lambda path: 'service and stubs')
print(json.dumps(sizes))
"""
# A package below this size is counted among the others, bytes.
_MIN_BYTES: Final = 2_000_000
_NOT_PACKAGES: Final = ("bytecode", "models", "service and stubs")
_LIMIT_S: Final = 180


def main(arguments: list[str]) -> int:
    """Print the table; return 1 if it cannot be made here.

    Args:
        arguments: the base image, if known; without it the base is what the other parts leave.
    """
    tool = shlex.split(os.environ.get("CONTAINER", "podman"))
    image = os.environ.get("IMAGE", "")
    if shutil.which(tool[0]) is None or not image:
        sys.stderr.write(f"expected the container tool {tool[0]} and an image's name in IMAGE\n")
        return 1
    parts = _parts_of(tool, image)
    whole = _image_bytes(tool, image)
    base = _image_bytes(tool, arguments[0]) if arguments else whole - sum(parts.values())
    rows = {
        "base image": base,
        **parts,
        "whole image": whole,
        "without base and models": whole - base - parts.get("models", 0),
    }
    lines = [f"| {name} | {size / 1e6:.1f} |" for name, size in rows.items()]
    sys.stdout.write("\n".join(["| part | MB |", "| --- | --- |", *lines]) + "\n")
    return 0


def _parts_of(tool: list[str], image: str) -> dict[str, int]:
    """Return the bytes of each part that the Dockerfile adds, largest first; small packages in one."""
    flags = ["--rm", "--pull=never", "--network=none", *shlex.split(os.environ.get("CONTAINER_FLAGS", ""))]
    output = _call([*tool, "run", *flags, "--entrypoint=python3", image, "-c", _PROGRAM])
    found: dict[str, int] = json.loads(output)
    small = {name for name, size in found.items() if size < _MIN_BYTES and name not in _NOT_PACKAGES}
    kept = {name: size for name, size in found.items() if name not in small}
    kept["other packages"] = sum(found[name] for name in small)
    return dict(sorted(kept.items(), key=lambda item: -item[1]))


def _image_bytes(tool: list[str], image: str) -> int:
    """Return the size of an image as the tool reports it."""
    return int(_call([*tool, "image", "inspect", "--format={{.Size}}", image]))


def _call(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the image is made of: `make image-size`, the table of docs/image.md.

python -m tests.image.sizes [BASE_IMAGE]
"""

import asyncio
import json
import sys

from tests.image.container import FLAGS, IMAGE, call, missing

# Runs inside. Sizes are those of files, which layers hold one by one; bytecode is counted apart.
PROGRAM = """
import collections, json, pathlib, sysconfig
sizes = collections.Counter()
def add(top, name_of):
    for path in pathlib.Path(top).rglob('*'):
        if path.is_file() and not path.is_symlink():
            sizes['bytecode' if path.suffix == '.pyc' else name_of(path)] += path.stat().st_size
packages = pathlib.Path(sysconfig.get_path('purelib'))
add('/opt/seqserve', lambda path: path.relative_to(packages).parts[0].split('.')[0] if packages in
path.parents else 'environment') add('/app/exported', lambda path: 'models')
for name in ('service', 'seqserve'):
    add(f'/app/{name}', lambda path: 'service and stubs')
print(json.dumps(sizes))
"""
# Below this a package is counted among the others, bytes.
LEAST = 2_000_000
OTHER_THAN_PACKAGES = ("bytecode", "models", "service and stubs")


async def image_bytes(image: str) -> int:
    """What the tool says the image takes."""
    return int(await call("image", "inspect", "--format={{.Size}}", image))


async def parts() -> dict[str, int]:
    """Bytes of each part that the Dockerfile adds, largest first; small packages in one."""
    flags = ["--rm", "--pull=never", "--network=none", *FLAGS]
    found: dict[str, int] = json.loads(
        await call("run", *flags, "--entrypoint=python3", IMAGE, "-c", PROGRAM)
    )
    small = {name for name, size in found.items() if size < LEAST and name not in OTHER_THAN_PACKAGES}
    kept = {name: size for name, size in found.items() if name not in small}
    kept["other packages"] = sum(found[name] for name in small)
    return dict(sorted(kept.items(), key=lambda item: -item[1]))


async def main(base: str | None) -> None:
    """Print the table.

    Args:
        base: the image that it was built on; without it the base is what the parts leave.
    """
    found = await parts()
    whole = await image_bytes(IMAGE)
    below = await image_bytes(base) if base else whole - sum(found.values())
    rows = {
        "base image": below,
        **found,
        "whole image": whole,
        "without base and models": whole - below - found.get("models", 0),
    }
    lines = [
        "| part | MB |",
        "| --- | --- |",
        *(f"| {name} | {size / 1e6:.1f} |" for name, size in rows.items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
